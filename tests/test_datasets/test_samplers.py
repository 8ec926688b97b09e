from collections import Counter

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import DATA_SAMPLERS
from scipy.stats import chisquare

from ride_mm.datasets import ClassBalancedSampler, DigitsLT, PowerSampler
from ride_mm.datasets.samplers import ReshuffledSampler, epoch_sampler
from ride_mm.datasets.samplers.class_balanced import _ranges

SAMPLERS = [ClassBalancedSampler, PowerSampler]
# Class 2 has no image.
COUNTS = [60, 23, 0, 9, 3, 1]


class Labels:
    """A dataset that has labels only, in random order."""

    def __init__(self, counts=COUNTS, seed=0):
        self.labels = np.random.default_rng(seed).permutation(
            np.repeat(np.arange(len(counts)), counts)
        )

    def __len__(self):
        return len(self.labels)

    def get_gt_labels(self):
        return self.labels


def _epochs(sampler, num_epochs, first=0):
    drawn = []
    for epoch in range(first, first + num_epochs):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
    return drawn


def _class_frequencies(dataset, sampler, num_epochs):
    drawn = np.concatenate(_epochs(sampler, num_epochs))
    return np.bincount(dataset.labels[drawn], minlength=len(COUNTS))


@pytest.mark.parametrize('cls', SAMPLERS)
def test_built_as_the_runner_does(cls):
    dataset = Labels()
    sampler = DATA_SAMPLERS.build(
        dict(type=cls.__name__), default_args=dict(dataset=dataset, seed=3)
    )
    assert isinstance(sampler, cls)
    assert sampler.seed == 3
    indices = list(sampler)
    assert len(indices) == len(sampler) == len(dataset)
    assert all(type(i) is int for i in indices)


@pytest.mark.parametrize('cls', SAMPLERS)
def test_follows_from_seed_and_epoch(cls):
    dataset = Labels()
    epochs = _epochs(cls(dataset, seed=3), 4)
    resumed = cls(dataset, seed=3)
    assert _epochs(resumed, 2, first=2) == epochs[2:]
    assert _epochs(resumed, 1, first=0) == epochs[:1]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert _epochs(cls(dataset, seed=4), 4) != epochs
    # Swapping seed and epoch gives other draws.
    assert _epochs(cls(dataset, seed=2), 1, first=4)[0] not in epochs


@pytest.mark.parametrize('cls', SAMPLERS)
def test_leaves_global_random_state_alone(cls):
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    list(cls(Labels(), seed=3))
    assert np.random.rand() == expected


@pytest.mark.parametrize('cls', SAMPLERS)
def test_seed_of_all_ranks(cls, monkeypatch):
    monkeypatch.setattr(epoch_sampler, 'sync_random_seed', lambda: 17)
    assert cls(Labels()).seed == 17
    assert cls(Labels(), seed=0).seed == 0


