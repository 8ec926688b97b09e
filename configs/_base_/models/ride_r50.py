# RIDE on ResNet-50: stages 1 and 2 are shared, every expert has stages 3 and
# 4 at three quarters of their width.
model = dict(
    type='RIDEClassifier',
    num_experts=3,
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        zero_init_residual=False,
    ),
    neck=dict(
        type='MultiExpertNeck',
        expert=dict(
            type='ResNetExpert', depth=50, in_channels=512, stages=(2, 3), out_channels=(768, 1536)
        ),
    ),
    head=dict(
        type='RIDEHead',
        num_classes=1000,
        in_channels=1536,
        classifier=dict(type='CosineClassifier', scale=30),
        loss=dict(type='LDAMLoss', max_margin=0.5),
        diversity=dict(type='DiversityLoss', weight=0.2, gamma=0.02),
        router=dict(type='ExpertRouter', topk=50, loss=dict(type='RoutingLoss', pos_weight=100)),
    ),
    # 'auto' routes as soon as the router has been trained
    test_cfg=dict(mode='auto', threshold=0.5),
)
