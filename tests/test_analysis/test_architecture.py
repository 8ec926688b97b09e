"""Drawings of networks."""

from xml.etree import ElementTree

import pytest
import torch
from conftest import ROOT, load_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.analysis.routing.architecture import describe_stages, plot_architecture
from ride_mm.analysis.routing.compute import measure_compute
from ride_mm.utils.errors import UserError

CONFIG = ROOT / 'configs/ride_r32_cifar100_lt.py'


def texts(path):
    """The text of every label of an SVG file."""
    root = ElementTree.fromstring(path.read_bytes())
    return [''.join(e.itertext()).strip() for e in root.iter('{http://www.w3.org/2000/svg}text')]


def test_parts_and_figures(tmp_path, tiny_model):
    tiny_model.num_experts = 2
    model = MODELS.build(tiny_model)
    path = plot_architecture(model, (3, 16, 16), tmp_path / 'network.svg')
    labels = texts(path)
    compute = measure_compute(model, (3, 16, 16))
    for part in compute.parts[:-1]:
        assert f'{part.params:,} parameters' in labels
        assert f'{part.macs / 1e6:.3f} M multiply-adds' in labels
    assert f'2 experts on a shared trunk, {compute.params:,} parameters' in labels
    assert labels.count('layer2: 3 blocks, 24 x 8 x 8') == 2
    assert 'layer1: 3 blocks, 16 x 16 x 16' in labels
    assert [label for label in labels if label.startswith('router')] == [
        'router 1: 48 features, 5 largest mean logits'
    ]
    assert model.training


def test_a_network_without_routers(tmp_path, tiny_model):
    tiny_model.head.router = None
    labels = texts(plot_architecture(MODELS.build(tiny_model), (3, 16, 16), tmp_path / 'a.svg'))
    assert {'expert 1', 'expert 2', 'expert 3'} < set(labels)
    assert not any(label.startswith('router') for label in labels)


@pytest.mark.parametrize(
    'base, trunk, tail',
    [
        (
            'ride_swin_t',
            ['patch_embed, 3136 x 96', 'stages.0, 784 x 192', 'stages.1, 196 x 288'],
            ['stages.2 to 3, 49 x 576'],
        ),
        (
            'ride_convnext_t_pretrained',
            [
                *('downsample_layers.0, 96 x 56 x 56', 'downsample_layers.1, 192 x 28 x 28'),
                'downsample_layers.2, 384 x 14 x 14',
                *('stages.0, 96 x 56 x 56', 'stages.1, 192 x 28 x 28', 'stages.2, 384 x 14 x 14'),
            ],
            ['downsample_layers.3, 768 x 7 x 7', 'stages.3, 768 x 7 x 7'],
        ),
    ],
)
def test_stages_in_lists(base, trunk, tail):
    cfg = Config.fromfile(ROOT / f'configs/_base_/models/{base}.py').model
    backbone, expert = MODELS.build(cfg.backbone), MODELS.build(cfg.neck.expert)
    image = torch.zeros(1, 3, 224, 224)
    assert describe_stages(backbone, backbone, image) == trunk
    assert describe_stages(expert, expert, backbone(image)[-1]) == tail


def test_a_network_without_experts(tmp_path):
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=512),
    )
    with pytest.raises(UserError, match='"ImageClassifier" has no experts to draw'):
        plot_architecture(MODELS.build(cfg), (3, 32, 32), tmp_path / 'a.svg')


def test_the_drawing_of_the_docs(tmp_path, capsys):
    path = tmp_path / 'architecture.svg'
    load_tool('tools/analysis/get_flops.py').main([str(CONFIG), '--diagram', str(path)])
    assert capsys.readouterr().out.endswith(f'{path}\n')
    assert texts(path) == texts(ROOT / 'docs/architecture.svg')


def test_another_format(tmp_path):
    tool = load_tool('tools/analysis/get_flops.py')
    with pytest.raises(UserError, match='must end in one of .png, .svg, .pdf'):
        tool.main([str(CONFIG), '--diagram', str(tmp_path / 'a.gif')])
