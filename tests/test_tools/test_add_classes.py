"""Classes added to a trained model by the means of their images."""

import runpy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, load_tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

from ride_mm.analysis import read_predictions
from ride_mm.datasets import DigitsLT
from ride_mm.utils.errors import UserError

CONFIG = f"""
_base_ = '{ROOT}/configs/ride_r32_digits_lt.py'

model = dict(
    backbone=dict(depth=20),
    neck=dict(expert=dict(depth=20)),
    head=dict(num_classes=8, classifier=dict(_delete_=True, type='{{classifier}}'),
              loss=dict(_delete_=True, type='SeesawLoss', num_classes=8), router=dict(topk=5)))
images = dict(_delete_=True, type='LongTailList', data_root='old')
train_dataloader = dict(dataset=dict(images, data_prefix='train', pipeline=_base_.train_pipeline))
test_set = dict(
    images, data_prefix='test', class_counts='train',
    pipeline=[dict(type='LoadImageFromFile'), *_base_.test_pipeline])
val_dataloader = dict(num_workers=0, dataset=test_set)
test_dataloader = dict(num_workers=0, dataset=test_set)
log_level = 'ERROR'
"""


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Scans of eight digits in old/, four scans of each of the others in new/."""
    monkeypatch.chdir(tmp_path)
    for split in ('train', 'test'):
        kept = dict.fromkeys(range(10), 0)
        for scan in DigitsLT(split=split):
            label = scan['gt_label']
            folder = tmp_path / (f'old/{split}' if label < 8 else f'new_{split}') / f'digit {label}'
            folder.mkdir(parents=True, exist_ok=True)
            if kept[label] < 4:
                Image.fromarray(scan['img']).save(folder / f'{kept[label]}.png')
            kept[label] += 1
    return tmp_path


@pytest.fixture
def add():
    return runpy.run_path(str(ROOT / 'tools/decoupling/add_classes.py'))['main']


def write_model(classifier='CosineClassifier', sets=False):
    """A config, and the checkpoint of features that know a little, by chance."""
    with open('old.py', 'w') as file:
        file.write(CONFIG.format(classifier=classifier))
    cfg = Config.fromfile('old.py')
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    model.head.router.num_updates += 1
    if sets:
        model.head.set_prediction_sets([0.2] * 8, model.set_settings)
    torch.save(dict(meta={}, state_dict=model.state_dict()), 'old.pth')
    return model


def test_added_classes(digits, add, capsys):
    model = write_model(sets=True)
    add(['old.py', 'old.pth', 'new_train', '--out', 'all.pth', '--out-config', 'all.py'])
    said = capsys.readouterr().out
    assert '10 classes. New, with their images: digit 8 (4), digit 9 (4).' in said
    assert 'The prediction sets hold for the old classes and are removed' in said

    cfg = Config.fromfile('all.py')
    images = DATASETS.build(
        dict(
            type='LongTailList',
            data_root='new_train',
            pipeline=cfg.test_dataloader.dataset.pipeline,
        )
    )
    inputs = torch.stack([images[i]['inputs'] for i in range(len(images))])
    feats = model.extract_feat(model.data_preprocessor(dict(inputs=inputs))['inputs'])
    state, old = torch.load('all.pth')['state_dict'], model.state_dict()
    for index, feat in enumerate(feats):
        found = state.pop(f'head.classifiers.{index}.weight')
        unit = F.normalize(feat.detach())
        expected = F.normalize(torch.stack([unit[:4].sum(0), unit[4:].sum(0)]))
        assert torch.equal(found[:8], old[f'head.classifiers.{index}.weight'])
        torch.testing.assert_close(found[8:], expected, rtol=1e-4, atol=1e-6)
    # Of the logits.
    expected = torch.tensor([*[1.0] * 8, 0.85, 0.85]).expand(3, 10)
    torch.testing.assert_close(state.pop('head.scales'), expected)
    # The losses of the old classes have a state, the sets have thresholds.
    assert {key for key in old if key not in state} == {
        *(f'head.classifiers.{index}.weight' for index in range(3)),
        *(f'head.losses.{index}.cum_samples' for index in range(3)),
        'head.set_thresholds',
        'head.set_settings',
    }
    assert all(torch.equal(value, old[key]) for key, value in state.items())


def test_grown_model_is_tested(digits, add):
    """It tells the new digits apart, and the logits of the old classes are the same."""
    write_model()
    add(['old.py', 'old.pth', 'new_train', '--out', 'all.pth', '--out-config', 'all.py'])
    test = load_tool('tools/test.py').main
    test(['old.py', 'old.pth', '--all-experts', '--out', 'old.npz'])
    for label in (8, 9):
        (digits / f'new_test/digit {label}').rename(digits / f'old/test/digit {label}')
    test(['all.py', 'all.pth', '--all-experts', '--out', 'all.npz'])
    before, after = read_predictions('old.npz'), read_predictions('all.npz')
    assert after.run['classes'] == [f'digit {label}' for label in range(10)]
    assert after.run['class_counts'] == [*before.run['class_counts'], 4, 4]
    np.testing.assert_allclose(
        after.expert_logits[:, : len(before), :8], before.expert_logits, atol=1e-3
    )
    new = after.gt_label >= 8
    assert after.hits[new].mean() > 0.5
    # Without their test images as well.
    for label in (8, 9):
        (digits / f'old/test/digit {label}').rename(digits / f'new_test/digit {label}')
    test(['all.py', 'all.pth', '--out', 'few.npz'])
    assert len(read_predictions('few.npz')) == len(before)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model.test_cfg.logit_adjustment': 1.0}, 'logit_adjustment has a term for each'),
        ({'model.test_cfg.prior': [1] * 8}, 'prior has a term for each of the old classes'),
        (
            {'test_dataloader.dataset': dict(type='DigitsLT', split='test', pipeline=[])},
            'test_dataloader.dataset is a DigitsLT, whose classes are fixed',
        ),
    ],
)
def test_models_without_a_place_for_a_class(digits, add, options, message):
    write_model()
    cfg = Config.fromfile('old.py')
    cfg.merge_from_dict(options)
    if 'test_dataloader.dataset' in options:
        cfg.test_dataloader.dataset = options['test_dataloader.dataset']
    cfg.dump('other.py')
    with pytest.raises(UserError, match=message):
        add(['other.py', 'old.pth', 'new_train', '--out', 'all.pth', '--out-config', 'all.py'])
    assert not (digits / 'all.pth').exists()


def test_mistakes(digits, add, capsys):
    write_model('LinearClassifier')
    arguments = ['--out', 'all.pth', '--out-config', 'all.py']
    with pytest.raises(UserError, match='needs model.head.classifier=.*CosineClassifier'):
        add(['old.py', 'old.pth', 'new_train', *arguments])
    write_model()
    with pytest.raises(UserError, match='old/train: the model has the classes digit 0, digit 1'):
        add(['old.py', 'old.pth', 'old/train', *arguments])
    with pytest.raises(UserError, match='Folder not found: nowhere'):
        add(['old.py', 'old.pth', 'nowhere', *arguments])
    (digits / 'new_train/digit A').mkdir()
    with pytest.raises(UserError, match=r'no training image: 2 \(digit A\)'):
        add(['old.py', 'old.pth', 'new_train', *arguments])
    with pytest.raises(SystemExit):
        add(['old.py', 'old.pth', 'new_train', *arguments, '--scale', '0'])
    assert '--scale 0 must be above 0, at most 2' in capsys.readouterr().err
    (digits / 'all.py').touch()
    with pytest.raises(UserError, match='--out-config all.py exists and is not overwritten'):
        add(['old.py', 'old.pth', 'new_train', *arguments])
    assert not (digits / 'all.pth').exists()
