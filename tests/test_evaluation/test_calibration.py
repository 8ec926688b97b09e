import math

import numpy as np
import pytest
import torch
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from ride_mm.evaluation import (
    CalibrationMetric,
    calibration,
    calibration_error,
    reliability_bins,
    score_quality,
)
from ride_mm.utils.errors import UserError

COUNTS = [101, 100, 20, 19]


def make_samples(scores, gt_label):
    return [
        DataSample().set_gt_label(int(label)).set_pred_score(score).to_dict()
        for score, label in zip(scores, gt_label)
    ]


def plain_ece(confidence, hits, num_bins):
    """The definition, bin by bin, without NumPy."""
    error = 0.0
    for i in range(num_bins):
        inside = [
            (c, h)
            for c, h in zip(confidence, hits)
            if i <= c * num_bins < i + 1 or (i == num_bins - 1 and c == 1)
        ]
        if inside:
            accuracy = sum(h for _, h in inside) / len(inside)
            mean = sum(c for c, _ in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(accuracy - mean)
    return 100 * error


def plain_figures(scores, gt_label, num_bins=15):
    confidence = [max(row) for row in scores]
    hits = [row.index(max(row)) == y for row, y in zip(scores, gt_label)]
    nll = [-math.log(row[y]) for row, y in zip(scores, gt_label)]
    brier = [
        sum((p - (k == y)) ** 2 for k, p in enumerate(row)) for row, y in zip(scores, gt_label)
    ]
    return dict(
        ece=plain_ece(confidence, hits, num_bins),
        nll=sum(nll) / len(nll),
        brier=sum(brier) / len(brier),
    )


@pytest.mark.parametrize('seed', range(3))
def test_against_plain_python(seed):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet([0.3] * 4, 200)
    gt_label = rng.integers(0, 4, 200)
    quality = score_quality(torch.from_numpy(scores), torch.tensor(gt_label))
    figures = calibration(quality, gt_label, COUNTS)
    expected = {}
    for prefix, classes in dict(many=[0], medium=[1, 2], few=[3], overall=range(4)).items():
        inside = np.isin(gt_label, list(classes))
        prefix = '' if prefix == 'overall' else f'{prefix}_'
        plain = plain_figures(scores[inside].tolist(), gt_label[inside].tolist())
        expected.update((prefix + k, value) for k, value in plain.items())
    assert figures == pytest.approx(expected, rel=1e-9)


def test_perfect_and_hopeless_scores():
    scores = torch.eye(4)
    right = score_quality(scores, torch.arange(4))
    assert calibration(right, np.arange(4), COUNTS)['ece'] == pytest.approx(0.0, abs=1e-13)
    assert right.nll.tolist() == right.brier.tolist() == [0.0] * 4
    wrong = score_quality(scores, torch.tensor([1, 2, 3, 0]))
    figures = calibration(wrong, np.array([1, 2, 3, 0]), COUNTS)
    assert figures['ece'] == pytest.approx(100.0, rel=1e-15)
    assert figures['brier'] == 2.0
    # a softmax that was rounded to 0 stays finite: 126 ln 2
    assert figures['nll'] == pytest.approx(126 * math.log(2))


def test_constant_scores_and_a_rounding_above_one():
    scores = torch.full((8, 4), 0.25)
    gt_label = torch.tensor([0, 1, 2, 3] * 2)
    quality = score_quality(scores, gt_label)
    assert calibration_error(quality.confidence, quality.hits) == 0.0
    assert calibration_error([1.0 + 1e-7], [True]) == pytest.approx(0.0, abs=1e-13)


def test_reliability_bins_against_plain_python():
    rng = np.random.default_rng(0)
    # At the edges, at 1 and a rounding above it, and nowhere below 0.2.
    edges = np.arange(4, 15) / 15
    confidence = np.concatenate(
        [rng.uniform(0.2, 1.0, 60), edges - 1e-9, edges + 1e-9, [0.25, 0.5, 0.75, 1.0, 1.0 + 1e-7]]
    )
    hits = rng.random(len(confidence)) < 0.5
    for num_bins in (15, 4, 1):
        bins = reliability_bins(confidence, hits, num_bins)
        ece = 0.0
        for i in range(num_bins):
            inside = [
                (c, h)
                for c, h in zip(confidence, hits)
                if i / num_bins <= c < (i + 1) / num_bins or (i == num_bins - 1 and c >= 1)
            ]
            assert bins.images[i] == len(inside)
            if not inside:
                assert np.isnan([bins.confidence[i], bins.accuracy[i]]).all()
                continue
            mean = sum(min(c, 1.0) for c, _ in inside) / len(inside)
            right = sum(h for _, h in inside) / len(inside)
            assert bins.confidence[i] == pytest.approx(mean, rel=1e-14)
            assert bins.accuracy[i] == pytest.approx(right, rel=1e-15)
            ece += 100 * len(inside) / len(hits) * abs(right - mean)
        assert calibration_error(confidence, hits, num_bins) == pytest.approx(ece, rel=1e-13)


def test_certain_images_are_in_the_last_bin():
    """Not in a bin of their own: their error makes up for the others'."""
    confidence, hits = [1.0] * 4 + [0.95] * 4, [True] * 2 + [False] * 2
    assert calibration_error(confidence, hits + [True] * 4) == pytest.approx(100 * (0.975 - 0.75))
    assert calibration_error(confidence, [True] * 3 + [False] + [True] * 4) == pytest.approx(
        100 * (0.975 - 0.875)
    )


def test_metric_is_that_of_the_function_and_keeps_no_scores():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.dirichlet([0.3] * 4, 30)).float()
    gt_label = rng.integers(0, 3, 30)  # no few-shot image
    samples = make_samples(scores, gt_label)
    metric = METRICS.build(dict(type='CalibrationMetric', num_bins=5))
    metric.dataset_meta = dict(class_counts=COUNTS)
    for start in range(0, 30, 7):
        metric.process(None, samples[start : start + 7])
    assert len(metric.results[0]) == 5
    figures = metric.evaluate(30)
    quality = score_quality(scores, torch.tensor(gt_label))
    expected = calibration(quality, gt_label, COUNTS, num_bins=5)
    assert figures == {f'calibration/{k}': v for k, v in expected.items()}
    assert 'calibration/few_ece' not in figures
    assert CalibrationMetric(class_counts=COUNTS).compute_metrics([]) == {}


