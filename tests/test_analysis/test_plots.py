import numpy as np
import pytest

from ride_mm.analysis import (Difference, plot_accuracy_by_class,
                              plot_differences, plot_expert_usage)
from ride_mm.evaluation import expert_usage

PNG = b'\x89PNG\r\n\x1a\n'


def assert_png(path, expected):
    assert path == expected
    content = path.read_bytes()
    assert content.startswith(PNG) and len(content) > 10_000


@pytest.mark.parametrize('num_classes', [10, 1000, 8142])
def test_accuracy_by_class(tmp_path, num_classes):
    counts = np.geomspace(1000, 2, num_classes).astype(int)
    accuracy = np.linspace(90, 10, num_classes)
    accuracy[3] = np.nan  # a class without test images
    file = tmp_path / 'new' / 'accuracy.png'
    names = [f'class {i}' for i in range(num_classes)]
    assert_png(
        plot_accuracy_by_class(
            accuracy, counts, file, overall=50., class_names=names), file)


def test_accuracy_of_one_untested_group(tmp_path):
    file = tmp_path / 'accuracy.png'
    assert_png(
        plot_accuracy_by_class([50., np.nan], [200, 0], file, overall=50.),
        file)


def test_accuracy_and_counts_must_fit(tmp_path):
    with pytest.raises(ValueError, match='shape'):
        plot_accuracy_by_class([50.], [200, 1], tmp_path / 'a.png', 50.)


@pytest.mark.parametrize('num_experts', [1, 3, 6])
def test_expert_usage(tmp_path, num_experts):
    rng = np.random.default_rng(0)
    figures = expert_usage(
        rng.integers(1, num_experts + 1, 100), rng.random(100),
        rng.integers(0, 3, 100), [500, 50, 5])
    file = tmp_path / 'usage.png'
    assert_png(plot_expert_usage(figures, file), file)


@pytest.mark.parametrize('num_classes, methods', [(1, 'b'), (10, 'bc'),
                                                  (1000, 'b'), (8142, 'b')])
def test_differences(tmp_path, num_classes, methods):
    """Also of a class that was not tested, and one without an interval."""
    nan = float('nan')
    counts = np.geomspace(1000, 2, num_classes).astype(int)
    points = np.linspace(-5, 9, num_classes)
    points[num_classes // 2] = nan
    groups = dict(
        overall=Difference(1., -.5, 2.),
        balanced=Difference(1., .5, 2.),
        many=Difference(100., nan, nan))
    file = tmp_path / 'differences.png'
    assert_png(
        plot_differences(
            dict.fromkeys(methods, groups),
            dict.fromkeys(methods, points),
            dict.fromkeys(methods, [groups['balanced'], groups['many']]),
            [np.arange(num_classes), np.array([0])],
            counts,
            file,
            baseline='a'), file)
