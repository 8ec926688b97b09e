# RIDE in a tenth of the official time: Muon instead of SGD, logit adjustment
# instead of LDAM and re-weighting, AutoAugment instead of the rotation, and crops
# of 24 x 24 pixels until the last 12 epochs of the experts. See docs/recipes.md.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(head=dict(loss=dict(_delete_=True, type='LogitAdjustmentLoss', tau=1), diversity=None))

crops = [
    dict(type='CIFARAutoAugment'),
    dict(type='DrawCropFlipRotate', size=24, padding=0, degrees=0),
]
whole_images = [
    dict(type='CIFARAutoAugment'),
    dict(type='DrawCropFlipRotate', size=32, padding=4, degrees=0),
]
# A last batch of another size would be compiled on its own.
train_dataloader = dict(drop_last=True, dataset=dict(pipeline=crops))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='MuonSGD', lr=0.05, weight_decay=0.02))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=5, convert_to_iter_based=True),
    dict(
        type='LinearLR', start_factor=1, end_factor=0, begin=5, end=54, convert_to_iter_based=True
    ),
]

# The ensemble is validated, then the routed model.
train_cfg = dict(max_epochs=59, val_interval=54)
default_hooks = dict(
    reweighting=None,
    recipe=dict(
        type='SwitchRecipeHook', schedule=[dict(action_epoch=43, train_pipeline=whole_images)]
    ),
    two_stage=dict(begin=54),
    router_cache=dict(type='RouterCacheHook'),
)
