from fractions import Fraction

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from prediction_files import write_predictions

from ride_mm.analysis import bias_variance, compare_bias_variance, decompose
from ride_mm.analysis.variance.bias_variance import bias_variance_table, plot_bias_variance
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation.tables import render_table
from ride_mm.utils.errors import UserError

COUNTS = [150, 120, 60, 30, 10, 3]
GROUPS = ClassGroups(COUNTS)

MEASURES = ('error', 'bias', 'variance', 'unbiased_variance', 'helpful_variance', 'ties')


def naive(pred_label, gt_label):
    """Each image's parts as exact fractions, straight from the definition."""
    return [
        naive_image([int(run[image]) for run in pred_label], truth)
        for image, truth in enumerate(gt_label)
    ]


def naive_image(labels, truth):
    share = {label: Fraction(labels.count(label), len(labels)) for label in labels}
    best = max(share.values())
    mains = [label for label, value in share.items() if value == best]
    right = share.get(truth, Fraction(0))
    parts = dict.fromkeys(MEASURES, Fraction(0))
    parts['ties'] = len(mains) > 1
    for main in mains:
        # Domingos: loss = bias + c2 * variance, where c2 = 1 if the main
        # prediction is right, else -P(right | not the main prediction).
        bias, variance = Fraction(int(main != truth)), 1 - share[main]
        factor = Fraction(1)
        if bias:
            factor = -right / variance if variance else Fraction(0)
        assert 1 - right == bias + factor * variance
        found = dict(error=1 - right, bias=bias, variance=variance)
        found['helpful_variance' if bias else 'unbiased_variance'] = abs(factor * variance)
        for name, value in found.items():
            parts[name] += value / len(mains)
    return parts


def draw(num_runs, num_images, num_classes, seed):
    """Runs that are right, or agree in an error, more often than by chance."""
    rng = np.random.default_rng(seed)
    gt_label = rng.integers(num_classes, size=num_images)
    common = rng.integers(num_classes, size=num_images)
    pred_label = np.where(rng.random((num_runs, num_images)) < 0.3, gt_label, common)
    chance = rng.integers(num_classes, size=(num_runs, num_images))
    return np.where(rng.random((num_runs, num_images)) < 0.5, chance, pred_label), gt_label


@pytest.mark.parametrize(
    'num_runs, num_classes', [(1, 5), (2, 3), (3, 100), (7, 4), (20, 100), (8, 1)]
)
def test_against_the_definition(num_runs, num_classes):
    pred_label, gt_label = draw(num_runs, 400, num_classes, num_runs)
    parts = decompose(pred_label, gt_label)
    for i, expected in enumerate(naive(pred_label, gt_label)):
        for name, value in expected.items():
            assert getattr(parts, name)[i] == pytest.approx(float(value), abs=1e-15), name
    assert parts.variance.dtype == parts.bias.dtype == np.float64


@pytest.mark.parametrize('num_runs', [1, 2, 8, 16])
def test_error_is_bias_and_net_variance_to_the_last_bit(num_runs):
    """The shares of these numbers of runs are exact, thirds are not."""
    pred_label, gt_label = draw(num_runs, 5000, 10, seed=1)
    parts = decompose(pred_label, gt_label)
    net = parts.unbiased_variance - parts.helpful_variance
    assert parts.ties.any() == (num_runs > 1)
    assert parts.error == pytest.approx(parts.bias + net, abs=3e-16)
    exact = np.isin(parts.bias, [0, 0.5, 0.75, 1])
    assert exact.mean() > 0.9
    assert (parts.error == parts.bias + net)[exact].all()


def test_the_number_of_a_class_does_not_matter():
    """Not even where labels are tied: no order of the classes helps one."""
    pred_label, gt_label = draw(4, 500, 6, seed=0)
    other = np.random.default_rng(0).permutation(6)
    one, two = (decompose(pred_label, gt_label), decompose(other[pred_label], other[gt_label]))
    assert one.ties.any()
    for name in MEASURES:
        assert (getattr(one, name) == getattr(two, name)).all()


@pytest.mark.parametrize(
    'labels, truth, error, bias, variance, ties',
    [
        ([2, 2, 2], 2, 0, 0, 0, False),
        ([1, 1, 1], 2, 1, 1, 0, False),
        ([1, 1, 2, 0], 1, 0.5, 0, 0.5, False),
        ([1, 1, 2, 0], 2, 0.75, 1, 0.5, False),
        ([2, 1], 2, 0.5, 0.5, 0.5, True),
        ([2, 1], 0, 1, 1, 0.5, True),
        ([3, 2, 2, 3, 0], 2, 0.6, 0.5, 0.6, True),
        ([3, 2, 2, 3, 0], 0, 0.8, 1, 0.6, True),
        ([0, 1, 2, 3], 3, 0.75, 0.75, 0.75, True),
        ([4], 0, 1, 1, 0, False),
    ],
)
def test_by_hand(labels, truth, error, bias, variance, ties):
    parts = decompose(np.array(labels)[:, None], np.array([truth]))
    found = [values.item() for values in (parts.error, parts.bias, parts.variance, parts.ties)]
    assert found == [error, bias, variance, ties]


