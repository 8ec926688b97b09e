# RIDE on DINOv2 ViT-B/14, frozen, with adapters in all layers, as ride_clip_b16.py.
_base_ = './ride_clip_b16.py'

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    init_cfg=dict(
        checkpoint='https://download.openmmlab.com/mmpretrain/v1.0/dinov2/'
        'vit-base-p14_dinov2-pre_3rdparty_20230426-ba246503.pth',
        prefix='backbone',
    ),
    backbone=dict(
        patch_size=14,
        pre_norm=False,
        layer_scale_init_value=1e-5,
        norm_cfg=norm_cfg,
        layer_cfgs=dict(_delete_=True),
    ),
    neck=dict(
        expert=dict(layer_scale_init_value=1e-5, norm_cfg=norm_cfg, layer_cfgs=dict(_delete_=True))
    ),
)
