# RIDE on the image encoder of CLIP ViT-B/16, frozen, with adapters in all layers:
# eight layers are shared, every expert has the last four. The width of the adapters is
# LIFT's for 1000 classes, the largest power of two up to 1000 / (2 x 12).
_base_ = './ride_lite0.py'

adapter_channels = 32
norm_cfg = dict(type='LN', eps=1e-5)
layer_cfgs = dict(act_cfg=dict(type='QuickGELU'))

model = dict(
    init_cfg=dict(
        checkpoint='https://huggingface.co/timm/vit_base_patch16_clip_224.openai/resolve/main/'
        'model.safetensors',
    ),
    freeze_trunk=False,  # its adapters are trained
    backbone=dict(
        _delete_=True,
        type='AdaptFormerViT',
        arch=dict(embed_dims=768, num_layers=8, num_heads=12, feedforward_channels=3072),
        adapter_channels=adapter_channels,
        out_type='raw',
        final_norm=False,
        pre_norm=True,
        norm_cfg=norm_cfg,
        layer_cfgs=layer_cfgs,
    ),
    neck=dict(
        expert=dict(
            _delete_=True,
            type='ViTExpert',
            arch='base',
            layers=(8, 9, 10, 11),
            adapter_channels=adapter_channels,
            norm_cfg=norm_cfg,
            layer_cfgs=layer_cfgs,
        )
    ),
    head=dict(
        in_channels=768,
        num_classes=1000,
        classifier=dict(scale=25),
        router=dict(topk=50),
    ),
)
