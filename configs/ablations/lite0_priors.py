# ride_lite0_cifar100_lt.py with a prior of its own for each expert.
_base_ = '../ride_lite0_cifar100_lt.py'

model = dict(
    head=dict(
        loss=[
            dict(type='CrossEntropyLoss'),
            dict(type='LogitAdjustmentLoss', tau=1),
            dict(type='LogitAdjustmentLoss', tau=2),
        ],
    )
)
