import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS

import ride_mm.datasets  # noqa: F401
from ride_mm.datasets.annotations import read_annotations
from ride_mm.datasets.augmentation_seeds import SeededDataset
from ride_mm.datasets.class_counts import (
    count_labels,
    get_class_counts,
    get_labels,
    read_class_counts,
)
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.structures import check_class_counts
from ride_mm.utils.errors import UserError

LISTS = Path(__file__).parents[3] / 'shared' / 'data' / 'annotations'
real_lists = pytest.mark.skipif(not LISTS.is_dir(), reason='the real annotation lists are not here')


class PlainDataset(BaseDataset):
    """A dataset without `get_gt_labels`."""

    def __init__(self, labels, **kwargs):
        self.labels = labels
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(gt_label=label) for label in self.labels]

    def get_cat_ids(self, idx):
        labels = self.get_data_info(idx)['gt_label']
        return labels if isinstance(labels, list) else [labels]


@pytest.mark.parametrize(
    'labels', [[0, 2, 2], np.array([2, 0, 2]), torch.tensor([2, 2, 0], dtype=torch.uint8)]
)
def test_count_labels(labels):
    counts = count_labels(labels, 4)
    assert counts == [1, 0, 2, 0]
    assert all(type(count) is int for count in counts)


def test_count_labels_of_nothing():
    assert count_labels([], 2) == [0, 0]


@pytest.mark.parametrize(
    'labels, message',
    [
        (
            [0, 3, 5],
            r'2 of 3 labels are outside \[0, 3\): the first is 3, at '
            'position 1',
        ),
        ([0, -1], r'the first is -1, at position 1'),
        ([0.5], 'must be integers, found the type float64'),
    ],
)
def test_count_labels_errors(labels, message):
    with pytest.raises(ValueError, match=message):
        count_labels(labels, 3)


def test_groups_ends():
    masks = ClassGroups([101, 100, 20, 19, 0]).masks
    assert list(masks) == ['many', 'medium', 'few']
    assert masks['many'].tolist() == [True, False, False, False, False]
    assert masks['medium'].tolist() == [False, True, True, False, False]
    assert masks['few'].tolist() == [False, False, False, True, True]
    assert all(mask.dtype == bool for mask in masks.values())


def test_groups_leaves_out_empty_groups():
    assert list(ClassGroups([200, 5]).masks) == ['many', 'few']
    assert list(ClassGroups([200, 5], (1, 1000)).masks) == ['medium']


def test_groups_by_name():
    counts = [101, 100, 99, 21, 20, 19]
    named = {
        name: [mask.tolist() for mask in ClassGroups(counts, name).masks.values()]
        for name in ('ride', 'ride-swin')
    }
    assert named['ride'] == [
        [n > 100 for n in counts],
        [20 <= n <= 100 for n in counts],
        [n < 20 for n in counts],
    ]
    # As in the official code of RIDE-Swin: >= 100 / 20 < n < 100 / <= 20
    assert named['ride-swin'] == [
        [n >= 100 for n in counts],
        [20 < n < 100 for n in counts],
        [n <= 20 for n in counts],
    ]


def test_groups_of_thirds():
    masks = ClassGroups([1, 9, 5, 5, 5, 2, 7], 'thirds').masks
    classes = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    assert {name: found.tolist() for name, found in classes.items()} == dict(
        many=[1, 2, 6], medium=[3, 4], few=[0, 5]
    )
    assert list(ClassGroups([3, 1], 'thirds').masks) == ['many', 'medium']


@pytest.mark.parametrize(
    'thresholds, message',
    [
        ((100, 20), 'thresholds must be two class sizes'),
        ((20,), 'two class sizes'),
        ((1, 2, 3), 'two class sizes'),
        ((-1, 2), '0 <= low'),
        ('rides', '"rides" is unknown.*Did you mean \'ride\''),
    ],
)
def test_groups_thresholds(thresholds, message):
    with pytest.raises(UserError, match=message):
        ClassGroups([1, 2], thresholds).masks


