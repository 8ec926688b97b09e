from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.accuracy.confusion import group_confusion, plot_group_confusion
from ride_mm.analysis.calibration.reliability_diagram import plot_reliability
from ride_mm.analysis.comparison.compare import Comparison, plot_differences
from ride_mm.analysis.comparison.intervals import Difference
from ride_mm.analysis.comparison.runs import Runs
from ride_mm.analysis.routing.expert_usage import (
    plot_expert_usage,
    plot_experts_by_class,
    shares_by_class,
)
from ride_mm.analysis.style import ink_on
from ride_mm.analysis.training.training_curves import plot_training_curves
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine.scalars import TrainingCurves
from ride_mm.evaluation import expert_usage, reliability_bins

GROUPS = ClassGroups([500, 50, 5])
FIGURES = dict(overall=40.0, many=50.0, medium=40.0, few=30.0)
PNG = b'\x89PNG\r\n\x1a\n'


def assert_png(path, expected):
    assert path == expected
    content = path.read_bytes()
    assert content.startswith(PNG) and len(content) > 10_000


@pytest.mark.parametrize('num_classes', [10, 1000, 8142])
def test_accuracy_by_class(tmp_path, num_classes):
    groups = ClassGroups(np.geomspace(1000, 2, num_classes).astype(int))
    accuracy = np.linspace(90, 10, num_classes)
    accuracy[3] = np.nan  # a class without test images
    file = tmp_path / 'new' / 'accuracy.png'
    names = [f'class {i}' for i in range(num_classes)]
    assert_png(plot_accuracy_by_class(accuracy, FIGURES, groups, file, class_names=names), file)


def test_accuracy_of_one_untested_group(tmp_path):
    file = tmp_path / 'accuracy.png'
    groups = ClassGroups([200, 0])
    figures = dict(overall=50.0, many=50.0)
    assert_png(plot_accuracy_by_class([50.0, np.nan], figures, groups, file), file)


def test_accuracy_and_counts_must_fit(tmp_path):
    with pytest.raises(ValueError, match='1 accuracies do not fit 2 classes'):
        plot_accuracy_by_class([50.0], FIGURES, ClassGroups([200, 1]), tmp_path / 'a.png')


@pytest.mark.parametrize('num_experts', [1, 3, 6])
def test_expert_usage(tmp_path, num_experts):
    rng = np.random.default_rng(0)
    figures = expert_usage(
        rng.integers(1, num_experts + 1, 100),
        rng.random(100),
        rng.integers(0, 3, 100),
        GROUPS,
    )
    file = tmp_path / 'usage.png'
    assert_png(plot_expert_usage(figures, GROUPS, file), file)


