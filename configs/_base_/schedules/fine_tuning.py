# 10 epochs of the experts of a pretrained network, whose trunk runs once, at 64
# images per step, then the router.
_base_ = ['./router.py', '../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4, nesterov=True),
    clip_grad=dict(max_norm=4.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=10, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=15, val_interval=10)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    class_means=dict(type='ClassMeanInitHook'),
    two_stage=dict(type='TwoStageHook', begin=10, **_base_.router_stage),
    trunk_cache=dict(type='TrunkCacheHook', views=4),
    router_cache=dict(type='RouterCacheHook'),
)
