"""Compute by part, and expected compute under routing."""

import json
import re

import mmengine
import numpy as np
import pytest
import torch
from conftest import ROOT, load_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from prediction_files import write_predictions
from torch import nn

from ride_mm.analysis.predictions import Predictions
from ride_mm.analysis.routing.compute import (
    Compute,
    Part,
    Usage,
    expected_macs,
    image_size,
    measure_compute,
    plot_compute,
    predicted_shares,
)
from ride_mm.models import CosineClassifier
from ride_mm.models.macs import macs_by_part
from ride_mm.utils.errors import UserError

# Percent of the images that use 1, 2 and 3 experts: the official example.
USAGE = (40.99, 9.47, 49.54)
PLAIN = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=512),
)


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def by_hooks(module, call, per_norm_output=0):
    """Multiply-accumulates from the shapes of the layers' inputs and outputs."""
    total = []

    def conv(layer, args, out):
        total.append(out.numel() * layer.weight[0].numel())

    def linear(layer, args, out):
        total.append(args[0].numel() * layer.weight.shape[0])

    def norm(layer, args, out):
        total.append(out.numel() * per_norm_output)

    kinds = {nn.Conv2d: conv, nn.Linear: linear, CosineClassifier: linear, nn.BatchNorm2d: norm}
    handles = [
        layer.register_forward_hook(kinds[type(layer)])
        for layer in module.modules()
        if type(layer) in kinds
    ]
    with torch.no_grad():
        out = call()
    for handle in handles:
        handle.remove()
    return sum(total), out


@pytest.fixture(scope='module')
def r32():
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/ride_r32.py')
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize('batch_norm', [False, True])
def test_parts_are_the_sum_of_their_layers(r32, batch_norm):
    compute = measure_compute(r32, (3, 24, 32), batch_norm)
    per_output = 2 * batch_norm
    image = torch.randn(1, 3, 24, 32)
    expected, (trunk,) = by_hooks(r32, lambda: r32.backbone(image), per_output)
    expected, spent = [('trunk', expected, parameters(r32.backbone))], expected
    by_experts, routers = [], 0
    for k in range(3):
        tail, classifier = r32.neck.experts[k], r32.head.classifiers[k]
        macs, feature = by_hooks(tail, lambda: tail(trunk), per_output)
        last, logits = by_hooks(classifier, lambda: classifier(feature))
        expected += [
            (f'expert {k + 1}: tail', macs, parameters(tail)),
            (f'expert {k + 1}: classifier', last, 48 * 100),
        ]
        spent += macs + last
        if k < 2:
            macs, _ = by_hooks(r32.head.router, lambda: r32.head.router(k, feature, logits))
            routers += macs
        by_experts.append(spent + routers)
    expected.append(('router', routers, 1615))
    assert [(p.name, p.macs, p.params) for p in compute.parts] == expected
    assert compute.by_experts == by_experts
    assert compute.ensemble == spent
    assert compute.macs == spent + routers
    assert compute.params == parameters(r32)


def test_the_figure_of_the_paper(r32):
    """77.84 M, 1.12 times its single network of 69.47 M."""
    compute = measure_compute(r32, (3, 32, 32), batch_norm=True)
    expected = expected_macs(compute.by_experts, USAGE)
    # By hand: experts on 100, 59.01 and 49.54 % of the images, routers of
    # 48 * 16 + 30 + 16 multiply-accumulates on 100 and 59.01 %.
    trunk = 9 * (3 * 16 + 10 * 16 * 16) * 32**2 + 2 * 11 * 16 * 32**2
    tail = (
        9 * 24 * (16 + 9 * 24) * 16**2
        + 9 * 48 * (24 + 9 * 48) * 8**2
        + 2 * 10 * (24 * 16**2 + 48 * 8**2)
    )
    experts = trunk + 2.0855 * (tail + 48 * 100)
    assert expected == pytest.approx(experts + 1.5901 * 814, rel=1e-12)
    assert f'{expected / 1e6:.2f}' == f'{experts / 1e6:.2f}' == '77.84'

    cfg = Config.fromfile(ROOT / 'configs/baselines/ce_r32_cifar100_lt.py')
    single = measure_compute(MODELS.build(cfg.model), (3, 32, 32), batch_norm=True)
    assert [part.name for part in single.parts] == [
        'trunk',
        'expert 1: tail',
        'expert 1: classifier',
    ]
    assert single.by_experts == [single.macs] == [single.ensemble]
    assert f'{single.macs / 1e6:.2f}' == '69.47'
    assert f'{expected / single.macs:.2f}' == '1.12'


