import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import (
    LongTailMetric,
    accuracy_by_class,
    long_tail_accuracy,
    recall_means,
    topk_hits,
)
from ride_mm.utils.errors import UserError

# One class on each side of both edges: 20 and 100 are medium-shot.
COUNTS = [101, 100, 20, 19]


def make_samples(gt_labels, pred_labels, num_classes=4):
    samples = []
    for gt_label, pred_label in zip(gt_labels, pred_labels):
        score = torch.linspace(0.4, 0.1, num_classes)  # no ties
        score[pred_label] = 0.9
        samples.append(DataSample().set_gt_label(gt_label).set_pred_score(score).to_dict())
    return samples


def run_metric(metric, samples, batch_size=2):
    for start in range(0, len(samples), batch_size):
        metric.process(None, samples[start : start + batch_size])
    return metric.evaluate(len(samples))


def plain_long_tail(hits, gt_label, counts, low, high):
    """The definition, image by image, without NumPy."""
    of_class, groups = {}, {}
    for hit, label in zip(hits, gt_label):
        of_class.setdefault(label, []).append(hit)
        n = counts[label]
        group = 'many' if n > high else 'few' if n < low else 'medium'
        for name in ('overall', group):
            groups.setdefault(name, []).append(hit)
    figures = {k: 100 * sum(v) / len(v) for k, v in groups.items()}
    recalls = sorted(100 * sum(v) / len(v) for v in of_class.values())
    figures['balanced'] = sum(recalls) / len(recalls)
    figures['harmonic'] = figures['geometric'] = 0.0
    if recalls[0] > 0:
        figures['harmonic'] = len(recalls) / sum(1 / r for r in recalls)
        figures['geometric'] = math.prod(recalls) ** (1 / len(recalls))
    worst = recalls[: (len(recalls) + 9) // 10]
    figures['worst_10'] = sum(worst) / len(worst)
    figures['worst_class'] = recalls[0]
    return figures


def only_groups(figures):
    """Without what is averaged over classes, but for the balanced figure."""
    means = ('harmonic', 'geometric', 'worst_10', 'worst_class')
    return {k: v for k, v in figures.items() if not k.endswith(means)}


def test_topk_hits():
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    hits = topk_hits(scores, torch.tensor([2, 3]), topk=(1, 2, 4))
    assert hits.tolist() == [[False, True, True], [False, False, True]]
    with pytest.raises(UserError, match='top-5 .* predicts 4'):
        topk_hits(scores, torch.tensor([2, 3]), topk=(1, 5))


def test_accuracy_by_class():
    accuracy = accuracy_by_class(np.array([True, False, True]), np.array([0, 0, 2]), num_classes=4)
    np.testing.assert_array_equal(accuracy, [50.0, math.nan, 100.0, math.nan])


def test_groups_and_their_edges():
    hits = np.array([True, False, True, True, False, False, True, False])
    gt_label = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert only_groups(long_tail_accuracy(hits, gt_label, COUNTS)) == dict(
        overall=50.0, balanced=50.0, many=50.0, medium=50.0, few=50.0
    )
    figures = long_tail_accuracy(hits, gt_label, ClassGroups(COUNTS, (19, 99)))
    assert only_groups(figures) == dict(
        overall=50.0, balanced=50.0, many=75.0, medium=25.0
    )  # nothing below 19


def test_balanced_differs_from_overall_on_an_unbalanced_test_set():
    # Class 0: 9 of 9 images right, class 3: 0 of 1, 1 and 2 without images.
    hits = np.array([True] * 9 + [False])
    gt_label = np.array([0] * 9 + [3])
    assert only_groups(long_tail_accuracy(hits, gt_label, COUNTS)) == dict(
        overall=90.0, balanced=50.0, many=100.0, few=0.0
    )


def test_group_is_averaged_over_images():
    # Both classes are medium-shot: 1 of 1 and 0 of 3 images are right.
    figures = long_tail_accuracy(
        np.array([True, False, False, False]), np.array([1, 2, 2, 2]), COUNTS
    )
    assert only_groups(figures) == dict(overall=25.0, balanced=50.0, medium=25.0)


def test_means_over_classes():
    means = recall_means(np.array([80.0, math.nan, 20.0, 50.0] + [90.0] * 17))
    assert means == pytest.approx(
        dict(
            balanced=(80 + 20 + 50 + 17 * 90) / 20,
            harmonic=20 / (1 / 80 + 1 / 20 + 1 / 50 + 17 / 90),
            geometric=(80 * 20 * 50 * 90**17) ** (1 / 20),
            worst_10=35.0,
            worst_class=20.0,
        )
    )


def test_one_class_that_is_always_wrong():
    means = recall_means(np.array([100.0, 0.0, 100.0]))
    assert (means['harmonic'], means['geometric']) == (0.0, 0.0)
    assert (means['worst_10'], means['worst_class']) == (0.0, 0.0)


def test_accuracy_of_every_class():
    metric = LongTailMetric(topk=(1, 2), by_class=True, class_counts=COUNTS)
    figures = run_metric(metric, make_samples([0, 0, 2, 3], [0, 1, 0, 3]))
    assert figures['long_tail/by_class'] == [50.0, None, 0.0, 100.0]
    assert figures['long_tail/by_class_top2'] == [100.0, None, 0.0, 100.0]


def test_scores_that_are_no_numbers_name_the_image():
    samples = make_samples([0, 1, 2], [0, 1, 2])
    samples[1].update(img_path='cats/7.jpg')
    samples[1]['pred_score'][2] = math.nan
    samples[2].update(sample_idx=41)
    samples[2]['pred_score'][0] = math.inf
    metric = LongTailMetric(class_counts=COUNTS)
    with pytest.raises(UserError, match='scores of cats/7.jpg are not all'):
        metric.process(None, samples)
    with pytest.raises(UserError, match='scores of image 41 are'):
        metric.process(None, samples[2:])


def test_constant_scores_and_one_class():
    samples = make_samples([0, 1], [0, 0])
    for sample in samples:
        sample['pred_score'] = torch.full((4,), 0.25)
    figures = run_metric(LongTailMetric(class_counts=COUNTS), samples)
    assert figures['long_tail/overall'] in (0.0, 50.0)  # some class has to win
    one = DataSample().set_gt_label(0).set_pred_score(torch.ones(1)).to_dict()
    figures = run_metric(LongTailMetric(class_counts=[5]), [one])
    assert list(figures.values()) == pytest.approx([100.0] * len(figures))


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('thresholds', [(20, 100), (5, 50)])
def test_against_plain_python(seed, thresholds):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 150, 12).tolist()
    gt_label = rng.integers(0, 12, 200)
    hits = rng.random(200) < 0.6
    figures = long_tail_accuracy(hits, gt_label, ClassGroups(counts, thresholds))
    expected = plain_long_tail(hits.tolist(), gt_label.tolist(), counts, *thresholds)
    assert figures == pytest.approx(expected, abs=1e-10)


