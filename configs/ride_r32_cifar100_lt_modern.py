# The same network with what later methods train with: one prior for each expert,
# AutoAugment, Mixup and 400 epochs. See docs/recipes.md.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(
    head=dict(
        loss=[
            dict(type='CrossEntropyLoss'),
            dict(type='LogitAdjustmentLoss', tau=1),
            dict(type='LogitAdjustmentLoss', tau=2),
        ],
        diversity=None,
    ),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.4)),
)

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='CIFARAutoAugment'),
            dict(type='DrawCropFlipRotate', size=32, padding=4, degrees=0),
        ]
    )
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 10, end=10),
    dict(type='MultiStepLR', milestones=[320, 360], gamma=0.1),
]
train_cfg = dict(max_epochs=405)
default_hooks = dict(reweighting=None, two_stage=dict(begin=400))
