# RIDE on ResNet-10: as on ResNet-50, with one basic block a stage.
_base_ = './ride_r50.py'

model = dict(
    backbone=dict(type='ResNet10', depth=10),
    neck=dict(expert=dict(family='ResNet10', depth=10, in_channels=128, out_channels=(192, 384))),
    head=dict(in_channels=384, router=dict(topk=30)),
)
