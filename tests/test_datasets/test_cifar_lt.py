import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets import CIFAR100
from mmpretrain.registry import DATASETS

from ride_mm.datasets import CIFAR10LT, CIFAR100LT, cifar_lt
from ride_mm.datasets.class_counts import count_labels
from ride_mm.utils.errors import UserError

REAL = Path(__file__).parents[3] / 'shared' / 'data' / 'cifar100.py'
TINY = 20


def _write(path, labels, key):
    rng = np.random.default_rng(len(labels))
    data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    path.write_bytes(pickle.dumps({'data': data, key: list(labels)}))
    return data


@pytest.fixture
def tiny_cifar10(tmp_path, monkeypatch):
    """Five training files of 40 images, with 20 images per class in total."""
    monkeypatch.setattr(CIFAR10LT, 'max_count', TINY)
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), TINY)).reshape(5, -1)
    data = [_write(folder / f'data_batch_{i + 1}', labels[i].tolist(), 'labels') for i in range(5)]
    _write(folder / 'test_batch', list(range(10)) * 2, 'labels')
    return str(tmp_path), np.concatenate(data), labels.reshape(-1)


@pytest.fixture(scope='session')
def real_cifar100(tmp_path_factory):
    if not REAL.is_file():
        pytest.skip('the real CIFAR-100 is not here')
    root = tmp_path_factory.mktemp('cifar100')
    subprocess.run([sys.executable, str(REAL), 'unpack', str(root)], check=True)
    return str(root)


def _plain_subset(labels, counts, seed=0):
    np.random.seed(seed)
    chosen = []
    for c, count in enumerate(counts):
        indices = np.where(np.array(labels) == c)[0]
        np.random.shuffle(indices)
        chosen.extend(indices[:count].tolist())
    return chosen


@pytest.mark.parametrize('serialize_data', [True, False])
def test_subset_over_several_files(tiny_cifar10, serialize_data):
    root, data, labels = tiny_cifar10
    dataset = DATASETS.build(
        dict(
            type='CIFAR10LT',
            data_root=root,
            imb_factor=0.1,
            check_integrity=False,
            subset_seed=3,
            serialize_data=serialize_data,
        )
    )
    counts = [int(TINY * 0.1 ** (c / 9)) for c in range(10)]
    chosen = _plain_subset(labels, counts, seed=3)
    assert dataset.metainfo['class_counts'] == counts
    assert dataset.get_gt_labels().tolist() == labels[chosen].tolist()
    for i, index in enumerate(chosen):
        info = dataset.get_data_info(i)
        assert info['gt_label'] == labels[index]
        assert info['img'].dtype == np.uint8
        np.testing.assert_array_equal(
            info['img'], data[index].reshape(3, 32, 32).transpose(1, 2, 0)
        )


def test_images_of_others_are_not_kept(tiny_cifar10):
    dataset = CIFAR10LT(
        tiny_cifar10[0], imb_factor=0.1, check_integrity=False, serialize_data=False
    )
    base = dataset.data_list[0]['img']
    while base.base is not None:
        base = base.base
    assert base.size == len(dataset) * 3072


def test_bgr(tiny_cifar10):
    root, _, _ = tiny_cifar10
    options = dict(data_root=root, check_integrity=False, imb_factor=0.5)
    rgb, bgr = CIFAR10LT(**options), CIFAR10LT(to_bgr=True, **options)
    assert np.array_equal(rgb[3]['img'], bgr[3]['img'][..., ::-1])
    assert not np.array_equal(rgb[3]['img'], bgr[3]['img'])


def test_test_split_is_complete_and_states_training_counts(tiny_cifar10):
    dataset = CIFAR10LT(
        tiny_cifar10[0], split='test', imb_type='step', imb_factor=0.1, check_integrity=False
    )
    assert dataset.get_gt_labels().tolist() == list(range(10)) * 2
    assert dataset.metainfo['class_counts'] == [20] * 5 + [2] * 5
    assert dataset.CLASSES[0] == 'airplane'
    assert 'step, imb_factor=0.1' in repr(dataset)