def test_every_parameter_is_counted_once(tiny_model):
    """Including the shared part after the tails, and learned scales."""
    tiny_model.neck.shared = dict(fc=dict(type='LinearClassifier', in_features=48, out_features=48))
    tiny_model.head.learn_scales = True
    model = MODELS.build(tiny_model)
    compute = measure_compute(model, (3, 16, 16))
    assert compute.params == parameters(model)
    params = {part.name: part.params for part in compute.parts}
    shared = 48 * 48 + 48
    assert params['expert 1: tail'] - params['expert 2: tail'] == shared
    assert params['expert 3: classifier'] == 48 * 10 + 10
    macs = {part.name: part.macs for part in compute.parts}
    assert macs['expert 1: tail'] == macs['expert 2: tail']


def test_another_classifier(r32):
    model = MODELS.build(PLAIN).train()
    compute = measure_compute(model, (3, 64, 64))
    assert model.training and model.backbone.training
    assert [p.name for p in compute.parts] == ['backbone', 'neck', 'head']
    assert [p.params for p in compute.parts] == [parameters(model.backbone), 0, 7 * 512 + 7]
    image = torch.zeros(1, 3, 64, 64)
    assert compute.macs == compute.ensemble == by_hooks(model, lambda: model.eval()(image))[0]
    assert compute.parts[2].macs == 7 * 512
    assert compute.by_experts == []
    with pytest.raises(UserError, match='no experts'):
        expected_macs(compute.by_experts, USAGE)
    with pytest.raises(UserError, match='type="Linear".*RIDEClassifier'):
        measure_compute(nn.Linear(1, 1), (3, 64, 64))


@pytest.mark.parametrize(
    'shares, message',
    [
        ((50.0, 50.0), '2 shares .* 1 to 3'),
        ((50.0, 40.0, 5.0), 'sum to 95'),
        ((-10.0, 60.0, 50.0), '0 or more'),
        ((float('nan'), 50.0, 50.0), '0 or more'),
    ],
)
def test_shares_must_be_percentages(shares, message):
    with pytest.raises(UserError, match=message):
        expected_macs([1, 2, 3], shares)


def test_shares_may_be_rounded():
    assert expected_macs([3, 6, 9], (33.3, 33.3, 33.3)) == pytest.approx(6)


@pytest.fixture
def routed(tiny_model):
    """A model whose routers let half of their images continue, and images."""
    tiny_model.test_cfg.mode = 'route'
    model = MODELS.build(tiny_model).eval()
    model.head.router.register_forward_hook(
        lambda router, args, out: torch.linspace(-1, 1, len(out))
    )
    return model, torch.randn(32, 3, 16, 16)


def predict(model, images):
    with torch.no_grad():
        samples = model.predict(images)
    model.add_compute(samples, tuple(images.shape[1:]))
    return Predictions(
        np.zeros(len(images), int),
        np.ones((len(images), 1)),
        np.array([s.num_experts_used for s in samples]),
        np.array([s.relative_compute for s in samples]),
    )


def test_shares_of_predictions(routed):
    model, images = routed
    predictions = predict(model, images)
    assert set(predictions.num_experts_used) == {1, 2, 3}
    macs = macs_by_part(model, (3, 16, 16))
    shares, by_router = predicted_shares(predictions, macs)
    assert by_router
    assert shares == [100 * np.mean(predictions.num_experts_used == num) for num in (1, 2, 3)]
    compute = measure_compute(model, (3, 16, 16))
    assert expected_macs(compute.by_experts, shares) / compute.ensemble == pytest.approx(
        predictions.relative_compute.mean(), rel=1e-12
    )
    # All experts, with and without routers on the way, cost differently.
    model.test_cfg.update(threshold=0)
    assert predicted_shares(predict(model, images), macs) == ([0, 0, 100], True)
    model.test_cfg.update(mode='ensemble')
    assert predicted_shares(predict(model, images), macs) == ([0, 0, 100], False)


