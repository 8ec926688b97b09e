# The plugin registers its parts into mmpretrain's registries.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['ride_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    # the tools choose an interval that divides the epoch
    logger=dict(type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # no `save_best`: no model is chosen on the set that it is judged on
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep_ckpts=3),
    # seeds samplers and, in this plugin, augmentations by the epoch
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # shows the schedule, and says what of it a run never comes to
    schedule=dict(type='ScheduleHook'),
    # warns of one image under two labels, or in training and validation
    data_check=dict(type='DataCheckHook'),
    # tries before the first step what would fail at the first validation
    validation_check=dict(type='ValidationCheckHook'),
    # ends a run whose loss or gradient is infinite or NaN
    non_finite=dict(type='NonFiniteHook'),
    # saves the last whole epoch when SIGTERM or SIGUSR1 comes
    stop_signal=dict(type='StopSignalHook'),
    # says when a resumed run takes another number of images per step
    total_batch=dict(type='TotalBatchHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # gloo where there is no GPU
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False

randomness = dict(seed=0, deterministic=False)
