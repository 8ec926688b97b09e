"""The examples of docs/extend.md, run."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, METRICS, MODELS

from ride_mm.datasets.class_counts import get_class_counts, get_labels

BLOCKS = (ROOT / 'docs/extend.md').read_text().split('```python\n')[1:]
CODE = [block.split('```')[0] for block in BLOCKS]


@pytest.fixture(scope='module', autouse=True)
def examples():
    init_default_scope('mmpretrain')
    for code in CODE:
        assert len(code.strip().splitlines()) < 40
        exec(code, {})


def test_loss(tiny_model):
    loss = MODELS.build(dict(type='VSLoss', gamma=0.5))
    loss.set_class_counts([100, 25])
    scores = torch.tensor([[2.0, 4.0]])
    # The second logit is halved: both are 2.
    assert loss(scores, torch.tensor([1])) == pytest.approx(np.log(2))
    head = dict(tiny_model['head'], loss=dict(type='VSLoss'))
    model = MODELS.build(dict(tiny_model, head=head))
    model.set_class_counts(range(100, 0, -10))
    assert MODELS.get('VSLoss') in {type(m) for m in model.modules()}


def test_data_set():
    for split, images in (('train', [90, 10]), ('test', [5, 5])):
        dataset = DATASETS.build(dict(type='TwoMoons', split=split, pipeline=[]))
        assert get_class_counts(dataset) == [90, 10]
        assert np.bincount(get_labels(dataset)).tolist() == images


def test_metric():
    metric = METRICS.build(dict(type='Confidence', class_counts=[101, 5]))
    metric.process(
        None,
        [
            dict(gt_label=torch.tensor([label]), pred_score=torch.tensor(scores))
            for label, scores in ((0, [0.9, 0.1]), (1, [0.4, 0.6]))
        ],
    )
    assert metric.evaluate(2) == pytest.approx(
        {'confidence/mean': 75.0, 'confidence/many_mean': 90.0, 'confidence/few_mean': 60.0}
    )


def test_expert(tiny_model):
    expert = dict(type='ConvExpert', in_channels=16, out_channels=8)
    model = MODELS.build(
        dict(
            tiny_model,
            neck=dict(type='MultiExpertNeck', num_experts=3, expert=expert),
            head=dict(tiny_model['head'], in_channels=8),
        )
    )
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 10)
