import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from ride_mm.evaluation import ExpertUsageMetric, expert_usage
from ride_mm.utils.errors import UserError

COUNTS = [101, 100, 19]
GT_LABEL = [0, 0, 1, 2]
USED = [1, 1, 3, 2]
COMPUTE = [0.5, 0.5, 1.0, 0.75]
FIGURES = dict(
    used_1=50.0,
    used_2=25.0,
    used_3=25.0,
    mean=1.75,
    compute=0.6875,
    many_used_1=100.0,
    many_used_2=0.0,
    many_used_3=0.0,
    many_mean=1.0,
    many_compute=0.5,
    medium_used_1=0.0,
    medium_used_2=0.0,
    medium_used_3=100.0,
    medium_mean=3.0,
    medium_compute=1.0,
    few_used_1=0.0,
    few_used_2=100.0,
    few_used_3=0.0,
    few_mean=2.0,
    few_compute=0.75,
)


def make_samples(as_tensor, gt_label=GT_LABEL, used=USED, compute=COMPUTE):
    samples = []
    for values in zip(gt_label, used, compute):
        sample = DataSample().set_gt_label(values[0]).to_dict()
        for field, value in zip(('num_experts_used', 'relative_compute'), values[1:]):
            sample[field] = torch.tensor(value) if as_tensor else value
        samples.append(sample)
    return samples


def plain_usage(used, compute, gt_label, counts):
    """The definition, group by group, without NumPy."""
    figures = {}
    sizes = dict(
        overall=lambda n: True,
        many=lambda n: n > 100,
        medium=lambda n: 20 <= n <= 100,
        few=lambda n: n < 20,
    )
    for group, belongs in sizes.items():
        rows = [(u, c) for u, c, label in zip(used, compute, gt_label) if belongs(counts[label])]
        if not rows:
            continue
        prefix = '' if group == 'overall' else f'{group}_'
        for num in range(1, max(used) + 1):
            share = sum(u == num for u, _ in rows) / len(rows)
            figures[f'{prefix}used_{num}'] = 100 * share
        figures[f'{prefix}mean'] = sum(u for u, _ in rows) / len(rows)
        figures[f'{prefix}compute'] = sum(c for _, c in rows) / len(rows)
    return figures


def test_hand_made_case():
    assert expert_usage(USED, COMPUTE, GT_LABEL, COUNTS) == FIGURES


@pytest.mark.parametrize('seed', range(5))
def test_against_plain_python(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 150, 8).tolist()
    gt_label = rng.integers(0, 8, 100)
    used, compute = rng.integers(1, 5, 100), rng.random(100)
    expected = plain_usage(used.tolist(), compute.tolist(), gt_label.tolist(), counts)
    figures = expert_usage(used, compute, gt_label, counts)
    assert figures == pytest.approx(expected, abs=1e-10)


def test_what_was_logged_once_is_given_again():
    """Or the log would go on showing it."""
    metric = ExpertUsageMetric(class_counts=COUNTS)
    before = metric.compute_metrics([(0, 3, 1.0), (2, 3, 1.0)])
    after = metric.compute_metrics([(0, 1, 0.5), (2, 1, 0.5)])
    assert before['used_3'] == after['used_1'] == 100.0
    assert after['used_3'] == after['few_used_3'] == 0.0
    assert before.keys() == after.keys()


def test_group_without_images_is_left_out():
    figures = expert_usage([2], [1.0], [0], COUNTS)
    assert set(figures) == {
        f'{prefix}{name}'
        for prefix in ('', 'many_')
        for name in ('used_1', 'used_2', 'mean', 'compute')
    }
    assert expert_usage([], [], [], COUNTS) == {}
    assert ExpertUsageMetric(class_counts=COUNTS).compute_metrics([]) == {}


def test_wrong_input():
    with pytest.raises(ValueError, match='shape'):
        expert_usage([1, 2], [1.0], [0], COUNTS)
    with pytest.raises(ValueError, match='got 0'):
        expert_usage([0], [1.0], [0], COUNTS)
    with pytest.raises(UserError, match='True label 3'):
        expert_usage([1], [1.0], [3], COUNTS)


@pytest.mark.parametrize('as_tensor', [True, False])
def test_metric(as_tensor):
    metric = METRICS.build(dict(type='ExpertUsageMetric'))
    metric.dataset_meta = dict(class_counts=COUNTS)
    samples = make_samples(as_tensor)
    metric.process(None, samples[:3])
    metric.process(None, samples[3:])
    assert metric.results[2] == (1, 3, 1.0)
    figures = metric.evaluate(4)
    assert figures == {f'experts/{k}': v for k, v in FIGURES.items()}
    assert all(type(value) is float for value in figures.values())


def test_two_ranks_give_the_figures_of_one():
    rng = np.random.default_rng(0)
    samples = make_samples(
        True,
        rng.integers(0, 3, 11).tolist(),
        rng.integers(1, 4, 11).tolist(),
        rng.random(11).tolist(),
    )
    whole = ExpertUsageMetric(class_counts=COUNTS)
    whole.process(None, samples)
    expected = whole.compute_metrics(whole.results)

    ranks = [ExpertUsageMetric(class_counts=COUNTS) for _ in range(2)]
    ranks[0].process(None, samples[0::2])
    ranks[1].process(None, samples[1::2] + samples[:1])
    pairs = zip(ranks[0].results, ranks[1].results)
    merged = [result for pair in pairs for result in pair][:11]
    assert ranks[0].compute_metrics(merged) == expected


def test_another_model_gets_one_clear_error():
    samples = make_samples(True)
    del samples[1]['relative_compute']
    metric = ExpertUsageMetric(class_counts=COUNTS)
    with pytest.raises(UserError, match='relative_compute.*RIDEClassifier'):
        metric.process(None, samples)
    with pytest.raises(UserError, match='num_experts_used'):
        metric.process(None, [DataSample().set_gt_label(0).to_dict()])


def test_missing_counts_are_told_before_the_run():
    with pytest.raises(UserError, match='ExpertUsageMetric.*class_counts'):
        ExpertUsageMetric().dataset_meta = {}


def test_logs_a_table(tmp_path):
    logger = MMLogger.get_instance('usage', logger_name='usage', log_file=str(tmp_path / 'run.log'))
    metric = ExpertUsageMetric(class_counts=COUNTS)
    metric.process(None, make_samples(True))
    metric.evaluate(4)
    for handler in logger.handlers:
        handler.flush()
    log = (tmp_path / 'run.log').read_text()
    for text in ('1 expert', '3 experts', 'many (> 100)', '0.688'):
        assert text in log