def test_groups_against_plain_means():
    """Classes of different size, one without images."""
    rng = np.random.default_rng(0)
    pred_label, _ = draw(5, 300, 6, seed=2)
    gt_label = rng.choice([0, 1, 2, 4, 5], size=300, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    figures = bias_variance(pred_label, gt_label, COUNTS)
    parts = naive(pred_label, gt_label)
    classes = dict(many=[0, 1], medium=[2], few=[4, 5], overall=[0, 1, 2, 4, 5])
    assert list(figures) == list(classes)
    for group, members in classes.items():
        assert figures[group]['classes'] == len(members)
        for measure in MEASURES:
            means = []
            for label in members:
                values = [
                    Fraction(part[measure])
                    for part, truth in zip(parts, gt_label)
                    if truth == label
                ]
                means.append(sum(values) / len(values))
            assert figures[group][measure] == pytest.approx(
                float(100 * sum(means) / len(means)), rel=1e-13
            )
        values = figures[group]
        assert values['net_variance'] == (values['unbiased_variance'] - values['helpful_variance'])
        assert values['error'] == pytest.approx(values['bias'] + values['net_variance'], rel=1e-13)


def test_one_run_has_no_variance():
    pred_label, gt_label = draw(1, 100, 6, seed=3)
    for values in bias_variance(pred_label, gt_label, COUNTS).values():
        assert values['variance'] == values['net_variance'] == 0
        assert values['bias'] == values['error'] > 0


def test_one_class_and_empty_groups():
    figures = bias_variance(np.zeros((3, 4), int), np.zeros(4, int), [50])
    assert list(figures) == ['medium', 'overall']
    assert figures['medium'] == dict(
        classes=1,
        error=0,
        bias=0,
        variance=0,
        unbiased_variance=0,
        helpful_variance=0,
        ties=0,
        net_variance=0,
    )


def test_mistakes():
    with pytest.raises(ValueError, match=r'got \(2, 3\) and \(4,\)'):
        decompose(np.zeros((2, 3), int), np.zeros(4, int))
    with pytest.raises(ValueError, match='R > 0'):
        decompose(np.zeros((0, 3), int), np.zeros(3, int))
    with pytest.raises(UserError, match='Predicted label 6'):
        bias_variance(np.array([[6]]), np.array([0]), COUNTS)
    with pytest.raises(UserError, match='True label -1'):
        bias_variance(np.array([[0]]), np.array([-1]), COUNTS)


def two_configs():
    return {
        name: bias_variance(*draw(5, 200, 6, seed), COUNTS)
        for seed, name in enumerate(['ce_r32', 'ride_[lr=0.1]'])
    }


def test_table_puts_configs_beside_each_other():
    figures = two_configs()
    lines = render_table(bias_variance_table(figures, 5, GROUPS)).splitlines()
    assert lines[0].startswith('Bias and variance of 5 runs (%)')
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line.startswith('| ')
    ]
    assert rows[0] == [
        'training images',
        'config',
        'classes',
        'error',
        'bias',
        'variance',
        'net variance',
        'ties',
    ]
    assert [row[:2] for row in rows[1:]] == [
        [title, name]
        for title in ('many (> 100)', 'medium (20 to 100)', 'few (< 20)', 'overall')
        for name in ('ce_r32', 'ride_[lr=0.1]')
    ]
    few = figures['ride_[lr=0.1]']['few']
    assert rows[6][2:6] == [
        '2',
        f'{few["error"]:.2f}',
        f'{few["bias"]:.2f}',
        f'{few["variance"]:.2f}',
    ]


@pytest.mark.parametrize('suffix', ['.png', '.svg'])
def test_picture(tmp_path, suffix):
    figures = two_configs()
    del figures['ce_r32']['few'], figures['ride_[lr=0.1]']['few']
    path = plot_bias_variance(figures, GROUPS, tmp_path / f'new/picture{suffix}')
    content = path.read_bytes()
    if suffix == '.png':
        assert content.startswith(b'\x89PNG\r\n\x1a\n')
        return
    text = content.decode()
    for shown in (
        '>bias<',
        '>variance<',
        'ce_r32',
        'ride_[lr=0.1]',
        'overall',
        '(&gt;',
        f'{figures["ride_[lr=0.1]"]["many"]["bias"]:.1f}',
    ):
        assert shown in text
    assert 'few' not in text


def test_folders_may_have_equal_names_and_equals_signs(tmp_path):
    """Runs of one config with other options, for example."""
    folders = [tmp_path / 'old/lr=0.1', tmp_path / 'new/lr=0.1']
    for number, folder in enumerate(folders):
        for seed in range(2):
            path = folder / f'seed_{seed}/predictions.npz'
            path.parent.mkdir(parents=True)
            scores = np.eye(6)[[0, number]]
            samples = [
                DataSample().set_gt_label(label).set_pred_score(torch.tensor(score)).to_dict()
                for label, score in enumerate(scores)
            ]
            options = {'train_dataloader.dataset.subset_seed': seed}
            weights = f'{number}{seed}'
            write_predictions(path, samples, class_counts=COUNTS, options=options, weights=weights)
    figures = compare_bias_variance(folders)
    errors = {name: groups['overall']['error'] for name, groups in figures.items()}
    assert errors == {str(folders[0]): 50.0, str(folders[1]): 0.0}
    assert list(compare_bias_variance(folders[:1])) == ['lr=0.1']
