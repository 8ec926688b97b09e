# RIDE on Swin-T: stages 1 and 2, the patch merging after them and the last
# norm are shared, every expert has stages 3 and 4 at three quarters of their
# width.
_base_ = './ride_r50.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=96, depths=[2, 2], num_heads=[3, 6]),
        stage_cfgs=[dict(), dict(downsample=True, downsample_cfg=dict(out_channels=288))],
        out_after_downsample=True,
        out_indices=(1,),
        norm_cfg=None,
        # 0.2 for the last of the 12 blocks, 0 for the first; the trunk has 4
        drop_path_rate=0.2 * 3 / 11,
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    neck=dict(
        expert=dict(
            _delete_=True,
            type='SwinExpert',
            arch='tiny',
            in_channels=288,
            stages=(2, 3),
            out_channels=(288, 576),
            final_norm=False,
            drop_path_rate=0.2,
        ),
        shared=dict(norm3=dict(type='NormPool', channels=576)),
    ),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
    head=dict(
        in_channels=576,
        loss=dict(label_smoothing=0.1),
        classifier=dict(init_cfg=dict(type='TruncNormal', layer='CosineClassifier', std=0.02)),
    ),
)
