# RIDE on ResNet-50 that was trained on ImageNet: three of the four stages are
# shared and frozen, every expert has the last one.
_base_ = './ride_lite0.py'

model = dict(
    init_cfg=dict(
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
        'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
        prefix='backbone',
    ),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
    ),
    neck=dict(
        expert=dict(
            _delete_=True,
            type='ResNetExpert',
            depth=50,
            in_channels=1024,
            stages=(3,),
            out_channels=(2048,),
        )
    ),
    head=dict(in_channels=2048),
)