def test_two_ranks_give_the_figures_of_one():
    rng = np.random.default_rng(1)
    samples = make_samples(torch.from_numpy(rng.dirichlet([0.3] * 4, 21)), rng.integers(0, 4, 21))
    whole = CalibrationMetric(class_counts=COUNTS)
    whole.process(None, samples)
    expected = whole.compute_metrics(whole.results)
    # As collect_results does: interleave the ranks, drop the padded image.
    ranks = [CalibrationMetric(class_counts=COUNTS) for _ in range(2)]
    ranks[0].process(None, samples[0::2])
    ranks[1].process(None, samples[1::2] + samples[:1])
    pairs = zip(ranks[0].results, ranks[1].results)
    merged = [result for pair in pairs for result in pair][:21]
    assert ranks[0].compute_metrics(merged) == expected


def test_wrong_input():
    with pytest.raises(UserError, match='num_bins'):
        CalibrationMetric(num_bins=0)
    metric = CalibrationMetric(class_counts=COUNTS)
    with pytest.raises(UserError, match='needs `pred_score`'):
        metric.process(None, [DataSample().set_gt_label(0).set_pred_label(0).to_dict()])
    scores = torch.tensor([[0.5, 0.5, 0.0, math.nan]])
    with pytest.raises(UserError, match='image .* not all finite'):
        metric.process(None, make_samples(scores, [0]))
