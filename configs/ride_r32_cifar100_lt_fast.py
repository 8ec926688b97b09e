# RIDE in a tenth of the official time: 60 epochs instead of 200. Muon instead of
# SGD, logit adjustment instead of LDAM and re-weighting, AutoAugment instead of
# the rotation. See docs/recipes.md.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(head=dict(loss=dict(_delete_=True, type='LogitAdjustmentLoss', tau=1), diversity=None))

train_pipeline = [
    dict(type='CIFARAutoAugment'),
    dict(type='DrawCropFlipRotate', size=32, padding=4, degrees=0),
]
# the first half of stage 1 at 24 x 24 pixels
small_pipeline = [
    dict(type='CIFARAutoAugment'),
    dict(type='Resize', scale=24, interpolation='area'),
    dict(type='DrawCropFlipRotate', size=24, padding=3, degrees=0),
]
# A last batch of another size would be compiled on its own.
train_dataloader = dict(drop_last=True, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='MuonSGD', lr=0.05, weight_decay=0.02))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=6, convert_to_iter_based=True),
    dict(
        type='LinearLR', start_factor=1, end_factor=0, begin=6, end=60, convert_to_iter_based=True
    ),
]

train_cfg = dict(max_epochs=65)
default_hooks = dict(
    reweighting=None,
    image_size=dict(
        type='SwitchRecipeHook',
        schedule=[
            dict(action_epoch=1, train_pipeline=small_pipeline),
            dict(action_epoch=31, train_pipeline=train_pipeline),
        ],
    ),
    two_stage=dict(begin=60),
    router_cache=dict(type='RouterCacheHook'),
)
