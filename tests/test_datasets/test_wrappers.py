import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from ride_mm.datasets import ConcatDataset, DigitsLT, KFoldDataset
from ride_mm.datasets.class_counts import get_class_counts, get_labels, stated_counts
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
    # The test set keeps the counts of the training set.
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
    # Two test sets of the same training set.
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
    a, b = (
        dict(type='LongTailList', data_root=str(tmp_path), ann_file=name)
        for name in ('a.txt', 'b.txt')
    )
    with pytest.raises(UserError, match='have 1 and 2 classes'):
        DATASETS.build(dict(type='ConcatDataset', datasets=[a, b]))


def fold(dataset, **options):
    return dict(type='KFoldDataset', dataset=dataset, num_splits=3, seed=0, **options)


def part(dataset, held_out=False):
    return dict(type='HoldOut', dataset=dataset, held_out=held_out)


def drawn(dataset):
    return dict(type='Bootstrap', dataset=dataset, seed=0)


def joined(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def repeated(dataset):
    return dict(type='RepeatDataset', dataset=dataset, times=2)


def balanced(dataset):
    return dict(type='ClassBalancedDataset', dataset=dataset, oversample_thr=0.1)


def loaded_counts(dataset):
    """Class counts of the loaded images."""
    labels = [dataset[i]['gt_label'] for i in range(len(dataset))]
    return np.bincount(labels, minlength=10).tolist()


@pytest.mark.parametrize(
    'config',
    [
        part(digits()),
        drawn(digits()),
        fold(digits()),
        fold(part(digits())),
        part(fold(digits())),
        drawn(fold(digits())),
        fold(fold(digits())),
        joined(digits(), digits()),
        joined(digits(), digits(indices=list(range(150)))),
        joined(part(digits()), drawn(digits())),
        joined(fold(digits()), fold(digits(), fold=1)),
        joined(joined(digits(), part(digits())), fold(digits())),
    ],
)
def test_counts_are_those_of_the_images(config):
    dataset = DATASETS.build(config)
    assert get_class_counts(dataset) == counted(dataset) == loaded_counts(dataset)
    assert dataset.metainfo['class_counts'] == counted(dataset)


@pytest.mark.parametrize(
    'inner',
    [
        digits(),
        part(digits()),
        fold(digits()),
        joined(digits(), part(digits())),
        repeated(digits()),
        balanced(digits()),
    ],
)
@pytest.mark.parametrize('wrapper', [repeated, balanced])
def test_repeated_images(inner, wrapper):
    """Class counts do not change, but labels are repeated."""
    whole = DATASETS.build(inner)
    dataset = DATASETS.build(wrapper(inner))
    assert get_class_counts(dataset) == get_class_counts(whole)
    assert counted(dataset) == loaded_counts(dataset)
    if wrapper is repeated:
        assert counted(dataset) == [2 * n for n in counted(whole)]
    else:
        assert min(counted(dataset)) > min(counted(whole))


@pytest.mark.parametrize(
    'wrapper, name', [(part, 'HoldOut'), (drawn, 'Bootstrap'), (fold, 'KFoldDataset')]
)
@pytest.mark.parametrize('inner', [joined(digits()), repeated(digits()), balanced(digits())])
def test_what_cannot_be_divided(wrapper, name, inner):
    with pytest.raises(
        UserError,
        match=f'^{name}: images cannot be drawn '
        f'.*{inner["type"]}, which wraps datasets: put {name} inside it',
    ):
        DATASETS.build(wrapper(inner))


@pytest.mark.parametrize('wrapper', [repeated, balanced])
def test_repeated_images_in_a_concatenation(wrapper):
    with pytest.raises(UserError, match='Put the wrapper around Concat'):
        DATASETS.build(joined(digits(), wrapper(digits())))


@pytest.mark.parametrize('few', [digits(indices=list(range(150))), digits()])
def test_validation_on_what_is_left(few):
    """Validation parts of two datasets state the sum of the training parts."""
    train = DATASETS.build(joined(part(digits()), part(few)))
    val = DATASETS.build(joined(part(digits(), True), part(few, True)))
    assert stated_counts(val) == counted(train)
    train = DATASETS.build(joined(fold(digits()), fold(few)))
    val = DATASETS.build(joined(fold(digits(), test_mode=True), fold(few, test_mode=True)))
    assert stated_counts(val) == counted(train)


def test_folds_of_a_data_set():
    dataset = KFoldDataset(DigitsLT(), fold=2, num_splits=3)
    assert get_class_counts(dataset) == counted(dataset)
    for wrong in (dict(fold=3), dict(fold=-1), dict(num_splits=1)):
        with pytest.raises(UserError, match='a fold counted from 0'):
            KFoldDataset(digits(), **dict(dict(num_splits=3), **wrong))
