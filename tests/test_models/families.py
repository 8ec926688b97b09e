"""A tiny network of every family: whole, as a trunk, and a full-width tail.

``size`` is that of an image; the ``aliases`` of a tail apart, all weights have
the names that they have in the whole backbone.
"""

import torch
from mmpretrain.registry import MODELS

SWIN = dict(embed_dims=8, depths=[1, 2, 2, 1], num_heads=[1, 2, 2, 4])
VIT = dict(embed_dims=8, num_heads=2, feedforward_channels=16)


def swin(arch, size, widths, heads, **options):
    return dict(
        size=size,
        whole=dict(type='SwinTransformer', arch=arch, **options),
        trunk=dict(
            type='SwinTransformer',
            arch=dict(
                embed_dims=widths[0], depths=heads['depths'][:2], num_heads=heads['num_heads'][:2]
            ),
            out_indices=(1,),
            out_after_downsample=True,
            stage_cfgs=[dict(), dict(downsample=True)],
            norm_cfg=None,
            **options,
        ),
        tail=dict(
            type='SwinExpert', arch=arch, in_channels=widths[2], out_channels=widths[2:], **options
        ),
    )


def swin_v2(arch, size, widths, heads, window_size=8, extra_norm=0):
    windows = window_size
    if not isinstance(windows, int):
        windows = windows[:2]
    return dict(
        size=size,
        whole=dict(type='SwinTransformerV2', arch=arch, window_size=window_size),
        trunk=dict(
            type='SwinTransformerV2',
            arch=dict(
                embed_dims=widths[0],
                depths=heads['depths'][:2],
                num_heads=heads['num_heads'][:2],
                extra_norm_every_n_blocks=extra_norm,
            ),
            window_size=windows,
            out_indices=(1,),
            norm_cfg=None,
        ),
        tail=dict(
            type='SwinV2Expert',
            arch=arch,
            window_size=window_size,
            in_channels=widths[1],
            out_channels=widths[2:],
        ),
    )


def vit(arch, size, sizes, depth, out_type='cls_token', **options):
    """``options`` may hold ``type``, ``final_norm`` and layers' options."""
    family = options.pop('type', 'VisionTransformer')
    final_norm = options.pop('final_norm', True)
    return dict(
        size=size,
        whole=dict(
            type=family,
            arch=arch,
            img_size=size,
            out_type=out_type,
            final_norm=final_norm,
            **options,
        ),
        trunk=dict(
            type=family,
            arch=dict(sizes, num_layers=depth - 2),
            img_size=size,
            out_type='raw',
            final_norm=False,
            **options,
        ),
        tail=dict(
            type='ViTExpert',
            arch=arch,
            layers=(depth - 2, depth - 1),
            out_type=out_type,
            final_norm=final_norm,
            num_extra_tokens=1 + (family != 'VisionTransformer'),
            **{key: value for key, value in options.items() if key != 'patch_size'},
        ),
    )


def convnext(arch, size, depths, channels, **options):
    return dict(
        size=size,
        whole=dict(type='ConvNeXt', arch=arch, **options),
        trunk=dict(
            type='ConvNeXt',
            arch=dict(depths=depths[:2], channels=channels[:2]),
            out_indices=(1,),
            gap_before_final_norm=False,
            **options,
        ),
        tail=dict(
            type='ConvNeXtExpert',
            arch=arch,
            in_channels=channels[1],
            out_channels=channels[2:],
            **options,
        ),
    )


def resnet(family, depth, widths=(512, 1024, 2048), **options):
    return dict(
        size=32,
        whole=dict(type=family, depth=depth, **options),
        trunk=dict(
            type=family,
            depth=depth,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
            **options,
        ),
        tail=dict(
            type='ResNetExpert',
            family=family,
            depth=depth,
            in_channels=widths[0],
            out_channels=widths[1:],
            **options,
        ),
    )


def cifar_resnet(depth, shared=1, **options):
    return dict(
        size=16,
        whole=dict(type='CIFARResNet', depth=depth, **options),
        trunk=dict(type='CIFARResNet', depth=depth, num_stages=shared, **options),
        tail=dict(
            type='CIFARResNetExpert',
            depth=depth,
            stages=tuple(range(shared, 3)),
            out_channels=(16, 32, 64)[shared:],
            **options,
        ),
    )


