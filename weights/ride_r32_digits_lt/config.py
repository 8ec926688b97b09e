auto_scale_lr = dict(base_batch_size=32, enable=False)
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'ride_mm',
    ])
data_preprocessor = dict(
    mean=[
        77.5,
        77.5,
        77.5,
    ], std=[
        96.0,
        96.0,
        96.0,
    ], to_rgb=False)
dataset_type = 'DigitsLT'
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, type='CheckpointHook'),
    class_counts=dict(type='ClassCountsHook'),
    data_check=dict(type='DataCheckHook'),
    logger=dict(interval=20, type='LoggerHook'),
    non_finite=dict(type='NonFiniteHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    reweighting=dict(begin=32, type='DeferredReweightingHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    schedule=dict(type='ScheduleHook'),
    stop_signal=dict(type='StopSignalHook'),
    timer=dict(type='IterTimerHook'),
    total_batch=dict(type='TotalBatchHook'),
    two_stage=dict(
        auto_scale_lr=dict(base_batch_size=512),
        begin=40,
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
            batch_size=64, sampler=dict(type='ClassBalancedSampler')),
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
        loss=dict(max_margin=0.5, type='LDAMLoss'),
        num_classes=10,
        router=dict(
            init_cfg=dict(layer='Linear', mode='fan_in', type='Kaiming'),
            loss=dict(pos_weight=100, type='RoutingLoss'),
            topk=10,
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
        lr=0.05, momentum=0.9, nesterov=True, type='SGD', weight_decay=0.0005),
    type='OptimWrapper')
param_scheduler = [
    dict(by_epoch=True, end=5, start_factor=0.2, type='LinearLR'),
    dict(by_epoch=True, gamma=0.1, milestones=[
        32,
        36,
    ], type='MultiStepLR'),
]
randomness = dict(deterministic=False, seed=0)
resize = dict(
    scale=(
        16,
        16,
    ), type='Resize')
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
    batch_size=220,
    dataset=dict(
        pipeline=[
            dict(scale=(
                16,
                16,
            ), type='Resize'),
            dict(type='PackInputs'),
        ],
        split='test',
        type='DigitsLT'),
    num_workers=1,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = [
    dict(type='LongTailMetric'),
    dict(type='ExpertUsageMetric'),
]
test_pipeline = [
    dict(scale=(
        16,
        16,
    ), type='Resize'),
    dict(type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=45, val_interval=10)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        pipeline=[
            dict(scale=(
                16,
                16,
            ), type='Resize'),
            dict(to_rgb=False, type='NumpyToPIL'),
            dict(padding=2, size=16, type='torchvision/RandomCrop'),
            dict(degrees=15, type='torchvision/RandomRotation'),
            dict(to_bgr=False, type='PILToNumpy'),
            dict(type='PackInputs'),
        ],
        split='train',
        type='DigitsLT'),
    num_workers=1,
    sampler=dict(shuffle=True, type='DefaultSampler'))
train_pipeline = [
    dict(scale=(
        16,
        16,
    ), type='Resize'),
    dict(to_rgb=False, type='NumpyToPIL'),
    dict(padding=2, size=16, type='torchvision/RandomCrop'),
    dict(degrees=15, type='torchvision/RandomRotation'),
    dict(to_bgr=False, type='PILToNumpy'),
    dict(type='PackInputs'),
]
val_cfg = dict()
val_dataloader = dict(
    batch_size=220,
    dataset=dict(
        pipeline=[
            dict(scale=(
                16,
                16,
            ), type='Resize'),
            dict(type='PackInputs'),
        ],
        split='test',
        type='DigitsLT'),
    num_workers=1,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = [
    dict(type='LongTailMetric'),
    dict(type='ExpertUsageMetric'),
]
vis_backends = [
    dict(type='LocalVisBackend'),
]
visualizer = dict(
    type='UniversalVisualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
