import numpy as np
import pytest
from mmpretrain.registry import DATASETS
from PIL import Image

from ride_mm.datasets import DigitsLT
from ride_mm.datasets.check import Split, check_data, check_paths, leaves


@pytest.fixture
def images(tmp_path):
    """Four images of two classes, two of them equal."""
    random = np.random.default_rng(0)
    for name in ('a/0.png', 'a/1.png', 'b/0.png', 'b/1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = random.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / 'b/1.png').write_bytes((tmp_path / 'a/1.png').read_bytes())
    return tmp_path


def listed(root, name, *lines, **options):
    (root / name).write_text('\n'.join(lines) + '\n')
    return DATASETS.build(dict(type='LongTailList', data_root=str(root), ann_file=name, **options))


def check(**datasets):
    return check_data({name: lambda d=dataset: d for name, dataset in datasets.items()})[1]


def told(findings):
    return {finding.what.partition(':')[0]: finding for finding in findings}


def test_images_are_the_same_by_content(images):
    train = listed(images, 'train.txt', 'a/0.png 0', 'a/1.png 0', 'b/0.png 1', 'b/1.png 1')
    val = listed(images, 'val.txt', 'a/0.png 0', class_counts=[2, 2])
    found = told(check(train=train, val=val))
    conflict = found['images under several labels, by their content']
    assert conflict.error and conflict.places == [
        f'{images}/train.txt:2: {images}/a/1.png, class 0',
        f'{images}/train.txt:4: {images}/b/1.png, class 1',
    ]
    overlap = found['images of val that are in train as well, by their content']
    assert overlap.places == [
        f'{images}/val.txt:1: {images}/a/0.png, class 0',
        f'{images}/train.txt:1: {images}/a/0.png, class 0',
    ]
    empty = found['classes without an image']
    assert not empty.error and empty.places == ['class 1']
    assert len(found) == 3


def test_images_are_the_same_by_path(images):
    train = listed(images, 'train.txt', 'a/0.png 0', 'b/0.png 1', './a/0.png 1', 'b/0.png 1')
    val = listed(images, 'val.txt', 'b/0.png 1', 'b/1.png 0', class_counts=[1, 3])
    found = told(check_paths([Split('train', train), Split('val', val)]))
    assert found['images under several labels, by their path'].places == [
        f'{images}/train.txt:1: {images}/a/0.png, class 0',
        f'{images}/train.txt:3: {images}/./a/0.png, class 1',
    ]
    twice = found['images more than once under one label, by their path']
    assert not twice.error
    assert [place.partition(': ')[0] for place in twice.places] == [
        f'{images}/train.txt:2',
        f'{images}/train.txt:4',
    ]
    assert found['images of val that are in train as well, by their path']
    assert len(found) == 3


def test_wrappers_show_images_once(images):
    part = dict(type='LongTailList', data_root=str(images), data_prefix='')
    both = dict(
        type='ConcatDataset', datasets=[dict(part, indices=[0, 2]), dict(part, indices=[1, 2])]
    )
    whole = DATASETS.build(
        dict(
            type='RepeatDataset',
            times=3,
            dataset=dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=both),
        )
    )
    assert len(whole) > 12
    assert [len(leaf) for leaf in leaves(whole)] == [2, 2]
    split = Split('train', whole)
    assert split.counts == [2, 2] and split.classes == ('a', 'b')
    assert [finding.what for finding in check_paths([split])] == [
        'images more than once under one label, by their path: 1'
    ]


@pytest.mark.parametrize('name', ['0.jpg', '0.png'])
def test_unreadable_and_damaged(tmp_path, name):
    path = tmp_path / 'a' / name
    path.parent.mkdir()
    smooth = np.arange(64 * 64 * 3).reshape(64, 64, 3) // 50 % 256
    Image.fromarray(smooth.astype(np.uint8)).save(path)
    whole = path.read_bytes()

    def found():
        dataset = DATASETS.build(dict(type='LongTailList', data_prefix=str(tmp_path)))
        return [(finding.what, finding.places) for finding in check(train=dataset)]

    assert found() == []
    path.write_bytes(whole[: int(len(whole) * 0.8)])
    ((what, (place,)),) = found()
    assert what in ('images that are damaged: 1', 'images that cannot be read: 1')
    assert place.startswith((f'{path} is damaged', f'{path} cannot be'))
    for content, reason in (
        (b'', 'is empty: it has 0 bytes'),
        (b'text', 'cannot be decoded as an image'),
    ):
        path.write_bytes(content)
        assert found() == [('images that cannot be read: 1', [f'{path} {reason}'])]


def test_images_in_memory():
    data = DigitsLT(split='train')
    val = DigitsLT(split='test')
    findings = check(train=data, val=val)
    assert not any(finding.error for finding in findings)
    found = told(check(train=data, val=DigitsLT(split='train')))
    overlap = found['images of val that are in train as well, by their content']
    assert overlap.places[0] == 'image 0 of DigitsLT, 0'


def test_classes_that_differ(images):
    train = DATASETS.build(dict(type='LongTailList', data_prefix=str(images), classes=['a', 'b']))
    val = listed(images, 'val.txt', 'a/0.png 0', class_counts=[5, 5], classes=['b', 'a'])
    findings = check_paths([Split('train', train), Split('val', val)])
    texts = [finding.what for finding in findings if finding.error]
    assert "label 0: 'a' in train, 'b' in val" in texts[1]
    assert '10 in 2 classes against 4 in 2' in texts[2]
