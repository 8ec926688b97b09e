import json
import os
import shutil
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from ride_mm.datasets import ImageNetLT, INaturalist2018, LongTailList, PlacesLT, list_lt
from ride_mm.datasets import folders as folders_module
from ride_mm.datasets.class_counts import get_class_counts
from ride_mm.datasets.folders import EXTENSIONS
from ride_mm.datasets.list_lt import find_missing
from ride_mm.utils.errors import UserError, find_places

LISTS = Path(__file__).parents[3] / 'shared' / 'data' / 'annotations'
real_lists = pytest.mark.skipif(not LISTS.is_dir(), reason='the real annotation lists are not here')


def _images(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        mmcv.imwrite(np.full((4, 5, 3), 7, np.uint8), str(root / path))


def _write(path, *lines):
    path.write_text('\n'.join(lines) + '\n')


@pytest.fixture
def root(tmp_path):
    """Two lists of six images, three classes with 3, 1 and 1 training images."""
    _images(tmp_path, 'a/0.png', 'a/my image.png', 'b/0.png', 'b/1.png', 'b/2.png', 'top.png')
    _write(
        tmp_path / 'train.txt',
        'a/0.png 0',
        'a/my image.png 0',
        'b/0.png 1',
        'b/1.png 2',
        'top.png 0',
    )
    _write(tmp_path / 'val.txt', 'b/2.png 1', 'a/0.png 0')
    (tmp_path / 'counts.json').write_text(json.dumps([30, 20, 10]))
    return tmp_path


@pytest.fixture
def folders(tmp_path):
    _images(
        tmp_path,
        'train/cat/0.png',
        'train/cat/1.png',
        'train/dog/deep/0.png',
        'val/cat/5.png',
        'val/dog/5.png',
    )
    return tmp_path


def _load(root, **options):
    return LongTailList(data_root=str(root), **options)


def test_training_list(root):
    dataset = DATASETS.build(dict(type='LongTailList', data_root=str(root), ann_file='train.txt'))
    assert dataset.get_gt_labels().tolist() == [0, 0, 1, 2, 0]
    assert dataset.metainfo['class_counts'] == [3, 1, 1]
    info = dataset.get_data_info(1)
    assert info['img_path'] == str(root / 'a/my image.png')
    assert mmcv.imread(info['img_path']).shape == (4, 5, 3)


@pytest.mark.parametrize(
    'class_counts, expected',
    [
        ('train.txt', [3, 1, 1]),
        ('counts.json', [30, 20, 10]),
        ([9, 8, 7], [9, 8, 7]),
        (np.array([9, 8, 7]), [9, 8, 7]),
    ],
)
def test_validation_list(root, class_counts, expected):
    dataset = _load(root, ann_file='val.txt', class_counts=class_counts)
    counts = dataset.metainfo['class_counts']
    assert counts == expected
    assert all(type(count) is int for count in counts)
    assert dataset.get_gt_labels().tolist() == [1, 0]


def test_absolute_paths_and_prefix(root, tmp_path_factory):
    lists = tmp_path_factory.mktemp('lists')
    for name in ('train.txt', 'val.txt'):
        shutil.move(str(root / name), str(lists / name))
    dataset = LongTailList(
        data_root=str(root.parent),
        data_prefix=root.name,
        ann_file=str(lists / 'val.txt'),
        class_counts=str(lists / 'train.txt'),
    )
    assert dataset.metainfo['class_counts'] == [3, 1, 1]


@pytest.mark.parametrize('serialize_data', [True, False])
def test_options_of_the_base(root, serialize_data):
    options = dict(ann_file='train.txt', serialize_data=serialize_data)
    lazy = _load(root, lazy_init=True, **options)
    assert 'class_counts' not in lazy.metainfo
    lazy.full_init()
    assert lazy.metainfo['class_counts'] == [3, 1, 1]
    part = _load(root, indices=[4, 3], **options)
    assert part.get_gt_labels().tolist() == [0, 2]
    assert part.metainfo['class_counts'] == [1, 0, 1]
    assert part.get_cat_ids(1) == [2]
    assert lazy.get_subset(2).get_gt_labels().tolist() == [0, 0]


def test_label_beyond_the_training_classes(root):
    _write(root / 'val.txt', 'a/0.png 0', 'b/0.png 3')
    for class_counts in ('train.txt', 'counts.json', [1, 2, 3]):
        with pytest.raises(ValueError, match='val.txt, line 2: .* found 3'):
            _load(root, ann_file='val.txt', class_counts=class_counts)


def test_label_beyond_the_class_names(root):
    with pytest.raises(ValueError, match='line 4: .* between 0 and 1'):
        _load(root, ann_file='train.txt', metainfo=dict(classes=('x', 'y')))


def test_absent_files(root):
    with pytest.raises(UserError, match='Annotation list not found: .*none.txt'):
        _load(root, ann_file='none.txt')
    with pytest.raises(UserError, match='Class counts not found: .*none.txt'):
        _load(root, ann_file='val.txt', class_counts='none.txt')


def test_missing_images(root):
    (root / 'b/0.png').unlink()
    (root / 'top.png').unlink()
    with pytest.raises(
        UserError,
        match='train.txt: 2 of 5 images are not in .* The first is that '
        'of line 3: b/0.png. Check `data_root` and `data_prefix`.',
    ):
        _load(root, ann_file='train.txt')


def test_wrong_prefix(root):
    with pytest.raises(
        UserError, match='5 of 5 images are not in .*images. The first is that of line 1: a/0.png'
    ):
        _load(root, ann_file='train.txt', data_prefix='images')


def test_find_missing(root, monkeypatch):
    paths = ['none/1.png', 'a/0.png', 'top.png/0.png', 'a/9.png', str(root / 'a/0.png'), 'top.png']
    assert find_missing(str(root), paths) == [0, 2, 3]
    monkeypatch.chdir(root)
    assert find_missing('', ['top.png', 'a/0.png', 'no.png']) == [2]


def test_each_folder_is_read_once(root, monkeypatch):
    folders = []
    scandir = os.scandir
    monkeypatch.setattr(os, 'scandir', lambda path: folders.append(path) or scandir(path))
    assert find_missing(str(root), ['a/0.png', 'b/0.png'] * 50) == []
    assert len(folders) == 2


def test_classes_without_training_images(root):
    with pytest.raises(
        ValueError,
        match=r'train.txt: 2 of 5 classes have no training image: 3, 4. '
        r'If this is not the training set, .*`class_counts`=',
    ):
        _load(root, ann_file='train.txt', num_classes=5)
    with pytest.raises(ValueError, match=r'no training image: 3 \(w\)\. If'):
        _load(root, ann_file='train.txt', metainfo=dict(classes=('x', 'y', 'z', 'w')))
    with pytest.raises(ValueError, match='train.txt: 1 of 4 classes have no .*: 3$'):
        _load(root, ann_file='val.txt', class_counts='train.txt', num_classes=4)
    with pytest.raises(ValueError, match='1 of 3 classes have no .*: 1$'):
        _load(root, ann_file='val.txt', class_counts=[1, 0, 2])


def test_numbers_of_classes_that_differ(root):
    with pytest.raises(ValueError, match='counts.json: expected counts of 4 classes, found 3'):
        _load(root, ann_file='val.txt', class_counts='counts.json', num_classes=4)
    with pytest.raises(ValueError, match='2 entries, but there are 3'):
        _load(root, ann_file='val.txt', class_counts=[1, 2], num_classes=3)
    with pytest.raises(ValueError, match='num_classes=3, but `metainfo` names 2 classes'):
        _load(root, ann_file='val.txt', num_classes=3, metainfo=dict(classes=('x', 'y')))


def test_class_folders(folders):
    train = _load(folders, data_prefix='train')
    assert train.CLASSES == ('cat', 'dog')
    assert train.metainfo['class_counts'] == [2, 1]
    assert train.get_gt_labels().tolist() == [0, 0, 1]
    assert train.get_data_info(2)['img_path'] == str(folders / 'train/dog/deep/0.png')
    for counts in ('train', str(folders / 'train'), [2, 1]):
        val = _load(folders, data_prefix='val', class_counts=counts)
        assert val.metainfo['class_counts'] == [2, 1]
        assert val.CLASSES == ('cat', 'dog')


def test_class_folders_with_own_names(folders):
    train = _load(folders, data_prefix='train', metainfo=dict(classes=('Katze', 'Hund')))
    assert train.CLASSES == ('Katze', 'Hund')


def test_class_folders_that_differ(folders):
    _images(folders, 'val/eel/0.png')
    shutil.rmtree(folders / 'val/dog')
    with pytest.raises(
        ValueError,
        match='class folders of .*val are not those of '
        '.*train: missing dog; not in the training folder '
        'eel$',
    ):
        _load(folders, data_prefix='val', class_counts='train')


def test_folder_not_found(folders):
    for options in (dict(data_prefix='nope'), dict(data_prefix='val', class_counts='nope')):
        with pytest.raises(UserError, match='ot found: .*nope'):
            _load(folders, **options)


def test_folder_without_classes_or_images(folders):
    with pytest.raises(ValueError, match='cat has no sub-folder: expected one per class'):
        _load(folders, data_prefix='train/cat')
    (folders / 'empty/x').mkdir(parents=True)
    (folders / 'empty/x/notes.txt').write_text('')
    with pytest.raises(ValueError, match='none of its 1 sub-'):
        _load(folders, data_prefix='empty')


def test_class_folder_without_images(folders):
    (folders / 'train/eel').mkdir()
    with pytest.raises(
        ValueError,
        match=r'train: 1 of 3 classes have no training image: '
        r'2 \(eel\)\. If this is not',
    ):
        _load(folders, data_prefix='train')
    (folders / 'val/eel').mkdir()
    with pytest.raises(ValueError, match=r'train: 1 of 3 .* 2 \(eel\)$'):
        _load(folders, data_prefix='val', class_counts='train')


def test_number_of_class_folders(folders):
    with pytest.raises(ValueError, match='train has 2 class folders, but there are 3'):
        _load(folders, data_prefix='train', num_classes=3)


@pytest.mark.parametrize(
    'cls, splits',
    [
        (ImageNetLT, 'train, val, test'),
        (PlacesLT, 'train, val, test'),
        (INaturalist2018, 'train, val'),
    ],
)
def test_unknown_split(cls, splits):
    names = ', '.join(repr(name) for name in splits.split(', '))
    with pytest.raises(
        ValueError,
        match=rf'{cls.__name__}: split must be one of '
        rf"\({names}\), found 'vall'. Did you mean 'val'",
    ):
        cls(split='vall')


@pytest.fixture
def two_places(tmp_path, monkeypatch):
    monkeypatch.setattr(PlacesLT, 'benchmark_classes', 2)
    _images(
        tmp_path, 'train/a/0.png', 'train/a/1.png', 'train/b/0.png', 'val/a/0.png', 'val/b/0.png'
    )
    _write(
        tmp_path / 'Places_LT_train.txt', 'train/a/0.png 0', 'train/a/1.png 0', 'train/b/0.png 1'
    )
    _write(tmp_path / 'Places_LT_test.txt', 'val/a/0.png 0', 'val/b/0.png 1')
    return tmp_path


def test_benchmark_splits(two_places, monkeypatch):
    train = DATASETS.build(dict(type='PlacesLT', data_root=str(two_places)))
    test = PlacesLT(data_root=str(two_places), split='test')
    assert (len(train), len(test)) == (3, 2)
    assert train.metainfo['class_counts'] == [2, 1]
    assert test.metainfo['class_counts'] == [2, 1]
    # A relative data_root must not be joined twice.
    monkeypatch.chdir(two_places.parent)
    test = PlacesLT(data_root=two_places.name, split='test')
    assert test.metainfo['class_counts'] == [2, 1]


def test_benchmark_counts_are_beside_the_list(two_places):
    (two_places / 'lists').mkdir()
    for name in ('Places_LT_train.txt', 'Places_LT_test.txt'):
        shutil.move(str(two_places / name), str(two_places / 'lists' / name))
    test = PlacesLT(data_root=str(two_places), split='test', ann_file='lists/Places_LT_test.txt')
    assert test.metainfo['class_counts'] == [2, 1]


def test_benchmark_counts_file(two_places):
    counts = two_places / 'Places_LT_train_counts.json'
    counts.write_text('[40, 30]')
    options = dict(data_root=str(two_places), split='test')
    assert PlacesLT(**options).metainfo['class_counts'] == [2, 1]
    (two_places / 'Places_LT_train.txt').unlink()
    assert PlacesLT(**options).metainfo['class_counts'] == [40, 30]
    counts.unlink()
    with pytest.raises(
        UserError,
        match='Places_LT_train.txt or given by Places_LT_train_counts.'
        'json, but neither is in .* `class_counts`',
    ):
        PlacesLT(**options)
    assert PlacesLT(class_counts=[4, 3], **options).metainfo['class_counts'] == [4, 3]


@real_lists
@pytest.mark.parametrize(
    'cls, split, num_images, num_training',
    [
        (ImageNetLT, 'val', 20000, 115846),
        (ImageNetLT, 'test', 50000, 115846),
        (PlacesLT, 'train', 62500, 62500),
        (PlacesLT, 'val', 7300, 62500),
        (PlacesLT, 'test', 36500, 62500),
    ],
)
def test_real_lists(cls, split, num_images, num_training, monkeypatch):
    monkeypatch.setattr(list_lt, 'find_missing', lambda root, paths: [])
    dataset = cls(data_root=str(LISTS), split=split)
    labels = dataset.get_gt_labels()
    assert len(labels) == num_images
    assert np.unique(labels).tolist() == list(range(cls.benchmark_classes))
    counts = dataset.metainfo['class_counts']
    assert (len(counts), sum(counts)) == (cls.benchmark_classes, num_training)


@real_lists
def test_real_inaturalist_list(monkeypatch):
    monkeypatch.setattr(list_lt, 'find_missing', lambda root, paths: [])
    dataset = INaturalist2018(data_root=str(LISTS), split='val', class_counts=[2] * 8142)
    assert np.bincount(dataset.get_gt_labels()).tolist() == [3] * 8142
    assert dataset.get_data_info(0)['img_path'].endswith(
        'train_val2018/Plantae/7291/9f8ecb39e5f767e39e9b28e34488f179.jpg'
    )


@real_lists
def test_real_list_without_images():
    with pytest.raises(UserError, match='ImageNet_LT_val.txt: 20000 of 20000 images'):
        ImageNetLT(data_root=str(LISTS), split='val')


@real_lists
def test_real_labels_follow_the_imagenet_names():
    lines = (LISTS / 'ImageNet_LT_val.txt').read_text().split('\n')[:-1]
    folders = {}
    for line in lines:
        path, label = line.split(' ')
        folders.setdefault(path.split('/')[1], set()).add(int(label))
    # mmpretrain's names are in the order of the sorted folders.
    assert [folders[name] for name in sorted(folders)] == [{i} for i in range(1000)]
    assert len(ImageNetLT.METAINFO['classes']) == 1000


@pytest.fixture
def messy(tmp_path):
    """Two classes of images, and other files."""
    for name in (
        'train/cat/a.png',
        'train/cat/b.webp',
        'train/dog/c.JFIF',
        'train/dog/notes.txt',
        'train/dog/noname',
        'train/loose.png',
        'train/.ipynb_checkpoints/a.png',
        'train/cat/.cache/a.png',
        'train/cat/.DS_Store',
        'train/cat/._a.png',
        'val/dog/d.png',
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'train/cat/gone.png').symlink_to('nowhere.png')
    (tmp_path / 'train/cat/up').symlink_to('../../train')
    return tmp_path


@pytest.mark.parametrize('kind', ['LongTailList', 'CustomDataset'])
def test_what_a_folder_leaves_out(messy, monkeypatch, kind):
    said = []
    monkeypatch.setattr(folders_module, 'print_log', lambda text, *_: said.append(text))
    dataset = DATASETS.build(
        dict(type=kind, data_root=str(messy), data_prefix='train', extensions=EXTENSIONS)
    )
    assert dataset.CLASSES == ('cat', 'dog')
    names = [os.path.basename(info['img_path']) for info in dataset]
    assert names == ['a.png', 'b.webp', 'c.JFIF']
    assert get_class_counts(dataset) == [2, 1]
    text = '\n'.join(said)
    for part in (
        'leaves out 2 files without an image extension (1 .txt, 1 no '
        'extension): dog/noname, dog/notes.txt',
        'leaves out 1 file outside the class folders: loose.png',
        'leaves out 2 broken or circular links: cat/gone.png, cat/up',
        'leaves out 2 hidden folders: .ipynb_checkpoints, cat/.cach',
        'leaves out 1 hidden image: cat/._a.png',
    ):
        assert part in text
    assert text.count('\n') == 4


def test_mmpretrain_folders_by_other_class_names(messy):
    options = dict(data_root=str(messy), data_prefix='train')
    dataset = CustomDataset(classes=['a cat', 'a dog'], **options)
    assert dataset.CLASSES == ('a cat', 'a dog')
    # `.webp` and `.jfif` are not among MMPretrain's extensions.
    assert dataset.get_gt_labels().tolist() == [0]
    part = CustomDataset(classes=['ant', 'cat', 'dog'], **dict(options, data_prefix='val'))
    assert part.get_gt_labels().tolist() == [2]
    with pytest.raises(UserError, match='not in the list of classes: cat, dog'):
        CustomDataset(classes=['a', 'b', 'c'], **options)
    unlabelled = CustomDataset(with_label=False, data_root=str(messy), data_prefix='val')
    assert len(unlabelled) == 1


def test_a_validation_set_may_lack_a_class(messy):
    options = dict(data_root=str(messy), data_prefix='val', class_counts='train')
    with pytest.raises(UserError, match='missing cat; with a complete list in `classes`'):
        LongTailList(**options)
    dataset = LongTailList(classes=['cat', 'dog'], **options)
    assert dataset.get_gt_labels().tolist() == [1]
    assert dataset.metainfo['class_counts'] == [2, 1]
    with pytest.raises(UserError, match='1 class folders that are not in the list of classes: dog'):
        LongTailList(classes=['cat', 'cow'], data_root=str(messy), data_prefix='train')


@pytest.mark.parametrize(
    'content, words',
    [
        ('caf\xe9.png 0\n'.encode('latin1'), 'train.txt, line 1: not UTF-8'),
        (b'a.png 0\nb.png 1000000000\n', 'line 2: label 1000000000 would mean'),
        (b'cat 0\n', 'line 1: cat'),
        (b'gone.png 0\n', 'line 1: gone.png'),
        ('a.png 0'.encode('utf-16'), 'line 1: not UTF-8.* -f UTF-16'),
        (b'a.png 0\nb.png\nc.png x\n', r'line 2: .* \(and 1 more such lines'),
    ],
)
def test_invalid_lists(tmp_path, content, words):
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'gone.png').symlink_to('nowhere.png')
    (tmp_path / 'train.txt').write_bytes(content)
    with pytest.raises(UserError, match=words):
        LongTailList(data_root=str(tmp_path), ann_file='train.txt')


def test_a_folder_instead_of_a_list(tmp_path):
    with pytest.raises(UserError, match='is a folder, expected a list'):
        LongTailList(data_root=str(tmp_path.parent), ann_file=tmp_path.name)


def test_all_places_of_a_mistake(tmp_path):
    path = tmp_path / 'train.txt'
    path.write_text('a.png 0\nb.png\n\nc.png x\n')
    with pytest.raises(UserError) as error:
        DATASETS.build(dict(type='LongTailList', data_root=str(tmp_path), ann_file='train.txt'))
    assert [place.partition(': ')[0] for place in find_places(error.value)] == [
        f'{path}:2',
        f'{path}:4',
    ]
    path.write_text('a.png 0\nb.png 0\n')
    with pytest.raises(UserError) as error:
        LongTailList(data_root=str(tmp_path), ann_file='train.txt')
    assert find_places(error.value) == [f'{path}:1: a.png', f'{path}:2: b.png']