def test_check_class_counts():
    check_class_counts([1, 2], 2)
    with pytest.raises(ValueError, match='has 2 entries, but there are 3'):
        check_class_counts([1, 2], 3)
    with pytest.raises(ValueError, match='2 of 3 classes have no training image: 0, 2$'):
        check_class_counts([0, 2, 0], 3)


@pytest.mark.parametrize(
    'content',
    [
        [3, 1, 0],
        dict(class_counts=[3, 1, 0]),
        dict(counts=[3, 1, 0], other=1),
    ],
)
def test_read_class_counts_json(tmp_path, content):
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(content))
    assert read_class_counts(str(path)) == [3, 1, 0]
    assert read_class_counts(str(path), 3) == [3, 1, 0]
    with pytest.raises(
        ValueError,
        match=r'counts.json: expected counts of 4 classes, '
        'found 3',
    ):
        read_class_counts(str(path), 4)


@pytest.mark.parametrize('content', [[], {}, [1.5], [True], [-1], 3, ['1'], None])
def test_read_class_counts_bad_json(tmp_path, content):
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='counts.json: expected a list of'):
        read_class_counts(str(path))


@pytest.mark.parametrize('content', [b'[1, 2', b'\xff', b'[' * 99999])
def test_read_class_counts_damaged_json(tmp_path, content):
    path = tmp_path / 'counts.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match='counts.json cannot be read'):
        read_class_counts(str(path))


def test_read_class_counts_list(tmp_path):
    path = tmp_path / 'train.txt'
    path.write_text('a.jpg 0\nb.jpg 2\nc.jpg 2\n')
    assert read_class_counts(str(path)) == [1, 0, 2]
    assert read_class_counts(str(path), 4) == [1, 0, 2, 0]
    with pytest.raises(
        ValueError,
        match=r'train.txt, line 2: expected a '
        'label between 0 and 1, found 2',
    ):
        read_class_counts(str(path), 2)


