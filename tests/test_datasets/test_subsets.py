import copy

import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from ride_mm.datasets.class_counts import get_class_counts, stated_counts
from ride_mm.datasets.subsets import bootstrap_indices, held_out_indices
from ride_mm.utils.errors import UserError

DIGITS = dict(type='DigitsLT', split='train', pipeline=[])


def test_held_out_indices():
    labels = np.repeat([2, 0, 1, 3], [100, 19, 2, 1])
    chosen = held_out_indices(labels, 0.1, seed=0)
    # A tenth, but at least one of two images, and never the only one.
    assert np.bincount(labels[chosen], minlength=4).tolist() == [1, 1, 10, 0]
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() == held_out_indices(labels, 0.1, seed=0).tolist()
    assert chosen.tolist() != held_out_indices(labels, 0.1, seed=1).tolist()


def test_both_parts_of_a_training_set():
    whole = DATASETS.build(DIGITS)
    rest, held_out = (
        DATASETS.build(
            dict(type='HoldOut', dataset=copy.deepcopy(DIGITS), held_out=part, fraction=0.2)
        )
        for part in (False, True)
    )
    counts = np.array(get_class_counts(whole))
    kept = np.bincount(rest.get_gt_labels(), minlength=10)
    out = np.bincount(held_out.get_gt_labels(), minlength=10)
    assert (kept + out == counts).all() and len(held_out) == out.sum()
    assert (out == np.maximum((0.2 * counts).astype(int), 1)).all()
    assert stated_counts(rest) == stated_counts(held_out) == kept.tolist()
    # Each image of the training set is in exactly one part.
    images = [
        [dataset[i]['img'].tobytes() for i in range(len(dataset))]
        for dataset in (rest, held_out, whole)
    ]
    assert sorted(images[0] + images[1]) == sorted(images[2])
    for dataset in (rest, held_out):
        labels = [dataset[i]['gt_label'] for i in range(len(dataset))]
        assert labels == dataset.get_gt_labels().tolist()


@pytest.mark.parametrize('fraction', [0, 1, -0.5])
def test_fractions(fraction):
    with pytest.raises(UserError, match='between 0 and 1'):
        DATASETS.build(dict(type='HoldOut', dataset=DIGITS, held_out=True, fraction=fraction))


def test_bootstrap_indices():
    labels = np.random.default_rng(0).permutation(np.repeat([5, 0, 2], [1000, 30, 1]))
    drawn = bootstrap_indices(labels, seed=0)
    assert (labels[drawn] == labels).all()
    assert drawn.tolist() == bootstrap_indices(labels, seed=0).tolist()
    assert drawn.tolist() != bootstrap_indices(labels, seed=1).tolist()
    # On average, 1 - (1 - 1/n)^n of n images are drawn at least once.
    shares = [
        np.unique(bootstrap_indices(labels, seed)[labels == 5]).size / 1000 for seed in range(20)
    ]
    assert np.mean(shares) == pytest.approx(1 - 0.999**1000, abs=0.01)


@pytest.mark.parametrize(
    'dataset',
    [
        dict(DIGITS),
        dict(DIGITS, serialize_data=False),
        dict(type='HoldOut', dataset=DIGITS, held_out=False),
    ],
)
def test_images_and_counts(dataset):
    whole = DATASETS.build(copy.deepcopy(dataset))
    drawn = DATASETS.build(dict(type='Bootstrap', dataset=dataset, seed=3))
    indices = bootstrap_indices(whole.get_gt_labels(), seed=3)
    assert len(drawn) == len(whole)
    assert stated_counts(drawn) == stated_counts(whole)
    assert (drawn.get_gt_labels() == whole.get_gt_labels()[indices]).all()
    for i, index in enumerate(indices.tolist()):
        assert drawn[i]['gt_label'] == whole[index]['gt_label']
        assert (drawn[i]['img'] == whole[index]['img']).all()
