"""The figures of docs/differences.md, against code and configs."""
import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.models.losses.class_balanced_loss import effective_number_weights
from ride_mm.models.losses.diversity_loss import (mean_divergence,
                                                  pairwise_divergence)

PAGE = (ROOT / 'docs/differences.md').read_text()
# Not a part of the repository.
COUNTS = ROOT.parent / 'shared/data/annotations/ImageNet_LT_train_counts.json'


@pytest.mark.parametrize('num_experts', [2, 3, 6])
def test_size_of_the_pairwise_form(num_experts):
    """For small differences, to their second order."""
    common = torch.randn(4, 7, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    logits = common + 1e-4 * torch.randn(
        num_experts, 4, 7, dtype=torch.float64)
    ratio = pairwise_divergence(logits, one) / mean_divergence(logits, one)
    assert ratio.item() == pytest.approx(
        2 * num_experts / (num_experts - 1), rel=1e-3)
    assert '2E / (E - 1) times the official form' in PAGE


def config(name):
    return Config.fromfile(ROOT / f'configs/{name}.py')


def test_schedules_batches_and_biases(tiny_model):
    cifar, resnet10 = (config(name) for name in ('ride_r32_cifar100_lt',
                                                 'ride_r10_imagenet_lt'))
    assert cifar.param_scheduler[1].milestones == [160, 180]
    assert resnet10.train_dataloader.batch_size == 32
    assert resnet10.auto_scale_lr.base_batch_size == 256
    model = MODELS.build(tiny_model)
    model.init_weights()
    router = model.head.router
    biases = [p for name, p in router.named_parameters() if 'bias' in name]
    assert biases and not any(bias.any() for bias in biases)
    for text in ('160 and 180 |', '8 x 32: 256 as well',
                 '`Linear` has them | 0 |'):
        assert text in PAGE


@pytest.mark.skipif(
    not COUNTS.exists(), reason='needs the lists of ImageNet-LT')
def test_swin():
    counts = np.array(json.loads(COUNTS.read_text()))
    for thresholds in ('ride', 'ride-swin'):
        sizes = [int(mask.sum())
                 for mask in ClassGroups(counts, thresholds).masks.values()]
        assert ' / '.join(map(str, sizes)) in PAGE
    # Of the weights over the images; their mean over the classes is 1.
    weights = effective_number_weights(counts).numpy()
    assert weights.mean() == pytest.approx(1)
    share = (weights * counts).sum() / counts.sum()
    assert f'their mean is {share:.3f}.' in PAGE
    assert f'counts {1 / share:.1f} times' in PAGE
    assert f'{counts.sum():,} training images' in PAGE