def test_predictions_of_another_model(routed):
    model, images = routed
    predictions = predict(model, images)
    with pytest.raises(UserError, match='another config or image siz'):
        predicted_shares(predictions, macs_by_part(model, (3, 32, 32)))
    # If all experts ran, the two figures differ only by the routers.
    model.test_cfg.update(threshold=0)
    with pytest.raises(UserError, match='config') as info:
        predicted_shares(predict(model, images), macs_by_part(model, (3, 32, 32)))
    first, second = re.findall(r'1\.0\d+', str(info.value))
    assert first > second
    macs = macs_by_part(model, (3, 16, 16))
    macs['experts'].pop()
    model.test_cfg.update(mode='ensemble')
    with pytest.raises(UserError, match='used 3 experts, the model has 2'):
        predicted_shares(predict(model, images), macs)
    labels = predictions.gt_label
    with pytest.raises(UserError, match='no num_experts_used'):
        predicted_shares(Predictions(labels, np.ones((len(labels), 1))), macs)


def test_image_size_of_a_wrapped_data_set(root):
    cfg = Config.fromfile(root / 'configs/ride_r32_cifar100_lt.py')
    assert image_size(cfg) == (32, 32)
    cfg.train_dataloader.dataset = dict(type='HoldOut', dataset=cfg.train_dataloader.dataset)
    assert image_size(cfg) == (32, 32)
    cfg.pop('train_dataloader')
    with pytest.raises(UserError, match='image size is unknown'):
        image_size(cfg)


@pytest.mark.parametrize('num_experts', [0, 1, 3])
def test_plot(tmp_path, num_experts):
    parts = [Part('trunk', 24_035_328, 0)]
    for k in range(num_experts):
        parts += [Part(f'expert {k + 1}: tail', 25_436_160, 0), Part('router', 814, 0)]
        parts += [Part(f'expert {k + 1}: classifier', 4_800, 0)]
    usage = Usage(list(USAGE), 0.0) if num_experts == 3 else None
    file = tmp_path / 'new' / 'compute.svg'
    assert plot_compute(Compute(parts, [0] * num_experts, 0, usage), file) == file
    text = file.read_text()
    if usage is None:
        assert text.count('>trunk<') == 1
        assert f'> {24.035328 + 25.44096 * num_experts:.1f} M<' in text
        return
    # 24.0 + 25.4 * (1 + .5901 + .4954) without the router
    for number, note in [(49.5, ', 41.0% of images'), (77.1, '')]:
        assert f'> {number} M{note}<' in text
    assert text.count('>trunk<') == 4
    assert text.count('>expert 3<') == 2


# ---------------------------------------------------------------------- tool


@pytest.fixture(scope='module')
def tool():
    module = load_tool('tools/analysis/get_flops.py')
    return lambda *args: module.main(list(map(str, args)))


CIFAR = ROOT / 'configs/ride_r32_cifar100_lt.py'
# what `tiny_model` changes
TINY = (
    '--cfg-options model.backbone.depth=20 model.neck.expert.depth=20 '
    'model.head.num_classes=10 model.head.router.topk=5'
).split()


def test_tool_with_shares(tool, tmp_path, capsys):
    file, plot = tmp_path / 'out' / 'flops.json', tmp_path / 'flops.png'
    tool(CIFAR, '--usage', '40.99,9.47,49.54', '--batch-norm', '--json', file, '--plot', plot)
    printed = capsys.readouterr().out
    for text in ('3 x 32 x 32, BatchNorm counted', 'expert 3: classifier', '785,471', '77.839'):
        assert text in printed
    figures = json.loads(file.read_text())
    assert figures['params'] == 783856 + 1615
    assert figures['macs'] == sum(p['macs'] for p in figures['parts'])
    assert figures['usage'] == dict(
        shares=list(USAGE), macs=expected_macs(figures['by_experts'], USAGE)
    )
    assert plot.read_bytes().startswith(b'\x89PNG')


