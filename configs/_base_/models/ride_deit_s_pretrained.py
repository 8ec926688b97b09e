# RIDE on DeiT-S that was trained on ImageNet: nine of the twelve layers are shared
# and frozen, every expert has the last three.
_base_ = './ride_lite0.py'

model = dict(
    init_cfg=dict(
        checkpoint='https://download.openmmlab.com/mmclassification/v0/deit/'
        'deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth',
        prefix='backbone',
    ),
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch=dict(embed_dims=384, num_layers=9, num_heads=6, feedforward_channels=1536),
        out_type='raw',
        final_norm=False,
    ),
    neck=dict(expert=dict(_delete_=True, type='ViTExpert', arch='deit-small', layers=(9, 10, 11))),
    head=dict(in_channels=384),
)
