# The fast config without AutoAugment.
_base_ = '../ride_r32_cifar100_lt_fast.py'

default_hooks = dict(
    recipe=dict(schedule=[dict(action_epoch=40, train_pipeline=[{{_base_.whole_image}}])])
)
