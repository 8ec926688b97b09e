"""Adapters in a frozen ViT."""

import copy
from functools import partial

import pytest
import torch
from families import TINY, build_eval, scatter
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.registry import MODELS
from test_backbones import check_features, pretrained, ride, save_whole
from torch import nn

from ride_mm.models.adapters import AdaptFormer, add_adapters
from ride_mm.utils.errors import UserError

CHANNELS = 2


def adapted(name='vit', channels=CHANNELS):
    family = dict(TINY[name])
    family['trunk'] = dict(family['trunk'], type='AdaptFormerViT', adapter_channels=channels)
    family['tail'] = dict(family['tail'], adapter_channels=channels)
    return family


def test_formula():
    adapter = scatter(AdaptFormer(5, 3).double())
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    weights = {name: value.detach() for name, value in adapter.named_parameters()}
    spread = ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True) + adapter.norm.eps
    hidden = (x - x.mean(-1, keepdim=True)) / spread.sqrt()
    hidden = hidden * weights['norm.weight'] + weights['norm.bias']
    hidden = hidden @ weights['down.weight'].T + weights['down.bias']
    hidden = torch.where(hidden > 0, hidden, 0)
    expected = weights['scale'] * (hidden @ weights['up.weight'].T + weights['up.bias'])
    torch.testing.assert_close(adapter(x), expected)


@pytest.mark.parametrize('options', [{}, dict(ffn_type='swiglu_fused', layer_scale_init_value=0.5)])
@torch.no_grad()
def test_the_adapter_is_beside_the_mlp(options):
    layer = scatter(TransformerEncoderLayer(8, 2, 16, **options)).double().eval()
    whole, x = copy.deepcopy(layer), torch.randn(2, 5, 8, dtype=torch.float64)
    add_adapters(nn.Sequential(layer), 3)
    layer.double()
    torch.testing.assert_close(layer(x), whole(x))
    scatter(layer.adapter)
    after_attention = x + whole.attn(whole.ln1(x))
    torch.testing.assert_close(layer(x) - whole(x), layer.adapter(after_attention))
    # A copy, as of the averaged model, has adapters of its own.
    other, before = copy.deepcopy(layer), layer(x)
    other.adapter.up.weight.zero_()
    torch.testing.assert_close(layer(x), before)
    assert not torch.allclose(other(x), before)


def test_pretrained_weights_and_new_adapters(tmp_path):
    family = adapted()
    whole = save_whole(family, tmp_path / 'whole.pth')
    model = MODELS.build(
        ride(family, init_cfg=pretrained(tmp_path / 'whole.pth', prefix='backbone'))
    )
    model.init_weights()
    check_features(model, whole, family['size'])
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained == [
        name
        for name, _ in model.named_parameters()
        if '.adapter.' in name or name.startswith('head.')
    ]
    assert any(name.startswith('backbone.') for name in trained)
    first, second = (expert.layers['2'].adapter for expert in model.neck.experts[:2])
    assert not torch.equal(first.down.weight, second.down.weight)


def test_gradients_reach_all_adapters():
    family = adapted(channels=32)
    model = scatter(MODELS.build(ride(family))).train()
    x = torch.randn(2, 3, family['size'], family['size'])
    sum(logits.square().sum() for logits in model.neck(model.backbone(x))).backward()
    found = {name: value.grad for name, value in model.named_parameters() if '.adapter.' in name}
    assert len(found) == 7 * (2 + 3 * 2)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


@pytest.mark.parametrize(
    'build',
    [
        partial(build_eval, adapted(channels=0)['trunk']),
        partial(build_eval, adapted(channels=0)['tail']),
    ],
)
def test_a_width_of_zero(build):
    with pytest.raises(UserError, match='adapter_channels=0, expected >= 1'):
        build()


def test_classifiers_of_text_features(tmp_path):
    """Weights of a classifier come from their own file, those of the rest from another."""
    family = adapted()
    save_whole(family, tmp_path / 'whole.pth')
    features = torch.randn(4, 8)
    torch.save(dict(weight=features), tmp_path / 'text.pth')
    cfg = ride(family, init_cfg=pretrained(tmp_path / 'whole.pth'))
    cfg['head']['classifier'] = dict(
        type='CosineClassifier', init_cfg=pretrained(tmp_path / 'text.pth')
    )
    model = MODELS.build(cfg)
    model.init_weights()
    for classifier in model.head.classifiers:
        assert torch.equal(classifier.weight, features)
