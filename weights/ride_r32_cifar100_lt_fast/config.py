auto_scale_lr = dict(base_batch_size=64, enable=False)
crop = dict(degrees=0, padding=0, size=24, type='DrawCropFlipRotate')
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'ride_mm',
    ])
data_preprocessor = dict(
    mean=[
        125.307,
        122.961,
        113.8575,
    ],
    std=[
        51.5865,
        50.847,
        51.255,
    ],
    to_rgb=True)
data_root = 'data/cifar100'
dataset_type = 'CIFAR100LT'
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, type='CheckpointHook'),
    class_counts=dict(type='ClassCountsHook'),
    data_check=dict(type='DataCheckHook'),
    logger=dict(type='LoggerHook'),
    non_finite=dict(type='NonFiniteHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    recipe=dict(
        schedule=[
            dict(
                action_epoch=10,
                train_pipeline=[
                    dict(type='CIFARAutoAugment'),
                    dict(
                        degrees=0,
                        padding=0,
                        size=24,
                        type='DrawCropFlipRotate'),
                ]),
            dict(
                action_epoch=40,
                train_pipeline=[
                    dict(type='CIFARAutoAugment'),
                    dict(
                        degrees=0,
                        padding=4,
                        size=32,
                        type='DrawCropFlipRotate'),
                ]),
            dict(
                action_epoch=45,
                train_pipeline=[
                    dict(
                        degrees=0,
                        padding=4,
                        size=32,
                        type='DrawCropFlipRotate'),
                ]),
        ],
        type='SwitchRecipeHook'),
    reweighting=None,
    router_cache=dict(type='RouterCacheHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    schedule=dict(type='ScheduleHook'),
    stop_signal=dict(type='StopSignalHook'),
    timer=dict(type='IterTimerHook'),
    total_batch=dict(type='TotalBatchHook'),
    two_stage=dict(
        auto_scale_lr=dict(base_batch_size=512),
        begin=50,
        optim_wrapper=dict(
            optimizer=dict(
                lr=0.01,
                momentum=0.9,
                nesterov=True,
                type='SGD',
                weight_decay=0.0005)),
        param_scheduler=[
            dict(T_max=5, by_epoch=True, end=5, type='CosineAnnealingLR'),
        ],
        train_dataloader=dict(
            batch_size=512, sampler=dict(type='ClassBalancedSampler')),
        type='TwoStageHook'),
    validation_check=dict(type='ValidationCheckHook'),
    visualization=dict(enable=False, type='VisualizationHook'))
default_scope = 'mmpretrain'
env_cfg = dict(
    cudnn_benchmark=True,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_level = 'INFO'
model = dict(
    backbone=dict(depth=32, num_stages=1, type='CIFARResNet'),
    head=dict(
        classifier=dict(scale=30, type='CosineClassifier'),
        diversity=dict(gamma=0.05, type='DiversityLoss', weight=0.45),
        in_channels=48,
        loss=dict(tau=0.9, type='LogitAdjustmentLoss'),
        num_classes=100,
        router=dict(
            init_cfg=dict(layer='Linear', mode='fan_in', type='Kaiming'),
            loss=dict(pos_weight=100, type='RoutingLoss'),
            topk=30,
            type='ExpertRouter'),
        type='RIDEHead'),
    neck=dict(
        expert=dict(
            depth=32,
            in_channels=16,
            out_channels=(
                24,
                48,
            ),
            stages=(
                1,
                2,
            ),
            type='CIFARResNetExpert'),
        type='MultiExpertNeck'),
    num_experts=3,
    teacher=None,
    test_cfg=dict(mode='auto', threshold=0.5),
    type='RIDEClassifier')
optim_wrapper = dict(
    optimizer=dict(
        lr=0.035, momentum=0.9, sgd_lr=0.07, type='MuonSGD',
        weight_decay=0.04),
    type='OptimWrapper')
param_scheduler = [
    dict(convert_to_iter_based=True, end=5, start_factor=0.1, type='LinearLR'),
    dict(
        begin=5,
        convert_to_iter_based=True,
        end=50,
        end_factor=0,
        start_factor=1,
        type='LinearLR'),
]
policy = dict(type='CIFARAutoAugment')
randomness = dict(deterministic=False, seed=0)
router_epochs = 5
router_stage = dict(
    auto_scale_lr=dict(base_batch_size=512),
    optim_wrapper=dict(
        optimizer=dict(
            lr=0.01,
            momentum=0.9,
            nesterov=True,
            type='SGD',
            weight_decay=0.0005)),
    param_scheduler=[
        dict(T_max=5, by_epoch=True, end=5, type='CosineAnnealingLR'),
    ],
    train_dataloader=dict(
        batch_size=512, sampler=dict(type='ClassBalancedSampler')))
test_cfg = dict()
test_dataloader = dict(
    batch_size=256,
    dataset=dict(
        data_root='data/cifar100',
        imb_factor=0.01,
        imb_type='exp',
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='test',
        to_bgr=True,
        type='CIFAR100LT'),
    num_workers=2,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = [
    dict(topk=(
        1,
        5,
    ), type='LongTailMetric'),
    dict(type='ExpertUsageMetric'),
]
test_pipeline = [
    dict(type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=55, val_interval=50)
train_dataloader = dict(
    batch_size=64,
    collate_fn=dict(type='collate_batch'),
    dataset=dict(
        data_root='data/cifar100',
        imb_factor=0.01,
        imb_type='exp',
        pipeline=[
            dict(degrees=0, padding=0, size=24, type='DrawCropFlipRotate'),
        ],
        split='train',
        to_bgr=True,
        type='CIFAR100LT'),
    drop_last=True,
    num_workers=2,
    sampler=dict(shuffle=True, type='DefaultSampler'))
train_pipeline = [
    dict(degrees=15, padding=4, size=32, type='DrawCropFlipRotate'),
]
val_cfg = dict()
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        data_root='data/cifar100',
        imb_factor=0.01,
        imb_type='exp',
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='test',
        to_bgr=True,
        type='CIFAR100LT'),
    num_workers=2,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = [
    dict(topk=(
        1,
        5,
    ), type='LongTailMetric'),
    dict(type='ExpertUsageMetric'),
]
vis_backends = [
    dict(type='LocalVisBackend'),
]
visualizer = dict(
    type='UniversalVisualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
whole_image = dict(degrees=0, padding=4, size=32, type='DrawCropFlipRotate')
