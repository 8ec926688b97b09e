# 30 epochs at 128 images per step (4 GPUs with 32), then the router at 512.
# Whatever is pretrained learns at a tenth of the classifiers' rate.
_base_ = ['./router.py', '../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=4e-4, nesterov=True),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1), neck=dict(lr_mult=0.1))),
)
param_scheduler = [
    dict(type='MultiStepLR', milestones=[10, 20], gamma=0.1, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=128, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=35, val_interval=5)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    reweighting=dict(type='DeferredReweightingHook', begin=20),
    two_stage=dict(
        type='TwoStageHook',
        begin=30,
        **dict(
            _base_.router_stage,
            train_dataloader=dict(batch_size=128, sampler=dict(type='ClassBalancedSampler')),
        ),
    ),
)
