# 200 epochs at 128 images per step, then the router.
_base_ = ['./router.py', '../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5, by_epoch=True, end=5),
    dict(type='MultiStepLR', milestones=[160, 180], gamma=0.01, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=128, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=205, val_interval=10)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    reweighting=dict(type='DeferredReweightingHook', begin=160),
    two_stage=dict(type='TwoStageHook', begin=200, **_base_.router_stage),
)