def test_read_annotations(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(b'\xef\xbb\xbfa/my image 1.jpg 0\r\n\n  b.jpg\t12  \n')
    paths, labels, lines = read_annotations(str(path))
    assert paths == ['a/my image 1.jpg', 'b.jpg']
    assert labels == [0, 12]
    assert lines == [1, 3]


@pytest.mark.parametrize(
    'text, message',
    [
        ('a.jpg 0\n\nb.jpg\n', "line 3: expected a path, a space and a label, found 'b.jpg'"),
        ('a.jpg 0.5\n', "line 1: expected an integer label after the last space, found '0.5'"),
        ('a.jpg -1\n', 'line 1: expected a label of at least 0, found -1'),
        ('\n \n', 'the list is empty'),
    ],
)
def test_read_annotations_errors(tmp_path, text, message):
    path = tmp_path / 'list.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'list.txt.*{message}'):
        read_annotations(str(path))


@real_lists
@pytest.mark.parametrize(
    'name, num_classes, num_images, per_class',
    [
        ('ImageNet_LT_val', 1000, 20000, {20}),
        ('ImageNet_LT_test', 1000, 50000, {50}),
        ('Places_LT_val', 365, 7300, {20}),
        ('Places_LT_test', 365, 36500, {100}),
        ('iNaturalist18_val', 8142, 24426, {3}),
    ],
)
def test_real_lists(name, num_classes, num_images, per_class):
    path = str(LISTS / f'{name}.txt')
    paths, labels, lines = read_annotations(path, num_classes)
    assert lines == list(range(1, num_images + 1))
    assert len(set(paths)) == len(paths)
    assert min(labels) == 0 and max(labels) == num_classes - 1
    assert set(read_class_counts(path)) == per_class


@real_lists
@pytest.mark.parametrize(
    'name, num_images, largest, groups',
    [
        ('ImageNet_LT_train_counts.json', 115846, 1280, (385, 479, 136)),
        ('Places_LT_train.txt', 62500, 4980, (131, 163, 71)),
    ],
)
def test_real_training_counts(name, num_images, largest, groups):
    counts = read_class_counts(str(LISTS / name))
    assert (sum(counts), max(counts), min(counts)) == (num_images, largest, 5)
    sizes = tuple(int(mask.sum()) for mask in ClassGroups(counts).masks.values())
    assert sizes == groups


def _labels_one_by_one(dataset):
    return [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]


def test_labels_of_wrappers():
    plain = PlainDataset([0, 0, 0, 0, 1, 2])
    other = PlainDataset([2, 1])
    repeat = RepeatDataset(plain, 3)
    balanced = ClassBalancedDataset(plain, oversample_thr=0.9)
    concat = ConcatDataset([plain, other])
    assert len(balanced) > len(plain)
    for dataset in (plain, repeat, balanced, concat, SeededDataset(concat)):
        labels = get_labels(dataset)
        assert labels.dtype == np.int64
        assert labels.tolist() == _labels_one_by_one(dataset)
    assert get_class_counts(concat) == [4, 2, 2]
    assert get_class_counts(repeat) == [12, 3, 3]


@pytest.mark.parametrize('test_mode', [False, True])
def test_labels_of_folds(test_mode):
    fold = DATASETS.build(
        dict(
            type='KFoldDataset',
            dataset=dict(type='DigitsLT'),
            fold=1,
            num_splits=3,
            test_mode=test_mode,
            seed=0,
        )
    )
    assert len(fold) in (146, 292)
    assert get_labels(fold).tolist() == _labels_one_by_one(fold)


def test_labels_of_nested_wrappers():
    # mmengine's wrappers build from its root registry; a runner's default scope is ours.
    repeat = dict(
        type='RepeatDataset', times=2, dataset=dict(type='DigitsLT'), _scope_='mmpretrain'
    )
    fold = dict(type='KFoldDataset', dataset=dict(type='DigitsLT'))
    nested = ConcatDataset(
        [DATASETS.build(dict(type='DigitsLT')), DATASETS.build(dict(type='DigitsLT'))]
    )
    for dataset in (DATASETS.build(repeat), DATASETS.build(fold), nested):
        assert get_labels(dataset).tolist() == _labels_one_by_one(dataset)
    assert get_class_counts(DATASETS.build(repeat))[0] == 130
    # The first of five folds has images of class 0 only.
    assert get_class_counts(DATASETS.build(fold))[0] == 130 - 438 // 5


def test_labels_errors():
    with pytest.raises(TypeError, match='list has neither get_gt_labels'):
        get_labels([1, 2])
    with pytest.raises(ValueError, match='Image 1 of PlainDataset has 2'):
        get_labels(PlainDataset([0, [0, 1]]))


def test_class_counts_of_classes_without_images():
    dataset = PlainDataset([0, 2], metainfo=dict(classes=tuple('abcd')))
    assert get_class_counts(dataset) == [1, 0, 1, 0]


def test_class_counts_of_lazy_wrapped_dataset():
    lazy = DATASETS.build(dict(type='DigitsLT', lazy_init=True))
    lazy._metainfo.pop('class_counts')
    wrapper = RepeatDataset(lazy, 2)
    lazy._metainfo['class_counts'] = [7] * 10
    assert 'class_counts' not in wrapper.metainfo
    assert get_class_counts(wrapper) == [7] * 10


def test_class_counts_of_differing_parts():
    parts = [
        PlainDataset([0, 1], metainfo=dict(class_counts=[1, 1])),
        PlainDataset([0, 0], metainfo=dict(class_counts=[2, 0])),
    ]
    concat = ConcatDataset(parts, ignore_keys='class_counts')
    assert get_class_counts(concat) == [3, 1]
    assert get_class_counts(SeededDataset(concat)) == [3, 1]
    assert get_class_counts(ConcatDataset([parts[0]] * 2)) == [1, 1]


@pytest.mark.parametrize('labels', [[[0, 1], [2]], [[0], [1]], [0, None]])
def test_data_of_several_labels_or_none(labels):
    images = [dict(img_path='a.png', gt_label=label) for label in labels]
    dataset = MultiLabelDataset(ann_file='', lazy_init=True)
    dataset.load_data_list = lambda: images
    with pytest.raises(ValueError, match='MultiLabelDataset: expected one label, a whole number'):
        get_labels(dataset)
