# RIDE, 3 experts, ResNet-32, long-tailed digits: the whole recipe within
# minutes on a CPU, 40 epochs of the experts, then 5 of the router.
_base_ = [
    '_base_/models/ride_r32.py',
    '_base_/datasets/digits_lt.py',
    '_base_/schedules/router.py',
    '_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=10, router=dict(topk=10)))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5, by_epoch=True, end=5),
    dict(type='MultiStepLR', milestones=[32, 36], gamma=0.1, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=32, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=45, val_interval=10)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    reweighting=dict(type='DeferredReweightingHook', begin=32),
    two_stage=dict(
        type='TwoStageHook',
        begin=40,
        **dict(
            _base_.router_stage,
            train_dataloader=dict(batch_size=64, sampler=dict(type='ClassBalancedSampler')),
        ),
    ),
)
