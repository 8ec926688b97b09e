# RIDE on the CIFAR ResNet-32: stage 1 of the network is shared, every expert
# has stages 2 and 3 at three quarters of their width.
model = dict(
    type='RIDEClassifier',
    num_experts=3,
    backbone=dict(type='CIFARResNet', depth=32, num_stages=1),
    neck=dict(
        type='MultiExpertNeck',
        expert=dict(
            type='CIFARResNetExpert', depth=32, in_channels=16, stages=(1, 2), out_channels=(24, 48)
        ),
    ),
    head=dict(
        type='RIDEHead',
        num_classes=100,
        in_channels=48,
        classifier=dict(type='CosineClassifier', scale=30),
        loss=dict(type='LDAMLoss', max_margin=0.5),
        diversity=dict(type='DiversityLoss', weight=0.45, gamma=0.05),
        router=dict(
            type='ExpertRouter',
            topk=30,
            loss=dict(type='RoutingLoss', pos_weight=100),
            init_cfg=dict(type='Kaiming', layer='Linear', mode='fan_in'),
        ),
    ),
    # 'auto' routes as soon as the router has been trained
    test_cfg=dict(mode='auto', threshold=0.5),
)