def test_no_images_and_wrong_shapes():
    none = long_tail_accuracy(np.zeros(0, bool), np.zeros(0, int), COUNTS)
    assert none == {}
    assert LongTailMetric(class_counts=COUNTS).compute_metrics([]) == {}
    with pytest.raises(ValueError, match='shape'):
        long_tail_accuracy(np.zeros(2, bool), np.zeros(3, int), COUNTS)


def test_metric_is_registered_and_named():
    metric = METRICS.build(dict(type='LongTailMetric', class_counts=COUNTS))
    figures = run_metric(metric, make_samples([0, 1, 2, 3], [0, 1, 0, 0]))
    assert only_groups(figures) == {
        'long_tail/overall': 50.0,
        'long_tail/balanced': 50.0,
        'long_tail/many': 100.0,
        'long_tail/medium': 50.0,
        'long_tail/few': 0.0,
    }
    assert all(type(value) is float for value in figures.values())


def test_metric_agrees_with_mmpretrain_on_topk():
    torch.manual_seed(0)
    samples = [
        DataSample().set_gt_label(i % 10).set_pred_score(torch.rand(10).softmax(0)).to_dict()
        for i in range(50)
    ]
    figures = run_metric(LongTailMetric(topk=(1, 5), class_counts=[200] * 10), samples, 16)
    expected = run_metric(Accuracy(topk=(1, 5)), samples, 16)
    assert figures['long_tail/overall'] == pytest.approx(expected['accuracy/top1'])
    assert figures['long_tail/overall_top5'] == pytest.approx(expected['accuracy/top5'])
    assert figures['long_tail/many_top5'] == figures['long_tail/overall_top5']
    assert 'long_tail/few_top5' not in figures


def test_metric_takes_counts_of_the_dataset_unless_told_otherwise():
    samples = make_samples([0, 1], [0, 0])
    evaluator = Evaluator([LongTailMetric()])
    evaluator.dataset_meta = dict(class_counts=COUNTS, classes=list('abcd'))
    assert evaluator.offline_evaluate(samples)['long_tail/many'] == 100.0

    metric = LongTailMetric(class_counts=[1, 1, 1, 1])
    metric.dataset_meta = dict(class_counts=COUNTS)
    assert set(only_groups(run_metric(metric, samples))) == {
        'long_tail/overall',
        'long_tail/balanced',
        'long_tail/few',
    }


def test_metric_reads_counts_from_a_file(tmp_path):
    file = tmp_path / 'counts.json'
    file.write_text('[101, 100, 20, 19]')
    metric = LongTailMetric(class_counts=str(file))
    assert metric.class_counts.tolist() == COUNTS
    metric = LongTailMetric(class_counts=str(tmp_path / 'absent.json'))
    with pytest.raises(UserError, match='LongTailMetric.class_counts: .*abs'):
        metric.dataset_meta = {}


