import math

import numpy as np
import pytest
import torch
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from ride_mm.evaluation import ExpertMetric, expert_figures
from ride_mm.utils.errors import UserError

COUNTS = [101, 100, 20, 19]


def make_samples(expert_logits, gt_label):
    samples = []
    for index, label in enumerate(gt_label):
        sample = DataSample().set_gt_label(int(label))
        sample.expert_logits = expert_logits[:, index]
        samples.append(sample.to_dict())
    return samples


def softmax(logits):
    exps = [math.exp(z - max(logits)) for z in logits]
    return [e / sum(exps) for e in exps]


def plain_figures(logits, gt_label):
    """The definitions, image by image, on nested lists (E, N, K)."""
    num_experts, num = len(logits), len(gt_label)
    figures = {}

    def mean(function):
        return sum(function(n) for n in range(num)) / num

    def best(values):
        return values.index(max(values))

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q))

    for k in range(num_experts):
        figures[f'alone_{k + 1}'] = mean(lambda n: 100 * (best(logits[k][n]) == gt_label[n]))
        figures[f'first_{k + 1}'] = mean(
            lambda n: (
                100
                * (
                    best(
                        [
                            sum(column) / (k + 1)
                            for column in zip(*(logits[e][n] for e in range(k + 1)))
                        ]
                    )
                    == gt_label[n]
                )
            )
        )
    pairs = [(i, j) for i in range(num_experts) for j in range(num_experts) if i != j]
    divergence = {
        (i, j): mean(lambda n: kl(softmax(logits[i][n]), softmax(logits[j][n]))) for i, j in pairs
    }
    differ = {
        (i, j): mean(lambda n: 100 * (best(logits[i][n]) != best(logits[j][n]))) for i, j in pairs
    }
    figures['kl'] = sum(divergence.values()) / len(pairs)
    figures['disagree'] = sum(differ.values()) / len(pairs)
    for i, j in pairs:
        if i < j:
            name = f'{i + 1}_{j + 1}'
            figures[f'disagree_{name}'] = differ[i, j]
            figures[f'kl_{name}'] = (divergence[i, j] + divergence[j, i]) / 2
    return figures


@pytest.mark.parametrize('num_experts', [2, 3, 4])
def test_against_plain_python(num_experts):
    rng = np.random.default_rng(num_experts)
    logits = rng.normal(size=(num_experts, 60, 4)) * 3
    gt_label = rng.integers(0, 3, 60)  # no few-shot image
    figures = expert_figures(torch.from_numpy(logits), torch.tensor(gt_label), COUNTS)
    expected = plain_figures(logits.tolist(), gt_label.tolist())
    for prefix, classes in dict(many_=[0], medium_=[1, 2]).items():
        inside = np.isin(gt_label, classes)
        plain = plain_figures(logits[:, inside].tolist(), gt_label[inside].tolist())
        expected.update((prefix + k, value) for k, value in plain.items())
    assert figures == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_equal_experts_and_a_single_one():
    logits = torch.randn(1, 5, 4).expand(3, 5, 4)
    figures = expert_figures(logits, torch.arange(5) % 4, COUNTS)
    assert figures['kl'] == figures['disagree'] == 0.0
    assert figures['alone_2'] == figures['first_3']
    alone = expert_figures(logits[:1], torch.arange(5) % 4, COUNTS)
    assert 'kl' not in alone and alone['alone_1'] == alone['first_1']


def test_metric_is_that_of_the_function_and_keeps_no_logits():
    torch.manual_seed(0)
    logits, gt_label = torch.randn(3, 10, 4), torch.arange(10) % 4
    samples = make_samples(logits, gt_label)
    metric = METRICS.build(dict(type='ExpertMetric'))
    metric.dataset_meta = dict(class_counts=COUNTS)
    metric.process(None, samples[:6])
    metric.process(None, samples[6:])
    assert len(metric.results[0]) == 1 + 3 + 3 + (1 + 3) + (1 + 3)
    figures = metric.evaluate(10)
    expected = expert_figures(logits, gt_label, COUNTS)
    assert figures == {f'expert/{k}': v for k, v in expected.items()}
    assert ExpertMetric(class_counts=COUNTS).compute_metrics([]) == {}


def test_wrong_input():
    metric = ExpertMetric(class_counts=COUNTS)
    with pytest.raises(UserError, match='expert_logits=True'):
        metric.process(None, [DataSample().set_gt_label(0).to_dict()])
    with pytest.raises(UserError, match='model of 3 classes'):
        metric.process(None, make_samples(torch.zeros(2, 1, 3), [0]))
    logits = torch.zeros(2, 1, 4)
    logits[1, 0, 2] = math.nan
    with pytest.raises(UserError, match='not all finite'):
        metric.process(None, make_samples(logits, [0]))
