# RIDE on Swin-T that was trained on ImageNet: three of the four stages, and the
# patch merging after them, are shared and frozen, every expert has the last one.
_base_ = './ride_lite0.py'

model = dict(
    init_cfg=dict(
        checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
        'swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth',
        prefix='backbone',
    ),
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=96, depths=[2, 2, 6], num_heads=[3, 6, 12]),
        stage_cfgs=[dict(), dict(), dict(downsample=True)],
        out_after_downsample=True,
        out_indices=(2,),
        norm_cfg=None,
    ),
    neck=dict(
        expert=dict(
            _delete_=True,
            type='SwinExpert',
            arch='tiny',
            in_channels=768,
            stages=(3,),
            out_channels=(768,),
        )
    ),
    head=dict(in_channels=768),
)
