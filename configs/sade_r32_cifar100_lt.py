# The experts of SADE (Zhang et al., NeurIPS 2022): one for the long tail, one
# for all classes alike and one for the long tail turned round.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(
    head=dict(
        loss=[
            dict(type='CrossEntropyLoss'),
            dict(type='BalancedSoftmaxLoss'),
            dict(type='InverseSoftmaxLoss', tau=2),
        ],
        diversity=None,
        router=None,
    )
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5, by_epoch=True, end=5),
    dict(type='MultiStepLR', milestones=[160, 180], gamma=0.1, by_epoch=True),
]
train_cfg = dict(max_epochs=200)
default_hooks = dict(reweighting=None, two_stage=None)
