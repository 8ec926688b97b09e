import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from ride_mm.datasets import ConcatDataset, DigitsLT, KFoldDataset
from ride_mm.datasets.class_counts import (get_class_counts, get_labels,
                                           stated_counts)
from ride_mm.utils.errors import UserError


def digits(**options):
    return dict(type='DigitsLT', **options)


def counted(dataset):
    return np.bincount(get_labels(dataset), minlength=10).tolist()


def test_indices():
    whole = DigitsLT()
    chosen = list(range(0, len(whole), 3))
    part = DigitsLT(indices=chosen)
    assert get_class_counts(part) == counted(part)
    assert sum(get_class_counts(part)) == len(chosen)
    assert part.whole_class_counts == get_class_counts(whole)
    # the test set goes on to tell the training set's
    test = DigitsLT(split='test', indices=50)
    assert len(test) == 50
    assert test.metainfo['class_counts'] == get_class_counts(whole)


def test_sets_of_different_counts():
    parts = [digits(), digits(indices=list(range(200)))]
    both = DATASETS.build(dict(type='ConcatDataset', datasets=parts))
    assert isinstance(both, ConcatDataset)
    assert get_class_counts(both) == counted(both)
    assert both.metainfo['class_counts'] == counted(both)
    twice = ConcatDataset([digits(), digits()])
    assert get_class_counts(twice) == counted(twice)
    # of the same training set
    test = ConcatDataset([digits(split='test')] * 2)
    assert stated_counts(test) == get_class_counts(DigitsLT())
    with pytest.raises(UserError, match='dataset does not in the meta'):
        ConcatDataset([digits(), digits(metainfo=dict(dataset='other'))])


def test_folds():
    options = dict(dataset=digits(), fold=1, num_splits=3, seed=0)
    train = DATASETS.build(dict(type='KFoldDataset', **options))
    val = KFoldDataset(test_mode=True, **options)
    assert type(train) is KFoldDataset
    assert get_class_counts(train) == counted(train)
    for dataset in (val, val.dataset):
        assert dataset.metainfo['class_counts'] == counted(train)
    assert stated_counts(val) == counted(train)


def test_sets_that_cannot_be_joined(tmp_path):
    for name, line in (('a.txt', 'a.png 0'), ('b.txt', 'a.png 1\na.png 0')):
        (tmp_path / name).write_text(line + '\n')
    (tmp_path / 'a.png').touch()
    a, b = (dict(type='LongTailList', data_root=str(tmp_path), ann_file=name)
            for name in ('a.txt', 'b.txt'))
    with pytest.raises(UserError, match='have 1 and 2 classes'):
        DATASETS.build(dict(type='ConcatDataset', datasets=[a, b]))
    repeated = dict(type='RepeatDataset', times=2, dataset=a)
    with pytest.raises(UserError, match='found RepeatDataset: put'):
        DATASETS.build(dict(type='ConcatDataset', datasets=[a, repeated]))
