# RIDE on ResNet-152 that was trained on ImageNet. Its weights go into the
# trunk and into every expert, so experts have their full width.
_base_ = './ride_r50.py'

model = dict(
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
        'resnet152_8xb32_in1k_20210901-4d7582fa.pth',
        prefix='backbone',
    ),
    backbone=dict(depth=152),
    neck=dict(expert=dict(depth=152, out_channels=(1024, 2048))),
    head=dict(in_channels=2048),
)
