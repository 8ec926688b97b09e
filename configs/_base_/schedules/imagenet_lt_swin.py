# 300 epochs at 1024 images per step (8 GPUs with 128), then the router at 512,
# with SGD: the authors advise it instead of AdamW there.
_base_ = ['./router.py', '../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.2, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)},
    ),
    clip_grad=dict(max_norm=5.0),
)
# Both change the rate every iteration. The cosine begins with the warm-up, as
# in the official code.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=300,
        eta_min=1e-5,
        by_epoch=True,
        end=300,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=1024, enable=False)

train_cfg = dict(by_epoch=True, max_epochs=305, val_interval=10)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    class_counts=dict(type='ClassCountsHook'),
    # the official code counts from 0 here, and re-weights after epoch 240
    reweighting=dict(type='DeferredReweightingHook', begin=241),
    two_stage=dict(
        type='TwoStageHook',
        begin=300,
        **dict(
            _base_.router_stage,
            train_dataloader=dict(batch_size=64, sampler=dict(type='ClassBalancedSampler')),
        ),
    ),
)