@pytest.mark.parametrize('num_classes, methods', [(1, 'b'), (10, 'bc'), (1000, 'b'), (8142, 'b')])
def test_differences(tmp_path, num_classes, methods):
    """Also of a class that was not tested, and one without an interval."""
    nan = float('nan')
    counts = np.geomspace(1000, 2, num_classes).astype(int)
    points = np.linspace(-5, 9, num_classes)
    points[num_classes // 2] = nan
    groups = dict(
        overall=Difference(1.0, -0.5, 2.0),
        balanced=Difference(1.0, 0.5, 2.0),
        many=Difference(100.0, nan, nan),
    )
    comparison = Comparison(
        Runs(dict.fromkeys(f'a{methods}', []), ClassGroups(counts)),
        figures={},
        by_class=dict(a=np.zeros(num_classes), **dict.fromkeys(methods, points)),
        differences=dict.fromkeys(methods, groups),
        parts=[np.arange(num_classes), np.array([0])],
        by_part=dict.fromkeys(methods, [groups['balanced'], groups['many']]),
    )
    file = tmp_path / 'differences.png'
    assert_png(plot_differences(comparison, file), file)


def texts(path):
    """What is written in an SVG figure."""
    return [
        ''.join(element.itertext())
        for element in ElementTree.parse(path).iter()
        if element.tag.endswith('}text')
    ]


def assert_svg(path, *expected):
    box = ElementTree.parse(path).getroot().get('viewBox').split()
    assert float(box[2]) == pytest.approx(720.0)
    written = ' '.join(texts(path))
    for text in expected:
        assert text in written


def test_names_are_no_formulas(tmp_path):
    names = ['a $_ b$', '<b>', 'c']
    for path in (
        plot_accuracy_by_class(
            [50.0, 40.0, 30.0],
            FIGURES,
            GROUPS,
            tmp_path / 'accuracy.svg',
            class_names=names,
        ),
        plot_experts_by_class(
            np.array([1, 2, 1]), np.arange(3), GROUPS, tmp_path / 'experts.svg', class_names=names
        ),
    ):
        assert_svg(path, *names)


def test_shares_by_class():
    used, labels = [1, 3, 1, 2, 1], [0, 0, 0, 2, 2]
    shares = shares_by_class(np.array(used), np.array(labels), 3)
    assert shares[0] == pytest.approx([200 / 3, 0, 100 / 3])
    assert np.isnan(shares[1]).all()
    assert shares[2].tolist() == [50.0, 50.0, 0.0]


@pytest.mark.parametrize('num_classes', [1, 10, 1000])
def test_experts_by_class(tmp_path, num_classes):
    rng = np.random.default_rng(0)
    groups = ClassGroups(np.geomspace(1000, 2, num_classes).astype(int))
    labels = rng.integers(0, num_classes, 500)
    path = plot_experts_by_class(
        rng.integers(1, 4, 500), labels, groups, tmp_path / 'new' / 'e.svg'
    )
    assert_svg(path, 'Experts used by class', '3 experts', 'many')
    means = '(120 bars, each the mean of its classes)'
    assert (means in ' '.join(texts(path))) == (num_classes == 1000)


def test_reliability(tmp_path):
    rng = np.random.default_rng(0)
    confidence, hits = rng.random(200), rng.random(200) < 0.5
    bins = reliability_bins(confidence, hits)
    for names in (['overall'], ['overall', 'few'], ['overall', 'many', 'medium', 'few']):
        path = plot_reliability(
            dict.fromkeys(names, bins),
            dict.fromkeys(names, 100 / 7),
            GROUPS,
            tmp_path / 'r.svg',
        )
        assert_svg(path, 'Reliability: ECE 14.3%')
        assert texts(path).count('ECE 14.3%') == len(names)
        assert texts(path).count('confidence') == len(names)


def test_group_confusion(tmp_path):
    true, predicted = np.array([0, 0, 0, 2, 2, 2]), np.array([0, 0, 0, 0, 1, 2])
    confusion = group_confusion(predicted, true, GROUPS)
    path = plot_group_confusion(confusion, GROUPS, tmp_path / 'c.svg')
    assert_svg(path, '(100.0%)', 'no errors', '33.3%', '(33.3%)', '100%')
    # no medium image was tested
    assert 'medium' in texts(path) and '(20 to 100)' not in texts(path)


def make_curves(losses, metrics=()):
    return TrainingCurves(
        dict(enumerate(losses, start=1)), dict(enumerate(metrics, start=1)), Path('config.py')
    )


def test_training_curves(tmp_path):
    experts = [dict(loss=3.0, loss_cls=4.0, loss_diversity=-1.0)] * 3
    router = [dict(loss=1.0, loss_router=1.0)]
    metrics = [{'long_tail/overall': a, 'long_tail/few': a / 2} for a in (10.0, 20.0, 30.0, 40.0)]
    path = plot_training_curves(make_curves(experts + router, metrics), tmp_path / 'both.svg')
    assert_svg(
        path,
        'Training: 4 epochs, 40.0% at the end',
        'few',
        'stage 2: the router',
        'diversity',
        'loss of the router',
    )
    path = plot_training_curves(make_curves(router), tmp_path / 'router.svg')
    assert 'stage 2' not in ' '.join(texts(path))
    path = plot_training_curves(make_curves([dict(loss=1.0)]), tmp_path / 'plain.svg')
    assert_svg(path, 'Training: 1 epoch', 'loss')


def test_text_on_colors():
    """It contrasts, by the definition of WCAG 2.1, with 4.5 or nearly so."""

    def luminance(color):
        values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for color in ('#0072b2', '#e69f00', '#009e73', '#c7ddf2', '#08457f'):
        light, dark = sorted(map(luminance, (color, ink_on(color))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5
