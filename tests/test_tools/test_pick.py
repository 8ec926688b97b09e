"""Unlabelled images to label next."""

import csv
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmcv.transforms import Compose
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from ride_mm.analysis import next_labels
from ride_mm.datasets import DigitsLT
from ride_mm.utils.errors import UserError

CONFIG = f"""
_base_ = '{ROOT}/configs/ride_r32_digits_lt.py'

model = dict(backbone=dict(depth=20), neck=dict(expert=dict(depth=20)))
test_dataloader = dict(batch_size=16, num_workers=0)
log_level = 'ERROR'
"""
NUMBER = 40


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Its checkpoint, with a router that has been trained, and scans without labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'digits.py').write_text(CONFIG)
    cfg = Config.fromfile('digits.py')
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    model.head.router.num_updates += 1
    torch.save(dict(meta={}, state_dict=model.state_dict()), 'digits.pth')
    for index, scan in enumerate(DigitsLT(split='test')):
        if index % (440 // NUMBER) == 0:
            folder = tmp_path / 'scans' / ('more' if index % 2 else '')
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scan['img']).save(folder / f'{index:03}.png')
    return model


@pytest.fixture
def pick():
    main = runpy.run_path(str(ROOT / 'tools/analysis/pick.py'))['main']

    def call(*options, folder='scans'):
        main(['digits.py', 'digits.pth', folder, '--out', 'picked.csv', *options])
        with open('picked.csv', newline='') as file:
            return list(csv.DictReader(file))

    return call


@pytest.mark.parametrize('by', next_labels.MEASURES)
def test_picked_images(model, pick, by):
    rows = pick('-n', '12', '--by', by)
    transforms = Compose(
        [dict(type='LoadImageFromFile'), *Config.fromfile('digits.py').test_pipeline]
    )
    paths = sorted(map(str, Path('scans').rglob('*.png')))
    inputs = torch.stack([transforms(dict(img_path=path))['inputs'] for path in paths])
    with torch.no_grad():
        feats = model.extract_feat(model.data_preprocessor(dict(inputs=inputs))['inputs'])
        logits = model.head.expert_logits(feats)
        scores = logits.mean(0).softmax(1)
        doubt = dict(
            margin=lambda: next_labels.margin(scores),
            disagreement=lambda: next_labels.disagreement(logits.softmax(-1)),
            router=lambda: next_labels.router_doubt(model.head.router.all_logits(feats, logits)),
        )[by]()
    doubts = next_labels.Doubts(scores.argmax(1).numpy(), doubt.numpy())
    counts = DigitsLT().metainfo['class_counts']
    expected = next_labels.for_smallest_classes(doubts, counts, 12)
    assert [row['file'] for row in rows] == [paths[index] for index in expected]
    assert [int(row['class']) for row in rows] == doubts.pred_label[expected].tolist()
    found = [float(row['doubt']) for row in rows]
    np.testing.assert_allclose(found, doubts.doubt[expected], atol=1e-4)


def test_all_images_if_there_are_fewer(model, pick):
    assert len(pick('-n', '100')) == NUMBER


def test_mistakes(model, pick, tmp_path):
    for folder in ('nowhere', '.git'):
        (tmp_path / '.git').mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f'{folder}: expected a folder with images'):
            pick(folder=folder)
    state = torch.load('digits.pth')
    state['state_dict']['head.router.num_updates'] *= 0
    torch.save(state, 'digits.pth')
    with pytest.raises(UserError, match='--by router needs a trained router'):
        pick('--by', 'router')
    (tmp_path / 'scans/broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='broken.png cannot be decoded as an image'):
        pick('--by', 'margin')
    (tmp_path / 'picked.csv').touch()
    with pytest.raises(UserError, match='picked.csv exists and is not overwritten'):
        pick()
