import json

import numpy as np
import pytest
import torch
from conftest import ROOT, load_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

CONFIG = """
_base_ = '{root}/configs/ride_r32_digits_lt.py'

model = dict(
    num_experts=2, backbone=dict(depth=20), neck=dict(expert=dict(depth=20)))
"""


@pytest.fixture
def tool():
    module = load_tool('tools/export.py')
    return module, lambda *args: module.main(list(map(str, args)))


@pytest.fixture
def trained(tmp_path):
    """A config, and the work_dir of its training."""
    config, folder = tmp_path / 'digits.py', tmp_path / 'run'
    config.write_text(CONFIG.format(root=ROOT))
    cfg = Config.fromfile(config)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.head.router.num_updates += 1
    folder.mkdir()
    meta = dict(dataset_meta=dict(classes=[f'digit {i}' for i in range(10)]))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / 'epoch_9.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_9.pth'))
    return config, folder


def test_a_work_dir_becomes_a_bundle(tool, trained, tmp_path, capsys):
    config, folder = trained
    (tmp_path / 'classes.txt').write_text('digit 3\ndigit 8\n')
    options = ['--cfg-options', 'model.test_cfg.threshold=0.25']
    tool[1](config, folder, tmp_path / 'out', '--classes', tmp_path / 'classes.txt', *options)
    assert 'expert_1.onnx, expert_2.onnx (opset 20)' in capsys.readouterr().out
    manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert manifest['classes'][3] == 'digit 3' and manifest['thresholds'] == [0.25]
    never = [value < -1000 for value in manifest['log_prior']]
    assert never == [i not in (3, 8) for i in range(10)]
    assert manifest['preprocessing']['steps'] == [
        dict(size=[16, 16], backend='cv2', interpolation=1)
    ]


def test_int8(tool, trained, tmp_path, capsys):
    config, folder = trained
    tool[1](config, folder, tmp_path / 'plain')
    tool[1](config, folder, tmp_path / 'int8', '--int8', 50)
    assert 'int8: of 50 training images, ' in capsys.readouterr().out
    manifest = json.loads((tmp_path / 'int8' / 'manifest.json').read_text())
    assert manifest['int8']['same_class'] > 0.8
    names = [part['file'] for part in manifest['parts']]
    assert len(list((tmp_path / 'int8').iterdir())) == len(names) + 2
    for name in names:
        sizes = [(tmp_path / bundle / name).stat().st_size for bundle in ('plain', 'int8')]
        assert sizes[1] < 0.6 * sizes[0]
    images = np.random.default_rng(0).normal(size=(70, 3, 16, 16)).astype(np.float32)
    program = load_tool('tools/predict.py')
    scores, used = program.Bundle(tmp_path / 'int8').predict(images)
    assert scores.shape == (70, 10) and set(used) <= {1, 2}


def test_mistakes(tool, trained, tmp_path, monkeypatch):
    config, folder = trained
    with pytest.raises(UserError, match='there is no such checkpoint'):
        tool[1](config, folder / 'epoch_8.pth', tmp_path / 'out')
    (tmp_path / 'classes.txt').write_text('digit 33\n')
    with pytest.raises(UserError, match=r"classes.txt:1: there is no class 'digit 33'"):
        tool[1](config, folder, tmp_path / 'out', '--classes', tmp_path / 'classes.txt')
    plain = tmp_path / 'plain.py'
    plain.write_text("model = dict(type='ImageClassifier', backbone=dict(type='LeNet5'))")
    with pytest.raises(UserError, match='only the experts of a RIDEClassifier'):
        tool[1](plain, folder, tmp_path / 'out')
    monkeypatch.setattr(tool[0], 'find_spec', lambda name: None if 'script' in name else name)
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'ride_mm\[export\]'"):
        tool[1](config, folder, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
