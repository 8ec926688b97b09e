import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.models.macs import macs_by_part
from ride_mm.models.necks import SwinV2Expert
from ride_mm.utils.errors import UserError
from ride_mm.utils.option_types import check_options


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# Conv and matrix-product MACs and parameters of the official networks without
# router, by number of experts.
R32 = {2: (74.9e6, 530512), 3: (100.4e6, 783856), 4: (125.8e6, 1037200), 6: (176.7e6, 1543888)}
R50 = {2: (4.452e9, 29.60e6), 3: (5.770e9, 43677248), 4: (7.089e9, 57.75e6), 6: (9.727e9, 85.91e6)}
RX50 = {3: (6.050e9, 42889024)}
R10 = {3: (1.173e9, 9.40e6)}


def check_size(model, shape, macs, params):
    measured = macs_by_part(model, shape)
    total = sum(measured['trunk']) + sum(measured['experts'])
    assert total == pytest.approx(macs, rel=1e-3)
    assert parameters(model) - parameters(model.head.router) == pytest.approx(params, rel=5e-4)


@pytest.mark.parametrize('num_experts', R32)
def test_r32_size(root, num_experts):
    cfg = Config.fromfile(root / 'configs/_base_/models/ride_r32.py').model
    cfg.num_experts = num_experts
    model = MODELS.build(cfg)
    check_size(model, (3, 32, 32), *R32[num_experts])
    if num_experts == 3:
        assert parameters(model.head.router) == 1615
        assert parameters(model) == 783856 + 1615


@pytest.mark.parametrize('num_experts', [2, 3])
def test_r50_size(root, num_experts):
    cfg = Config.fromfile(root / 'configs/_base_/models/ride_r50.py').model
    cfg.num_experts = num_experts
    model = MODELS.build(cfg)
    check_size(model, (3, 224, 224), *R50[num_experts])
    if num_experts == 3:
        assert parameters(model.head.router) == 49251


@pytest.mark.parametrize('name, macs, params', [('r10', *R10[3]), ('rx50', *RX50[3])])
def test_other_resnet_sizes(root, name, macs, params):
    cfg = Config.fromfile(root / f'configs/_base_/models/ride_{name}.py').model
    check_size(MODELS.build(cfg), (3, 224, 224), macs, params)


@pytest.mark.parametrize('name, params', [('swin_t', 47122218), ('swin_s', 83161818)])
def test_swin_size(root, name, params):
    """Parameters of the official RIDE-Swin networks."""
    cfg = Config.fromfile(root / f'configs/_base_/models/ride_{name}.py').model
    model = MODELS.build(cfg)
    assert parameters(model) - parameters(model.head.router) == params


def test_single_r32_size(root):
    cfg = Config.fromfile(root / 'configs/baselines/ldam_drw_r32_cifar100_lt.py').model
    model = MODELS.build(cfg)
    macs = macs_by_part(model, (3, 32, 32))
    assert macs['trunk'][0] + macs['experts'][0] == pytest.approx(68.9e6, rel=1e-3)
    assert parameters(model) == pytest.approx(0.47e6, rel=1e-2)


@pytest.mark.parametrize('depth, blocks', [(20, 3), (32, 5), (44, 7), (56, 9), (110, 18)])
def test_cifar_depths(depth, blocks):
    net = MODELS.build(dict(type='CIFARResNet', depth=depth, out_indices=(0, 1, 2)))
    assert [len(getattr(net, f'layer{i}')) for i in (1, 2, 3)] == [blocks] * 3
    shapes = [tuple(out.shape) for out in net(torch.zeros(1, 3, 32, 32))]
    assert shapes == [(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)]


def test_zero_padded_shortcut():
    block = MODELS.build(dict(type='CIFARResNetExpert', depth=20)).layer2[0].eval()
    x = torch.randn(1, 16, 4, 4)
    padded = block._shortcut(x)
    assert padded.shape == (1, 24, 2, 2)
    assert torch.equal(padded[:, 4:20], x[:, :, ::2, ::2])
    assert not padded[:, :4].any() and not padded[:, 20:].any()


@pytest.mark.parametrize('name', ['r32', 'r50'])
def test_experts_start_different(root, name):
    cfg = Config.fromfile(root / f'configs/_base_/models/ride_{name}.py').model
    model = MODELS.build(cfg)
    model.init_weights()
    for one, other in ((0, 1), (1, 2)):
        for modules in (model.neck.experts, model.head.classifiers):
            for a, b in zip(modules[one].parameters(), modules[other].parameters()):
                # BatchNorm starts alike by definition.
                assert a.dim() == 1 or not torch.equal(a, b)


def test_no_zero_init_of_the_last_norm(root):
    cfg = Config.fromfile(root / 'configs/_base_/models/ride_r50.py').model
    model = MODELS.build(cfg)
    model.init_weights()
    assert model.backbone.layer1[0].bn3.weight.eq(1).all()
    assert model.neck.experts[0].layer3[0].bn3.weight.eq(1).all()
    # Kaiming with fan-out, as published for ImageNet.
    weight = model.neck.experts[0].layer4[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 384)) ** 0.5, rel=0.02)


def test_users_mistakes():
    with pytest.raises(UserError, match='depth=18'):
        MODELS.build(dict(type='CIFARResNet', depth=18))
    with pytest.raises(UserError, match='cannot pad'):
        MODELS.build(dict(type='CIFARResNetExpert', depth=20, out_channels=(23, 48)))
    with pytest.raises(UserError, match='not a ResNet'):
        MODELS.build(dict(type='ResNetExpert', family='SwinTransformer', depth=50, in_channels=512))
    with pytest.raises(UserError, match='one entry per stage'):
        MODELS.build(dict(type='ResNetExpert', depth=50, in_channels=512, out_channels=(768,)))
    with pytest.raises(UserError, match='one entry per stage'):
        MODELS.build(dict(type='CIFARResNetExpert', depth=20, out_channels=(48,)))
    with pytest.raises(UserError, match="no option 'window_sizes'.*'window_size'"):
        check_options('expert', SwinV2Expert, dict(window_sizes=8))
    with pytest.raises(UserError, match='num_experts=0'):
        MODELS.build(dict(type='MultiExpertNeck', num_experts=0, expert={}))
