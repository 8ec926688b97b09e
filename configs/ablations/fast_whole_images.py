# The fast config with whole images from the beginning.
_base_ = '../ride_r32_cifar100_lt_fast.py'

train_dataloader = dict(dataset=dict(pipeline=[{{_base_.whole_image}}]))
default_hooks = dict(
    recipe=dict(
        schedule=[
            dict(action_epoch=10, train_pipeline=[{{_base_.policy}}, {{_base_.whole_image}}]),
            dict(action_epoch=45, train_pipeline=[{{_base_.whole_image}}]),
        ]
    )
)
