# The fast config with AutoAugment from the first to the last epoch of the experts.
_base_ = '../ride_r32_cifar100_lt_fast.py'

train_dataloader = dict(dataset=dict(pipeline=[{{_base_.policy}}, {{_base_.crop}}]))
default_hooks = dict(
    recipe=dict(
        schedule=[
            dict(action_epoch=40, train_pipeline=[{{_base_.policy}}, {{_base_.whole_image}}]),
            dict(action_epoch=51, train_pipeline=[{{_base_.whole_image}}]),
        ]
    )
)
