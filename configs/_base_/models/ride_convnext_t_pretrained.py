# RIDE on ConvNeXt-T that was trained on ImageNet: three of the four stages are
# shared and frozen, every expert has the last one.
_base_ = './ride_lite0.py'

model = dict(
    init_cfg=dict(
        checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/'
        'convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth',
        prefix='backbone',
    ),
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        arch=dict(depths=[3, 3, 9], channels=[96, 192, 384]),
        out_indices=(2,),
        gap_before_final_norm=False,
    ),
    neck=dict(
        expert=dict(
            _delete_=True,
            type='ConvNeXtExpert',
            arch='tiny',
            in_channels=384,
            stages=(3,),
            out_channels=(768,),
        )
    ),
    head=dict(in_channels=768),
)
