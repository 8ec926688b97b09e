"""docs/backbones.md: its code runs, and is what it says."""

import sys

import pytest
import torch
from families import build_eval, scatter, whole_feature
from mmengine.config import Config
from mmpretrain.registry import MODELS


def blocks(root):
    text = (root / 'docs/backbones.md').read_text()
    return [part.split('```')[0] for part in text.split('```python\n')[1:]]


def models(root):
    """Trunk, expert and what is shared, of every block that has them."""
    return [Config.fromstring(block, '.py') for block in blocks(root) if 'backbone = ' in block]


@pytest.fixture
def van_expert(root, tmp_path, monkeypatch):
    """The page's own tail, imported as a user would."""
    (code,) = [block for block in blocks(root) if 'class VANExpert' in block]
    (tmp_path / 'my_experts.py').write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_experts  # noqa: F401

    yield code
    MODELS.module_dict.pop('VANExpert')
    del sys.modules['my_experts']


def build(cfg, **options):
    tail = MODELS.build(cfg.expert)
    return MODELS.build(
        dict(
            type='RIDEClassifier',
            num_experts=2,
            backbone=cfg.backbone,
            neck=dict(type='MultiExpertNeck', expert=cfg.expert, shared=cfg.get('shared')),
            head=dict(
                type='RIDEHead',
                num_classes=3,
                in_channels=tail.out_channels,
                loss=dict(type='CrossEntropyLoss'),
            ),
            **options,
        )
    )


def test_every_trunk_fits_its_expert(root, van_expert):
    cfgs = models(root)
    assert [cfg.backbone.type for cfg in cfgs] == [
        'ResNet',
        'ResNeXt',
        'CIFARResNet',
        'SwinTransformer',
        'SwinTransformerV2',
        'VisionTransformer',
        'ConvNeXt',
        'EfficientNetLite',
        'AdaptFormerViT',
        'VAN',
    ]
    for cfg in cfgs:
        assert build(cfg).num_experts == 2


def test_another_family_in_under_40_lines(root, van_expert, tmp_path):
    """Pretrained, it gives what the whole backbone gives."""
    assert len(van_expert.splitlines()) < 40
    cfg = models(root)[-1]
    cfg.expert.out_channels = (160, 256)
    whole = scatter(build_eval(dict(type='VAN', arch='tiny')))
    torch.save(whole.state_dict(), tmp_path / 'van.pth')
    model = build(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'van.pth')))
    model.init_weights()
    model.double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = whole_feature(whole.double(), x)
        for feature in model.neck(model.backbone(x)):
            torch.testing.assert_close(feature, expected)


def test_the_pretrained_example_is_a_config_of_ours(root):
    (example,) = [block for block in blocks(root) if 'init_cfg' in block]
    cfg = Config.fromfile(root / 'configs/ride_r152_places_lt.py')
    assert Config.fromstring(example, '.py').model.init_cfg == (cfg.model.init_cfg)