def test_unused_split_is_the_rest_of_the_training_images(tiny_cifar10):
    root, data, labels = tiny_cifar10
    options = dict(data_root=root, imb_factor=0.1, subset_seed=2, check_integrity=False)
    train, unused = CIFAR10LT(**options), CIFAR10LT(split='unused', **options)
    chosen = set(_plain_subset(labels, train.metainfo['class_counts'], seed=2))
    rest = [i for i in range(len(labels)) if i not in chosen]
    images = np.stack([unused[i]['img'] for i in range(len(unused))])
    np.testing.assert_array_equal(images, data[rest].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert unused.get_gt_labels().tolist() == [labels[i] for i in rest]
    assert unused.metainfo['class_counts'] == train.metainfo['class_counts']
    lazy = CIFAR10LT(split='unused', lazy_init=True, **options)
    assert len(lazy) == len(rest) and 'Split: \tunused' in repr(lazy)


def test_unknown_split(tiny_cifar10):
    with pytest.raises(UserError, match="CIFAR10LT: split must be one of .*, found 'val'"):
        CIFAR10LT(tiny_cifar10[0], split='val')


def test_options_of_the_base(tiny_cifar10):
    options = dict(data_root=tiny_cifar10[0], imb_factor=0.1, check_integrity=False)
    whole = CIFAR10LT(**options)
    lazy = CIFAR10LT(lazy_init=True, **options)
    assert lazy.metainfo['class_counts'] == whole.metainfo['class_counts']
    assert not lazy._fully_initialized
    assert lazy.get_gt_labels().tolist() == whole.get_gt_labels().tolist()

    part = CIFAR10LT(indices=7, **options)
    assert part.get_gt_labels().tolist() == whole.get_gt_labels()[:7].tolist()
    last = CIFAR10LT(indices=-7, serialize_data=False, **options)
    assert last.get_gt_labels().tolist() == whole.get_gt_labels()[-7:].tolist()


@pytest.mark.parametrize('serialize_data', [True, False])
@pytest.mark.parametrize('indices', [5, -5, [3, 0, 30]])
def test_labels_of_subsets(tiny_cifar10, serialize_data, indices):
    dataset = CIFAR10LT(
        tiny_cifar10[0], imb_factor=0.1, check_integrity=False, serialize_data=serialize_data
    )
    before = dataset.get_gt_labels()
    subset = dataset.get_subset(indices)
    expected = [subset.get_data_info(i)['gt_label'] for i in range(len(subset))]
    assert subset.get_gt_labels().tolist() == expected
    assert [subset.get_cat_ids(i)[0] for i in range(len(subset))] == expected
    assert dataset.get_gt_labels().tolist() == before.tolist()
    dataset.get_subset_(indices)
    assert dataset.get_gt_labels().tolist() == expected


def test_smaller_largest_class(tiny_cifar10):
    root, data, labels = tiny_cifar10
    options = dict(data_root=root, imb_factor=0.2, check_integrity=False)
    dataset = CIFAR10LT(max_count=12, subset_seed=3, **options)
    counts = [int(12 * 0.2 ** (c / 9)) for c in range(10)]
    chosen = _plain_subset(labels, counts, seed=3)
    assert dataset.metainfo['class_counts'] == counts
    images = [dataset[i]['img'] for i in range(len(dataset))]
    np.testing.assert_array_equal(images, data[chosen].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    test = CIFAR10LT(split='test', max_count=12, **options)
    assert test.metainfo['class_counts'] == counts and len(test) == 20
    assert 'exp, imb_factor=0.2, max_count=12' in repr(test)
    # The default is all of them.
    assert CIFAR10LT(**options).metainfo['class_counts'][0] == TINY


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(max_count=5001), 'max_count .* from 1 to 5000, found 5001'),
        (dict(max_count=0), 'from 1 to 5000, found 0'),
        (dict(imb_factor=0.0001), '5000 images .* at least 0.0002'),
    ],
)
def test_profile_errors_come_before_any_download(options, message):
    with pytest.raises(ValueError, match=message):
        CIFAR10LT(data_root='nowhere', **options)


def test_data_not_found(tmp_path):
    with pytest.raises(
        UserError,
        match=r'CIFAR100LT: no data in .*cifar-100-python '
        r'\(`download=False`\). Set `data_root` .* `download=True`.*'
        'unpack https://.*cifar-100-python.tar.gz into',
    ):
        CIFAR100LT(data_root=str(tmp_path), download=False)


def test_failed_download(tmp_path, monkeypatch):

    def fail(*args, **kwargs):
        raise OSError('no route')

    monkeypatch.setattr(cifar_lt, 'download_and_extract_archive', fail)
    with pytest.raises(UserError, match='download failed: no route'):
        CIFAR10LT(data_root=str(tmp_path))


