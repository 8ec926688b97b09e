"""Names of configs and models, as users of OpenMMLab try them."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.runner import load_checkpoint
from mmpretrain import ImageClassificationInferencer, get_model, inference_model, list_models
from mmpretrain.registry import DATASETS

from ride_mm.engine.config import load_config
from ride_mm.engine.launch import set_work_dir
from ride_mm.utils.config_names import config_file, register_models
from ride_mm.utils.errors import UserError


@pytest.fixture
def child(tmp_path):
    """A function that writes a config that inherits, and returns its path."""

    def write(base):
        path = tmp_path / 'child.py'
        path.write_text(f'_base_ = {base!r}\npipeline = _base_.test_pipeline\n')
        return str(path)

    return write


@pytest.mark.parametrize(
    'name', ['ride_r50_imagenet_lt.py', 'ride_r50_imagenet_lt', 'baselines/crt_r32_cifar100_lt.py']
)
def test_base_of_another_folder(child, monkeypatch, name):
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    found = load_config(child(f'ride_mm::{name}'))
    path = ROOT / 'configs' / name
    expected = load_config(str(path.with_suffix('.py')))
    assert found.model == expected.model
    assert found.train_dataloader == expected.train_dataloader
    # Variables of the base keep the scope of the config, MMPretrain's.
    assert '_scope_' not in str(found)
    assert found.pipeline == expected.test_pipeline


def test_several_bases(child):
    cfg = Config.fromfile(
        child(['ride_mm::_base_/models/ride_r32.py', 'ride_mm::_base_/datasets/cifar10_lt.py'])
    )
    assert cfg.model.type == 'RIDEClassifier'
    assert cfg.train_dataloader.dataset.type == 'CIFAR10LT'


def test_a_mistyped_base(child):
    with pytest.raises(UserError, match='no such config') as info:
        load_config(child('ride_mm::ride_r50_imagenet_l.py'))
    assert "mean 'ride_mm::ride_r50_imagenet_lt.py'" in str(info.value)
    assert '\n' not in str(info.value)


def test_a_base_of_mmpretrain_without_pkg_resources(child, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    # MMEngine's; its maintained fork does without.
    monkeypatch.setattr(
        'mmengine.config.config.is_installed', lambda package: __import__('pkg_resources')
    )
    with pytest.raises(UserError, match="pip install 'setuptools<82'"):
        load_config(child('mmpretrain::resnet/resnet18_8xb16_cifar10.py'))


def test_hub_of_mmengine(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    found = get_config('ride_mm::ride_r32_digits_lt.py')
    expected = Config.fromfile(ROOT / 'configs/ride_r32_digits_lt.py')
    assert found.model == expected.model
    with pytest.raises(UserError, match='no such config'):
        get_config('ride_mm::ride_r32_digits.py')
    found = get_config('ride_mm::ride_r32_digits_lt.py', pretrained=True)
    assert found.model_path == 'ride_mm://ride_r32_digits_lt'
    with pytest.raises(AssertionError, match='Weights'):
        get_config('ride_mm::ride_r32_cifar10_lt.py', pretrained=True)
    monkeypatch.undo()
    assert get_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py')


def test_a_path_is_no_name():
    assert config_file('configs/a.py') == 'configs/a.py'


def test_models_by_name():
    register_models()
    names = list_models('*ride*', task='Image Classification')
    assert 'ride_r50_inaturalist2018_distill' in names
    assert 'resnet50_8xb32_in1k' in list_models('resnet50*')
    model = get_model('ride_r32_cifar100_lt', num_experts=2)
    assert len(model.neck.experts) == 2
    inferencer = ImageClassificationInferencer('ride_r32_digits_lt', pretrained=False)
    image = np.zeros((8, 8, 3), np.uint8)
    assert 0 <= inferencer(image)[0]['pred_label'] < 10
    assert inference_model(inferencer.model, image)['pred_score'] > 0


@pytest.mark.parametrize('path', (ROOT / 'weights').iterdir(), ids=lambda path: path.name)
def test_weights_by_name(path):
    model = get_model(path.name, pretrained=True, device='cpu')
    classes = DATASETS.get(model._config.test_dataloader.dataset.type).METAINFO['classes']
    assert list(model._dataset_meta['classes']) == list(classes)
    assert model.head.has_trained_router
    for line in (path / 'SHA256SUMS').read_text().splitlines():
        digest, file = line.split('  ')
        assert hashlib.sha256((path / file).read_bytes()).hexdigest() == digest, file
    with pytest.raises(UserError, match=f'no such weights in .* mean .ride_mm://{path.name}'):
        load_checkpoint(model, f'ride_mm://{path.name[:-1]}')


def test_weights_have_the_accuracy_that_they_state():
    model = get_model('ride_r32_digits_lt', pretrained=True, device='cpu')
    folder = ROOT / 'weights/ride_r32_digits_lt'
    cfg = load_config(str(folder / 'config.py'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = model.data_preprocessor(pseudo_collate(list(dataset)))
    with torch.no_grad():
        samples = model.predict(batch['inputs'], batch['data_samples'])
    hits = [int(sample.pred_label) == int(sample.gt_label) for sample in samples]
    assert f'| {100 * np.mean(hits):.1f} |' in (folder / 'README.md').read_text()


@pytest.mark.parametrize('name', ['ride_mm::ride_r32_digits_lt.py', 'ride_mm::ride_r32_digits_lt'])
def test_names_on_the_command_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = load_config(str(ROOT / 'configs/ride_r32_digits_lt.py'))
    cfg = load_config(name, {'model.backbone.depth': 20})
    assert cfg.model.pop('backbone').depth == 20 and expected.model.pop('backbone').depth == 32
    assert cfg.to_dict() == expected.to_dict()
    set_work_dir(cfg, None, name)
    assert cfg.work_dir == 'work_dirs/ride_r32_digits_lt'
    with pytest.raises(UserError, match='there is no such config in .*mean .ride_mm::ride_r32_dig'):
        load_config('ride_mm::ride_r32_digit_lt')
