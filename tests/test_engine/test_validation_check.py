import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from runs import assert_same_state, build_runner, digits_config, train

from ride_mm.datasets import DigitsLT, LongTailList
from ride_mm.datasets.check import find_unreadable
from ride_mm.utils.errors import UserError


def refused(work_dir, match, **options):
    with pytest.raises(UserError, match=match):
        train(digits_config(ROOT, work_dir, **options))
    assert not list(work_dir.glob('*.pth'))


def test_topk(tmp_path):
    refused(
        tmp_path,
        r'val_evaluator.0, LongTailMetric, would fail .*topk',
        **{'val_evaluator.0.topk': (1, 11)},
    )


def test_save_best(tmp_path):
    refused(
        tmp_path,
        r"save_best='long_tail/overal' is not a metric .*mean "
        r"'long_tail/overall'\? Available: .*long_tail/few",
        **{'default_hooks.checkpoint.save_best': 'long_tail/overal'},
    )


def test_first_image(tmp_path):
    broken = [dict(type='LoadImageFromFile')]
    refused(
        tmp_path,
        'first image of val_dataloader.dataset cannot be read',
        **{'val_dataloader.dataset.pipeline': broken},
    )


@pytest.fixture
def files(tmp_path):
    """40 PNG images of two classes in a list."""
    pixels = np.random.default_rng(0).integers(256, size=(40, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f'{i}.png')
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.png {i % 2}\n' for i in range(40)))
    return tmp_path


def test_a_later_image(files):
    (files / '7.png').write_bytes(b'')
    (files / '8.png').write_text('no image')
    dataset = dict(
        _delete_=True,
        type='LongTailList',
        data_root=str(files),
        ann_file='list.txt',
        num_classes=10,
        class_counts=DigitsLT(max_count=32).metainfo['class_counts'],
        pipeline=[
            dict(type='LoadImageFromFile', color_type='grayscale'),
            dict(type='Resize', scale=(8, 8)),
            dict(type='PackInputs'),
        ],
    )
    refused(
        files / 'run',
        r'val_dataloader.dataset: \S*/7.png is empty: it has 0 '
        r'bytes. Replace .* \(1 more cannot be read\)$',
        **{'val_dataloader.dataset': dataset},
    )


def test_files_that_cannot_be_read(files):
    def find(**options):
        return find_unreadable(
            LongTailList(
                data_root=str(files), ann_file='list.txt', pipeline=[dict(type='LoadImageFromFile')]
            ),
            **options,
        )

    assert find() == (40, [])
    (files / '8.png').unlink()
    (files / '8.png').mkdir()
    with pytest.raises(UserError, match='1 of 40 images are not in'):
        find()
    (files / '8.png').rmdir()
    cv2.imwrite(str(files / '8.hdr'), np.ones((8, 8, 3), np.float32))
    (files / '8.hdr').rename(files / '8.png')
    assert find() == (40, [])  # known to OpenCV alone
    (files / '9.png').write_bytes(b'x')
    assert find() == (
        40,
        [
            f'{files}/9.png cannot be decoded as an image. Replace or remove it; '
            'tools/check_data.py finds all such images'
        ],
    )
    assert find(most=30) == (20, [])  # every other
    assert find_unreadable(DigitsLT()) == (0, [])


def test_nothing_is_left_of_it(tmp_path):
    """A group's accuracy may be what is saved by; nothing else changes."""
    states = []
    for check in (dict(type='ValidationCheckHook'), None):
        runner = build_runner(
            digits_config(
                ROOT,
                tmp_path / str(bool(check)),
                **{
                    'default_hooks.validation_check': check,
                    'default_hooks.checkpoint.save_best': 'long_tail/few',
                },
            )
        )
        np.random.seed(0)
        torch.manual_seed(0)
        runner.train()
        states.append(
            [runner.model.state_dict(), torch.get_rng_state(), list(np.random.get_state()[1])]
        )
    assert_same_state(*(list(state[0].items()) for state in states))
    assert_same_state(*(state[1:] for state in states))