def test_download_when_files_are_missing(tiny_cifar10, tmp_path, monkeypatch):
    folder = tmp_path / 'cifar-10-batches-py'
    packed = (folder / 'test_batch').read_bytes()
    (folder / 'test_batch').unlink()
    calls = []

    def download(url, root, filename, md5):
        calls.append((url, root.rstrip('/'), filename, md5))
        (folder / 'test_batch').write_bytes(packed)

    monkeypatch.setattr(cifar_lt, 'download_and_extract_archive', download)
    dataset = CIFAR10LT(str(tmp_path), split='test', imb_factor=0.1, check_integrity=False)
    assert len(dataset) == 20
    assert calls == [(CIFAR10LT.url, str(tmp_path), CIFAR10LT.filename, CIFAR10LT.tgz_md5)]


def test_incomplete_download(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_lt, 'download_and_extract_archive', lambda *args, **kwargs: None)
    with pytest.raises(UserError, match='data_batch_1.* missing'):
        CIFAR10LT(str(tmp_path), check_integrity=False)


def test_repacked_copy_is_not_overwritten(tiny_cifar10, monkeypatch):
    monkeypatch.setattr(cifar_lt, 'download_and_extract_archive', None)
    with pytest.raises(UserError, match='MD5 sums differ.*`check_integrity=False`'):
        CIFAR10LT(tiny_cifar10[0], imb_factor=0.1)


def test_incomplete_data(tiny_cifar10, monkeypatch):
    monkeypatch.setattr(CIFAR10LT, 'max_count', 30)
    with pytest.raises(ValueError, match='Class 0 has 20 images, but 30 are'):
        CIFAR10LT(tiny_cifar10[0], imb_factor=0.1, check_integrity=False)


def test_real_cifar100(real_cifar100, monkeypatch):
    dataset = CIFAR100LT(real_cifar100, check_integrity=False)
    counts = [int(500 * 0.01 ** (c / 99.0)) for c in range(100)]
    labels = dataset.get_gt_labels()
    assert len(dataset) == 10847
    assert count_labels(labels, 100) == counts
    assert (np.diff(labels) >= 0).all()

    monkeypatch.setattr(CIFAR100, '_check_integrity', lambda self: True)
    base = CIFAR100(real_cifar100, serialize_data=False)
    all_labels = [info['gt_label'] for info in base.data_list]
    chosen = _plain_subset(all_labels, counts)
    for i in range(0, 10847, 97):
        np.testing.assert_array_equal(
            dataset.get_data_info(i)['img'], base.data_list[chosen[i]]['img']
        )
    assert labels.tolist() == [all_labels[i] for i in chosen]


def test_real_cifar100_test_split(real_cifar100):
    dataset = CIFAR100LT(real_cifar100, split='test', check_integrity=False)
    assert count_labels(dataset.get_gt_labels(), 100) == [100] * 100
    assert sum(dataset.metainfo['class_counts']) == 10847


def test_real_cifar100_unused_split(real_cifar100):
    dataset = CIFAR100LT(real_cifar100, split='unused', check_integrity=False)
    counts = [int(500 * 0.01 ** (c / 99.0)) for c in range(100)]
    assert len(dataset) == 39153
    assert count_labels(dataset.get_gt_labels(), 100) == [500 - count for count in counts]
    assert dataset.metainfo['class_counts'] == counts


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(extra=Attack), 'needs `_?io.open`, which is not plain data'),
        (dict(data=None), 'expected `data` of shape'),
        (dict(data=np.zeros((2, 3072))), r'expected `data` of shape \(\d+, 3072'),
        (dict(labels='abc'), 'not a list of whole numbers'),
        (dict(labels=[1.5]), 'not a list of whole numbers'),
        (dict(labels=[99]), 'expected `data` of shape|label 99 is outside'),
        (None, 'truncated'),
    ],
)
def test_files_of_others_run_no_code(tiny_cifar10, tmp_path, change, message):
    """Not even without checksums."""
    root, _, _ = tiny_cifar10
    file = next(tmp_path.rglob('data_batch_1'))
    batch = pickle.loads(file.read_bytes())
    if change is None:
        file.write_bytes(file.read_bytes()[:-9])
    else:
        change = {
            key: Attack(tmp_path / 'trace') if value is Attack else value
            for key, value in change.items()
        }
        file.write_bytes(pickle.dumps(dict(batch, **change)))
    with pytest.raises(UserError, match=f'data_batch_1 is not.*{message}'):
        CIFAR10LT(data_root=root, imb_factor=1.0, check_integrity=False)
    assert not (tmp_path / 'trace').exists()
