# RIDE on ResNeXt-50 (32x4d): as on ResNet-50, with grouped convolutions.
_base_ = './ride_r50.py'

model = dict(
    backbone=dict(type='ResNeXt', groups=32, width_per_group=4),
    neck=dict(expert=dict(family='ResNeXt', groups=32, width_per_group=4)),
)