def efficientnet_lite(arch, size=32, shared=5, channels=(112, 192, 320)):
    return dict(
        size=size,
        whole=dict(type='EfficientNetLite', arch=arch),
        trunk=dict(type='EfficientNetLite', arch=arch, num_stages=shared),
        tail=dict(
            type='EfficientNetLiteExpert',
            arch=arch,
            in_channels=channels[0],
            stages=tuple(range(shared, 7)),
            out_channels=channels[1:],
        ),
    )


WIDTHS = (8, 16, 32, 64)
CONVNEXT = dict(depths=[1, 1, 2, 1], channels=[8, 12, 16, 24])
GROUPS = dict(groups=32, width_per_group=4)
NARROW = dict(base_channels=8, stem_channels=8)

# Milliseconds each.
TINY = dict(
    cifar_resnet=cifar_resnet(20),
    cifar_resnet_b=cifar_resnet(20, shortcut='B'),
    cifar_resnet_stem=cifar_resnet(20, shared=0),
    resnet10=resnet('ResNet10', 10, (16, 32, 64), **NARROW),
    resnet18=resnet('ResNet', 18, (16, 32, 64), **NARROW),
    resnext=resnet('ResNeXt', 50, (64, 128, 256), groups=2, width_per_group=4, **NARROW),
    swin=swin(SWIN, 64, WIDTHS, SWIN, window_size=2),
    swin_v2=swin_v2(
        dict(SWIN, extra_norm_every_n_blocks=2),
        64,
        WIDTHS,
        SWIN,
        window_size=[4, 4, 2, 2],
        extra_norm=2,
    ),
    vit=vit(dict(VIT, num_layers=4), 32, VIT, 4, layer_scale_init_value=0.1),
    vit_mean=vit(dict(VIT, num_layers=4), 32, VIT, 4, out_type='avg_featmap', final_norm=False),
    deit=vit(dict(VIT, num_layers=4), 32, VIT, 4, type='DistilledVisionTransformer'),
    deit_mean=vit(
        dict(VIT, num_layers=4),
        32,
        VIT,
        4,
        type='DistilledVisionTransformer',
        out_type='avg_featmap',
    ),
    efficientnet_lite=efficientnet_lite('lite0'),
    convnext=convnext(CONVNEXT, 64, **CONVNEXT),
    convnext_v2=convnext(CONVNEXT, 64, use_grn=True, layer_scale_init_value=0.0, **CONVNEXT),
)

# The published networks, at the smallest size that they take.
SWIN_T = dict(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])
SWIN_S = dict(depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24])
SWIN_B = dict(depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32])
PUBLISHED = dict(
    r50=resnet('ResNet', 50),
    r101=resnet('ResNet', 101),
    r152=resnet('ResNet', 152),
    rx50=resnet('ResNeXt', 50, **GROUPS),
    rx101=resnet('ResNeXt', 101, **GROUPS),
    rx152=resnet('ResNeXt', 152, **GROUPS),
    se50=resnet('SEResNet', 50),
    r50_v1d=resnet('ResNetV1d', 50),
    swin_t=swin('tiny', 224, (96, 192, 384, 768), SWIN_T),
    swin_s=swin('small', 224, (96, 192, 384, 768), SWIN_S),
    swin_b=swin('base', 224, (128, 256, 512, 1024), SWIN_B),
    swin_v2_t=swin_v2('tiny', 256, (96, 192, 384, 768), SWIN_T),
    deit_tiny=vit('deit-tiny', 32, dict(embed_dims=192, num_heads=3, feedforward_channels=768), 12),
    convnext_atto=convnext('atto', 32, (2, 2, 6, 2), (40, 80, 160, 320)),
)


def build_eval(cfg):
    module = MODELS.build(cfg)
    module.eval()  # returns None for mmpretrain's backbones
    return module


def scatter(module, seed=0):
    """Random weights, biases and statistics: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point() or 'relative_coords' in name:
            continue
        value.normal_(generator=generator)
        if 'running_var' in name:
            value.abs_().add_(0.5)
        elif value.dim() == 1:
            value.mul_(0.1).add_(name.endswith('weight'))
        else:
            value.mul_(value[0].numel() ** -0.5)
    return module


def whole_feature(whole, x):
    """What the whole backbone and a global average give, (N, D)."""
    out = whole(x)[-1]
    if isinstance(out, tuple):  # class and distillation token
        out = out[0]
    return out.mean((2, 3)) if out.dim() == 4 else out
