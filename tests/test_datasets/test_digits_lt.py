import sys

import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from ride_mm.datasets import DigitsLT
from ride_mm.datasets.class_counts import count_labels
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.utils.errors import UserError

load_digits = pytest.importorskip('sklearn.datasets').load_digits


def _pixels(dataset):
    return [dataset.get_data_info(i)['img'].tobytes() for i in range(len(dataset))]


def test_default_profile_has_all_groups():
    dataset = DATASETS.build(dict(type='DigitsLT'))
    counts = [130, 93, 66, 47, 34, 24, 17, 12, 9, 6]
    assert dataset.metainfo['class_counts'] == counts
    assert count_labels(dataset.get_gt_labels(), 10) == counts
    sizes = {k: int(m.sum()) for k, m in ClassGroups(counts).masks.items()}
    assert sizes == dict(many=1, medium=5, few=4)


def test_test_split_is_fixed_and_balanced():
    test = DigitsLT(split='test')
    assert count_labels(test.get_gt_labels(), 10) == [44] * 10
    assert test.metainfo['class_counts'] == DigitsLT().metainfo['class_counts']
    other = DigitsLT(split='test', imb_factor=1, subset_seed=7)
    assert _pixels(test) == _pixels(other)


def test_splits_do_not_share_scans():
    images = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    rows, times = np.unique(images.reshape(1797, -1), axis=0, return_counts=True)
    assert times.max() == 1 and len(rows) == 1797
    train = _pixels(DigitsLT(imb_factor=1))
    test = _pixels(DigitsLT(split='test'))
    assert len(set(train)) == 1300
    assert not set(train) & set(test)


@pytest.mark.parametrize('imb_type', ['exp', 'step'])
def test_images_are_the_scans(imb_type):
    digits = load_digits()
    dataset = DigitsLT(imb_type=imb_type, imb_factor=0.1, subset_seed=2)
    known = {
        (image * 255 / 16).round().astype(np.uint8).tobytes(): target
        for image, target in zip(digits.images, digits.target)
    }
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        assert info['img'].shape == (8, 8, 3)
        assert info['img'].dtype == np.uint8
        assert (info['img'] == info['img'][..., :1]).all()
        grey = np.ascontiguousarray(info['img'][..., 0])
        assert known[grey.tobytes()] == info['gt_label']


def test_largest_class_and_seeds():
    whole = DigitsLT(imb_factor=1)
    assert whole.metainfo['class_counts'] == [130] * 10
    assert whole.get_data_info(0)['img'].max() == 255
    assert _pixels(DigitsLT(subset_seed=1)) == _pixels(DigitsLT(subset_seed=1))
    assert _pixels(DigitsLT(subset_seed=1)) != _pixels(DigitsLT())


def test_smaller_largest_class():
    counts = [int(78 * 0.05 ** (c / 9)) for c in range(10)]
    train, test = (DigitsLT(split, max_count=78) for split in ('train', 'test'))
    assert train.metainfo['class_counts'] == counts
    assert count_labels(train.get_gt_labels(), 10) == counts
    assert test.metainfo['class_counts'] == counts and len(test) == 440
    # Subsets differ in the largest class as well.
    seeds = [set(_pixels(DigitsLT(max_count=78, subset_seed=i))[:78]) for i in range(2)]
    assert len(seeds[0] - seeds[1]) > 10


def test_pipeline_gets_the_image():
    dataset = DigitsLT(pipeline=[dict(type='Resize', scale=16), dict(type='PackInputs')])
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 16, 16)
    assert sample['data_samples'].gt_label.tolist() == [0]
    assert 'exp, imb_factor=0.05, max_count=130' in repr(dataset)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(split='val'), "split must be 'train' or 'test', found 'val'"),
        (dict(imb_type='x'), "imb_type must be 'exp' or 'step', found 'x'"),
        (dict(imb_factor=0), 'imb_factor'),
        (dict(max_count=131), 'from 1 to 130, found 131'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        DigitsLT(**options)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(UserError, match='pip install scikit-learn'):
        DigitsLT()
