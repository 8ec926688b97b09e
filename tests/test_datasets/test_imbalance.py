import numpy as np
import pytest

from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.datasets.imbalance import long_tail_profile, sample_subset


def test_exponential_profile_of_cifar100():
    counts = long_tail_profile(100, 500, 'exp', 0.01)
    assert counts == [int(500 * 0.01 ** (c / 99.0)) for c in range(100)]
    assert (sum(counts), counts[0], counts[-1]) == (10847, 500, 5)
    sizes = {k: int(m.sum()) for k, m in ClassGroups(counts).masks.items()}
    assert sizes == dict(many=35, medium=35, few=30)


@pytest.mark.parametrize('imb_factor, total', [(0.02, 12608), (0.1, 19573)])
def test_other_profiles_of_cifar100(imb_factor, total):
    assert sum(long_tail_profile(100, 500, 'exp', imb_factor)) == total


def test_step_profile():
    assert long_tail_profile(4, 50, 'step', 0.1) == [50, 50, 5, 5]
    assert long_tail_profile(5, 50, 'step', 0.1) == [50, 50, 5, 5, 5]


@pytest.mark.parametrize('imb_type', ['exp', 'step'])
def test_balanced_profile(imb_type):
    assert long_tail_profile(3, 7, imb_type, 1) == [7, 7, 7]


@pytest.mark.parametrize(
    'options, message',
    [
        (('exponent', 0.1), r"must be 'exp' or 'step', found 'exponent'"),
        (('stepp', 0.1), r"found 'stepp'. Did you mean 'step'\?"),
        ((None, 0.1), 'found None'),
        (('exp', 0), r'must be in \(0, 1\], found 0'),
        (('exp', 100), r'must be in \(0, 1\], found 100'),
        (('exp', -0.1), 'found -0.1'),
        (('exp', float('nan')), 'found nan'),
        (
            ('exp', 0.005),
            'leaves 2 of 10 classes without images: with 100 images '
            'in the largest class it must be at least 0.01',
        ),
    ],
)
def test_profile_errors(options, message):
    with pytest.raises(ValueError, match=message):
        long_tail_profile(10, 100, *options)


def test_subset_matches_plain_implementation():
    labels = np.random.default_rng(1).permutation(np.repeat(range(6), 40))
    counts = [40, 20, 10, 5, 2, 0]
    for seed in (0, 3):
        np.random.seed(seed)
        expected = []
        for c in range(6):
            indices = np.where(labels == c)[0]
            np.random.shuffle(indices)
            expected.extend(indices[: counts[c]])
        chosen = sample_subset(labels.tolist(), counts, seed)
        assert chosen.tolist() == expected


def test_subset_leaves_global_random_state_alone():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    sample_subset([0, 0, 1], [1, 1], 0)
    assert np.random.rand() == expected


def test_subset_of_incomplete_data():
    with pytest.raises(ValueError, match='Class 1 has 1 images, but 2 are needed'):
        sample_subset([0, 0, 1], [2, 2], 0)