def test_scores_win_over_a_stale_label():
    (sample,) = make_samples([2], [2])
    sample['pred_label'] = torch.tensor([0])
    metric = LongTailMetric(class_counts=COUNTS)
    assert run_metric(metric, [sample])['long_tail/overall'] == 100.0


def test_labels_without_scores():
    samples = [
        DataSample().set_gt_label(gt).set_pred_label(pred).to_dict()
        for gt, pred in [(0, 0), (1, 0), (3, 3)]
    ]
    metric = LongTailMetric(class_counts=COUNTS)
    figures = run_metric(metric, samples)
    assert figures['long_tail/overall'] == pytest.approx(200 / 3)
    with pytest.raises(UserError, match='topk.*pred_score'):
        LongTailMetric(topk=(1, 5), class_counts=COUNTS).process(None, samples)


def test_keeps_no_scores():
    metric = LongTailMetric(topk=(1, 2), class_counts=COUNTS)
    metric.process(None, make_samples([0, 1], [0, 0]))
    assert metric.results == [(0, True, True), (1, False, True)]


def test_two_ranks_give_the_figures_of_one():
    rng = np.random.default_rng(0)
    samples = make_samples(*rng.integers(0, 4, (2, 21)).tolist())
    whole = LongTailMetric(topk=(1, 2), class_counts=COUNTS)
    expected = run_metric(whole, samples)

    # As collect_results does: interleave the ranks, drop the padded image.
    ranks = [LongTailMetric((1, 2), class_counts=COUNTS) for _ in range(2)]
    ranks[0].process(None, samples[0::2])
    ranks[1].process(None, samples[1::2] + samples[:1])
    pairs = zip(ranks[0].results, ranks[1].results)
    merged = [result for pair in pairs for result in pair][:21]
    figures = ranks[0].compute_metrics(merged)
    assert {f'long_tail/{k}': v for k, v in figures.items()} == expected


def test_logs_a_table(tmp_path):
    logger = MMLogger.get_instance('table', logger_name='table', log_file=str(tmp_path / 'run.log'))
    metric = LongTailMetric(topk=(1, 2), class_counts=COUNTS)
    run_metric(metric, make_samples([0, 1, 2, 3], [0, 1, 0, 0]))
    for handler in logger.handlers:
        handler.flush()
    log = (tmp_path / 'run.log').read_text()
    for text in (
        'many (> 100)',
        'medium (20 to 100)',
        'few (< 20)',
        'balanced (class mean)',
        'top-2',
        '50.00',
    ):
        assert text in log
    assert log.isascii()


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(thresholds=(100, 20)), 'thresholds'),
        (dict(thresholds=(20,)), 'thresholds'),
        (dict(thresholds='halves'), 'thresholds="halves" is unknown'),
        (dict(topk=()), 'topk'),
        (dict(topk=0), 'topk'),
    ],
)
def test_wrong_options(kwargs, message):
    with pytest.raises(UserError, match=message):
        LongTailMetric(**kwargs)


@pytest.mark.parametrize(
    'meta, message',
    [
        ({}, r"metainfo\['class_counts'\].*`class_counts=\[\.\.\.\]`"),
        (dict(class_counts=COUNTS, classes=list('abc')), '4 class counts.*3 cla'),
        (dict(class_counts=[3, -1]), 'whole numbers'),
        (dict(class_counts=[0.5, 0.5]), 'whole numbers'),
        (dict(class_counts=[]), 'whole numbers'),
    ],
)
def test_wrong_counts_are_told_before_the_run(meta, message):
    metric = LongTailMetric()
    with pytest.raises(UserError, match=message):
        metric.dataset_meta = meta


def test_wrong_samples():
    metric = LongTailMetric(class_counts=COUNTS)
    with pytest.raises(UserError, match='3 classes'):
        metric.process(None, make_samples([0], [0], num_classes=3))
    with pytest.raises(UserError, match='True label 7'):
        metric.process(None, make_samples([7], [0]))
    no_label = DataSample().set_pred_score(torch.rand(4)).to_dict()
    with pytest.raises(UserError, match='one true label'):
        metric.process(None, [no_label])
    two_labels = DataSample().set_gt_label([0, 1]).set_pred_score(torch.rand(4)).to_dict()
    with pytest.raises(UserError, match='one true label'):
        metric.process(None, [two_labels])
    outside = DataSample().set_gt_label(0).set_pred_label(4).to_dict()
    with pytest.raises(UserError, match='Predicted label 4'):
        metric.process(None, [outside])
    with pytest.raises(UserError, match='class_counts'):
        LongTailMetric().process(None, make_samples([0], [0]))
