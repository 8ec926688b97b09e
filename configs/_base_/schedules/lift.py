# LIFT (Shi et al., ICML 2024): 10 epochs of the adapters at 128 images per step,
# then the router.
_base_ = ['./router.py', '../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=10, end=10)]
auto_scale_lr = dict(base_batch_size=128, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=15, val_interval=5)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    class_means=dict(type='ClassMeanInitHook'),
    two_stage=dict(type='TwoStageHook', begin=10, **_base_.router_stage),
    router_cache=dict(type='RouterCacheHook'),
)