@pytest.mark.parametrize('cls', SAMPLERS)
@pytest.mark.parametrize('world_size', [1, 2, 4, 7])
def test_ranks_share_the_draws(cls, world_size, monkeypatch):
    dataset = Labels()
    single = cls(dataset, seed=3)
    single.set_epoch(2)
    expected = list(single)
    total = -(-len(expected) // world_size) * world_size
    expected = (expected * 2)[:total]

    merged = [None] * total
    for rank in range(world_size):
        monkeypatch.setattr(epoch_sampler, 'get_dist_info', lambda: (rank, world_size))
        sampler = cls(dataset, seed=3)
        sampler.set_epoch(2)
        merged[rank::world_size] = list(sampler)
        assert len(sampler) == total // world_size
    assert merged == expected


@pytest.mark.parametrize('cls', SAMPLERS)
def test_more_ranks_than_images(cls, monkeypatch):
    monkeypatch.setattr(epoch_sampler, 'get_dist_info', lambda: (7, 8))
    sampler = cls(Labels([2, 1]), seed=0)
    assert len(sampler) == len(list(sampler)) == 1


@pytest.mark.parametrize('cls', SAMPLERS)
def test_empty_dataset(cls):
    with pytest.raises(ValueError, match=f'{cls.__name__}: the dataset is'):
        cls(Labels([0, 0]))


def test_balanced_frequencies():
    dataset = Labels()
    sampler = ClassBalancedSampler(dataset, seed=0)
    drawn = _class_frequencies(dataset, sampler, num_epochs=200)
    assert drawn[2] == 0
    assert drawn.sum() == 200 * len(dataset)
    assert chisquare(np.delete(drawn, 2)).pvalue > 0.01


def test_balanced_draws_are_independent():
    # Consecutive pairs of classes are equally frequent, too.
    dataset = Labels([5, 5, 5])
    sampler = ClassBalancedSampler(dataset, seed=1)
    classes = dataset.labels[np.array(_epochs(sampler, 600))]
    pairs = Counter(zip(classes[:, :-1].ravel(), classes[:, 1:].ravel()))
    assert len(pairs) == 9
    # Overlapping pairs vary a little more than the test assumes.
    assert chisquare(list(pairs.values())).pvalue > 1e-3


def test_images_of_a_class_take_turns():
    dataset = Labels()
    sampler = ClassBalancedSampler(dataset, seed=0)
    drawn = np.concatenate(_epochs(sampler, 9))
    for c in np.flatnonzero(COUNTS):
        of_class = drawn[dataset.labels[drawn] == c]
        size = COUNTS[c]
        assert len(of_class) > size
        # Each round contains every image once, also across epochs.
        whole = len(of_class) // size * size
        rounds = of_class[:whole].reshape(-1, size)
        images = np.flatnonzero(dataset.labels == c)
        assert (np.sort(rounds, axis=1) == images).all()
        assert len(set(of_class[whole:])) == len(of_class) - whole
        if 3 < size and len(rounds) > 1:
            assert len({tuple(r) for r in rounds}) == len(rounds)


def test_rounds_are_shuffled_uniformly():
    dataset = Labels([3])
    sampler = ClassBalancedSampler(dataset, seed=5)
    orders = Counter(map(tuple, _epochs(sampler, 1200)))
    assert len(orders) == 6
    assert chisquare(list(orders.values())).pvalue > 0.01


def test_epoch_size():
    dataset = Labels()
    sampler = ClassBalancedSampler(dataset, seed=0, epoch_size='max')
    assert len(sampler) == len(list(sampler)) == 5 * 60
    with pytest.raises(ValueError, match="epoch_size must be 'dataset' or 'max', found 9"):
        ClassBalancedSampler(dataset, epoch_size=9)


@pytest.mark.parametrize('power', [1, 0.5, 0, -1])
def test_power_frequencies(power):
    dataset = Labels()
    sampler = PowerSampler(dataset, power=power, seed=0)
    drawn = _class_frequencies(dataset, sampler, num_epochs=200)
    assert drawn[2] == 0
    sizes = np.delete(COUNTS, 2).astype(float)
    expected = sizes**power / (sizes**power).sum() * drawn.sum()
    assert chisquare(np.delete(drawn, 2), expected).pvalue > 0.01


def test_power_draws_images_uniformly():
    dataset = Labels([40, 10])
    sampler = PowerSampler(dataset, seed=2)
    drawn = np.bincount(np.concatenate(_epochs(sampler, 300)))
    for c in range(2):
        assert chisquare(drawn[dataset.labels == c]).pvalue > 0.01


@pytest.mark.parametrize('power', [float('inf'), float('nan')])
def test_power_must_be_finite(power):
    with pytest.raises(ValueError, match='power must be a finite number'):
        PowerSampler(Labels(), power=power)


def test_ranges():
    assert _ranges(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
    assert _ranges(np.array([0, 0])).tolist() == []


@pytest.mark.parametrize('cls', SAMPLERS)
@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: RepeatDataset(dataset, 3),
        lambda dataset: ClassBalancedDataset(dataset, 0.1),
    ],
)
def test_wrappers(cls, wrap):
    dataset = wrap(DigitsLT())
    sampler = cls(dataset, seed=0)
    assert len(sampler) == len(dataset) > 438
    drawn = np.concatenate(_epochs(sampler, 5))
    labels = [dataset.get_data_info(i)['gt_label'] for i in drawn]
    assert set(labels) == set(range(10))
    if cls is ClassBalancedSampler:
        assert chisquare(np.bincount(labels)).pvalue > 0.01


@pytest.mark.parametrize('num_workers', [0, 2])
def test_in_the_runners_data_loader(num_workers):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(
            dict(
                batch_size=32,
                num_workers=num_workers,
                dataset=dict(type='DigitsLT', pipeline=[dict(type='PackInputs')]),
                sampler=dict(type='ClassBalancedSampler'),
                collate_fn=dict(type='default_collate'),
            ),
            seed=1,
        )
    loader.sampler.set_epoch(3)
    labels = [
        int(label) for batch in loader for label in [s.gt_label for s in batch['data_samples']]
    ]
    expected = ClassBalancedSampler(DigitsLT(), seed=1)
    expected.set_epoch(3)
    assert labels == DigitsLT().get_gt_labels()[list(expected)].tolist()


def test_reshuffled_sampler_goes_round_and_round(monkeypatch):
    dataset = range(7)
    sampler = ReshuffledSampler(dataset, epoch_size=18, seed=3)
    draws = list(sampler)
    assert len(draws) == len(sampler) == 18
    first, second = draws[:7], draws[7:14]
    assert sorted(first) == sorted(second) == list(dataset)
    assert first != second
    assert len(set(draws[14:])) == 4
    assert list(sampler) == draws
    sampler.set_epoch(1)
    assert list(sampler) != draws
    sampler.set_epoch(0)
    monkeypatch.setattr(epoch_sampler, 'get_dist_info', lambda: (1, 2))
    half = ReshuffledSampler(dataset, epoch_size=18, seed=3)
    assert list(half) == draws[1::2]