def test_tool_with_predictions(tool, tmp_path, capsys, routed):
    model, images = routed
    file = str(tmp_path / 'pred.npz')
    with torch.no_grad():
        samples = model.predict(images, [DataSample().set_gt_label(0) for _ in images])
    model.add_compute(samples, tuple(images.shape[1:]))
    write_predictions(file, [sample.to_dict() for sample in samples])
    used = [sample.num_experts_used for sample in samples]
    tool(CIFAR, '--shape', '16', '--predictions', file, *TINY)
    printed = capsys.readouterr().out
    assert '3 x 16 x 16, BatchNorm not counted' in printed
    for num in (1, 2, 3):
        assert f' {100 * used.count(num) / 32:.2f} ' in printed
    with pytest.raises(UserError, match='config or image size'):
        tool(CIFAR, '--predictions', file, *TINY)


@pytest.mark.parametrize(
    'test_cfg, shares',
    [
        ('mode=route', [25, 25, 50]),
        ('threshold=[0.9,0.5]', [75, 0, 25]),
        ('mode=ensemble', [0, 0, 100]),
    ],
)
def test_all_experts_count_as_the_config_routes(tool, tmp_path, tiny_model, test_cfg, shares):
    tiny_model.test_cfg.update(mode='ensemble', expert_logits=True)
    model = MODELS.build(tiny_model).eval()
    model.head.router.num_updates.fill_(1)
    with torch.no_grad():
        samples = model.predict(
            torch.randn(4, 3, 16, 16), [DataSample().set_gt_label(0) for _ in range(4)]
        )
    model.add_compute(samples, (3, 16, 16))
    said = [[-1.0, 5.0], [1.0, -1.0], [1.0, 1.0], [3.0, 1.0]]
    for sample, logits in zip(samples, said):
        sample.router_logits = torch.tensor(logits)
    file, figures = str(tmp_path / 'pred.npz'), tmp_path / 'figures.json'
    write_predictions(file, [sample.to_dict() for sample in samples])
    options = ['--shape', '16', '--predictions', file, '--json', figures]
    tool(CIFAR, *options, *TINY, f'model.test_cfg.{test_cfg}')
    assert mmengine.load(figures)['usage']['shares'] == shares


def test_tool_on_another_classifier(tool, tmp_path, capsys):
    config = tmp_path / 'plain.py'
    config.write_text(f'model = {PLAIN}')
    tool(config, '--shape', '32', '64')
    printed = capsys.readouterr().out
    assert '3 x 32 x 64' in printed and 'backbone' in printed
    with pytest.raises(UserError, match='no experts'):
        tool(config, '--shape', '32', '--usage', '50,50')
    with pytest.raises(UserError, match='the model has no experts'):
        tool(config, '--shape', '32', '--predictions', 'absent.npz')
    with pytest.raises(UserError, match='no transform'):
        tool(config)
    config.write_text(f'model = {dict(PLAIN, head=None, neck=None)}')
    tool(config, '--shape', '32')
    config.write_text('model = dict(type="ImageClassifier", backbone=dict(type="LeNet5"))')
    with pytest.raises(UserError, match='does not accept images of 3 x 32 x 32'):
        tool(config, '--shape', '32')


@pytest.mark.parametrize(
    'args', ['--shape 0', '--shape 1 2 3', '--usage all', '--usage 100 --predictions x']
)
def test_tool_rejects(tool, args, capsys):
    with pytest.raises(SystemExit):
        tool(CIFAR, *args.split())
    assert args.split()[0] in capsys.readouterr().err


def test_help_has_an_example(tool, capsys):
    with pytest.raises(SystemExit):
        tool('--help')
    assert '--predictions work_dirs/predictions.npz' in capsys.readouterr().out
