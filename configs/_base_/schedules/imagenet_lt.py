# 100 epochs at 256 images per step (8 GPUs with 32), then the router at 512.
_base_ = ['./router.py', '../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=2e-4, nesterov=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5, by_epoch=True, end=5),
    dict(type='MultiStepLR', milestones=[60, 80], gamma=0.1, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=256, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=105, val_interval=5)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    reweighting=dict(type='DeferredReweightingHook', begin=80),
    two_stage=dict(
        type='TwoStageHook',
        begin=100,
        **dict(
            _base_.router_stage,
            train_dataloader=dict(batch_size=64, sampler=dict(type='ClassBalancedSampler')),
        ),
    ),
)
