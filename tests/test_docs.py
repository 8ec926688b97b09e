"""Pages of docs: whether the site has all, and the figures of two of them.

And the examples of docstrings.
"""

import doctest
import importlib
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmpretrain.registry import MODELS
from prediction_files import write_predictions
from torch import nn

from ride_mm.analysis.routing.compute import measure_compute
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.datasets.imbalance import long_tail_profile
from ride_mm.models.losses.class_weights import effective_number_weights
from ride_mm.models.losses.diversity_loss import (
    class_temperature,
    mean_divergence,
    pairwise_divergence,
)
from ride_mm.models.losses.ldam_loss import ldam_margins

PAGE = (ROOT / 'docs/differences.md').read_text()
# Not a part of the repository.
COUNTS = ROOT.parent / 'shared/data/annotations/ImageNet_LT_train_counts.json'


@pytest.mark.parametrize('num_experts', [2, 3, 6])
def test_size_of_the_pairwise_form(num_experts):
    """For small differences, to their second order."""
    common = torch.randn(4, 7, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    logits = common + 1e-4 * torch.randn(num_experts, 4, 7, dtype=torch.float64)
    ratio = pairwise_divergence(logits, one) / mean_divergence(logits, one)
    assert ratio.item() == pytest.approx(2 * num_experts / (num_experts - 1), rel=1e-3)
    assert '2E / (E - 1) times the official form' in PAGE


def config(name):
    return Config.fromfile(ROOT / f'configs/{name}.py')


def test_schedules_and_batches():
    cifar = config('ride_r32_cifar100_lt')
    resnet10 = config('ride_r10_imagenet_lt')
    distilled = config('ride_r10_imagenet_lt_distill')
    swin = config('ride_swin_t_imagenet_lt')
    assert cifar.param_scheduler[1].milestones == [160, 180]
    assert cifar.model.head.diversity.weight == 0.45
    for cfg in (resnet10, distilled):
        assert cfg.train_dataloader.batch_size == 32
        assert cfg.auto_scale_lr.base_batch_size == 256
    assert distilled.model.teacher.multiply_losses
    assert swin.val_dataloader.dataset.split == 'val'
    assert swin.test_dataloader.dataset.split == 'test'
    for cfg in (cifar, resnet10, distilled, swin):
        assert not cfg.default_hooks.checkpoint.get('save_best')
    for text in (
        '160 and 180 |',
        '8 x 32: 256 as well',
        '| 8 x 32 |',
        'official weight, 0.45',
        '(`multiply_losses`)',
    ):
        assert text in PAGE


@pytest.mark.parametrize(
    'name, zero', [('ride_r32_cifar100_lt', True), ('ride_r10_imagenet_lt', False)]
)
def test_a_new_router(name, zero):
    """Its biases, and which layer is shared."""
    head = MODELS.build(config(name).model).head
    head.init_weights()
    router = head.router
    assert len(router.hidden_fcs) == 2 and isinstance(router.fc, nn.Linear)
    biases = torch.cat([fc.bias for fc in (*router.hidden_fcs, router.fc)])
    assert (biases == 0).all() if zero else (biases != 0).all()
    assert 'CIFAR: biases of a new router' in PAGE
    assert "in PyTorch's `Linear` | 0 |" in PAGE


@pytest.mark.skipif(not COUNTS.exists(), reason='needs the lists of ImageNet-LT')
def test_swin():
    counts = np.array(json.loads(COUNTS.read_text()))
    for thresholds in ('ride', 'ride-swin'):
        sizes = [int(mask.sum()) for mask in ClassGroups(counts, thresholds).masks.values()]
        assert ' / '.join(map(str, sizes)) in PAGE
    # Of the weights over the images; their mean over the classes is 1.
    weights = effective_number_weights(counts).numpy()
    assert weights.mean() == pytest.approx(1)
    share = (weights * counts).sum() / counts.sum()
    assert f'their mean is {share:.3f}.' in PAGE
    assert f'counts {1 / share:.1f} times' in PAGE
    assert f'{counts.sum():,} training images' in PAGE


def test_the_site_has_every_page():
    tables = re.findall(r'```{toctree}\n(.*?)```', (ROOT / 'docs/index.md').read_text(), re.S)
    entries = [line for table in tables for line in table.split('\n') if line[:1] not in (':', '')]
    pages = [path.stem for path in (ROOT / 'docs').glob('*.md')]
    assert sorted([*entries, 'index']) == sorted([*pages, 'api/ride_mm', 'gallery/index'])


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_links_outside_the_site(name):
    links = re.findall(r'\]\((?!https:)([^)#]+)', (ROOT / name).read_text())
    assert links and not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize(
    'path',
    [path for path in (ROOT / 'ride_mm').rglob('*.py') if '>>>' in path.read_text()],
    ids=lambda path: path.stem,
)
def test_examples_of_docstrings(path):
    name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def test_figures_of_ride():
    page = (ROOT / 'docs/ride.md').read_text()
    counts = long_tail_profile(100, 500, 'exp', 0.01)
    margins = 30 * ldam_margins(counts)
    assert f'is {margins.min():.2f} for the largest class and {margins.max():.0f} for' in page
    weights = effective_number_weights(counts)
    assert f'counts {weights.max() / weights.min():.0f} times as much' in page
    for form in ('official', 'paper'):
        assert f'({class_temperature(counts, form).min():.2f} to 1) |' in page
    ensemble, single = (
        measure_compute(MODELS.build(config(name).model), (3, 32, 32)).ensemble
        for name in ('ride_r32_cifar100_lt', 'baselines/ce_r32_cifar100_lt')
    )
    assert f'need {ensemble / single:.2f}\ntimes' in page


def test_experts_used_in_ride():
    page = (ROOT / 'docs/ride.md').read_text()
    files = sorted((ROOT / 'results').glob('ride_r32_cifar100_lt_amp_seed*.json'))
    stages = [json.loads(path.read_text())['figures'] for path in files]
    for group in ('many', 'medium', 'few'):
        used = np.array(
            [[run['final'][f'experts/{group}_used_{n}'] for n in (1, 2, 3)] for run in stages]
        )
        experts = used @ [0.01, 0.02, 0.03]
        cells = ' | '.join(
            f'{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}'
            for values, digits in ((100 - used[:, 0], 1), (used[:, 2], 1), (experts, 2))
        )
        assert re.search(rf'^\| {group} \(.*\) \| {re.escape(cells)} \|$', page, re.M)


def test_code_of_ride(tmp_path, monkeypatch):
    # Expert 1 is sure of the first image, unsure of the next two, and fairly sure of
    # the last; expert 2 corrects the second one.
    experts = (
        [[9, 0, 0], [9, 0, 0]],
        [[0, 0.1, 0], [1, 0, 0]],
        [[0, 0.1, 0], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 9]],
    )
    samples = [
        dict(
            gt_label=torch.tensor([label]),
            pred_score=torch.ones(3) / 3,
            num_experts_used=torch.tensor(2),
            relative_compute=torch.tensor(1.0),
            expert_logits=torch.tensor(logits, dtype=torch.float32),
            router_logits=torch.tensor([router]),
            routed_compute=torch.tensor([0.5, 1.0]),
        )
        for label, logits, router in zip((0, 0, 0, 2), experts, (-1.0, 1.0, 1.0, -1.0))
    ]
    write_predictions(tmp_path / 'all.npz', samples, class_counts=[200, 50, 5])
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/ride.md').read_text(), re.S)
    found: dict = {}
    exec(code, found)
    assert found['target'].tolist() == [False, True, False, False]
    assert found['sent'].tolist() == [False, True, True, False]
    assert found['unsure'].tolist() == [False, True, True, False]
    assert found['part'].tolist() == [False, False, False, True]


def test_new_classes():
    """The table of docs/recipes.md, against results/."""
    found = json.loads((ROOT / 'results/new_labels/new_classes.json').read_text())
    page = (ROOT / 'docs/recipes.md').read_text()
    assert f'| none | | {found["before"]["old"]:.1f} | | |' in page
    for images in (5, 20):
        for scale in (0.85, 1):
            runs = [
                run
                for run in found['runs']
                if (run['images_per_class'], run['scale']) == (images, scale)
            ]
            cells = [
                f'{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}'
                for values in ([run[key] for run in runs] for key in ('old', 'new', 'all'))
            ]
            assert len(runs) == 3
            assert f'| {images} | {scale} | {" | ".join(cells)} |' in page
