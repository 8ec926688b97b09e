import copy

import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from ride_mm.datasets.bootstrap import bootstrap_indices
from ride_mm.datasets.class_counts import stated_counts
from ride_mm.utils.errors import UserError

DIGITS = dict(type='DigitsLT', split='train', pipeline=[])


def test_bootstrap_indices():
    labels = np.random.default_rng(0).permutation(np.repeat([5, 0, 2], [1000, 30, 1]))
    drawn = bootstrap_indices(labels, seed=0)
    assert (labels[drawn] == labels).all()
    assert drawn.tolist() == bootstrap_indices(labels, seed=0).tolist()
    assert drawn.tolist() != bootstrap_indices(labels, seed=1).tolist()
    # Of n images 1 - (1 - 1/n)^n are drawn at least once, on average.
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


def test_wrappers_hold_no_images():
    repeated = dict(type='RepeatDataset', times=2, dataset=DIGITS)
    with pytest.raises(UserError, match='drawn from a RepeatDataset'):
        DATASETS.build(dict(type='Bootstrap', dataset=repeated, seed=0))
