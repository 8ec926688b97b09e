# RIDE in about a tenth of the official time: Muon instead of SGD, logit adjustment
# instead of LDAM and re-weighting, crops of 24 x 24 pixels in the first 39 of 50
# epochs of the experts, and AutoAugment in the epochs 10 to 44. See docs/recipes.md.
_base_ = './ride_r32_cifar100_lt.py'

model = dict(head=dict(loss=dict(_delete_=True, type='LogitAdjustmentLoss', tau=0.9)))

policy = dict(type='CIFARAutoAugment')
crop = dict(type='DrawCropFlipRotate', size=24, padding=0, degrees=0)
whole_image = dict(type='DrawCropFlipRotate', size=32, padding=4, degrees=0)
# A last batch of another size would be trained without the compiler.
train_dataloader = dict(batch_size=64, drop_last=True, dataset=dict(pipeline=[crop]))

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='MuonSGD', lr=0.035, momentum=0.9, weight_decay=0.04, sgd_lr=0.07
    )
)
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=5, convert_to_iter_based=True),
    dict(
        type='LinearLR', start_factor=1, end_factor=0, begin=5, end=50, convert_to_iter_based=True
    ),
]

# The ensemble is validated, then the routed model.
train_cfg = dict(max_epochs=55, val_interval=50)
default_hooks = dict(
    reweighting=None,
    recipe=dict(
        type='SwitchRecipeHook',
        schedule=[
            dict(action_epoch=10, train_pipeline=[policy, crop]),
            dict(action_epoch=40, train_pipeline=[policy, whole_image]),
            dict(action_epoch=45, train_pipeline=[whole_image]),
        ],
    ),
    two_stage=dict(begin=50),
    router_cache=dict(type='RouterCacheHook'),
)
