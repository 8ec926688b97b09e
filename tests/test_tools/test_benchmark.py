"""The benchmarks from end to end, on tiny models and a stand-in clone."""
import importlib
import json
import sys

import pytest
import torch
from mmengine.config import Config

from ride_mm.utils.errors import UserError

# Asks, as the official code does, for a GPU and for pandas.
CLONE = {
    'train.py':
    """
import data_loader.data_loaders as module_data
import model.model as module_arch
from parse_config import ConfigParser
from trainer import Trainer


def main(config):
    loader = getattr(module_data, config['data_loader']['type'])()
    assert loader.split_validation() is None
    assert len(loader.cls_num_list) == config['arch']['args']['num_classes']
    arch = config['arch']
    model = getattr(module_arch, arch['type'])(**arch['args'])
    trainer = Trainer(model, loader)
    for _ in range(config['trainer']['epochs']):
        trainer.train_epoch()
""",
    'parse_config.py':
    """
class ConfigParser(dict):
    def __init__(self, config, run_id):
        super().__init__(config)
""",
    'trainer/__init__.py':
    'from .trainer import *',
    'trainer/trainer.py':
    """
import contextlib
import pandas
import torch

autocast = contextlib.nullcontext
use_fp16 = False


class Trainer:
    def __init__(self, model, loader):
        self.model, self.loader = model, loader
        self.means = pandas.DataFrame(index=['loss'], columns=['total'])
        self.optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def train_epoch(self):
        for images, labels in self.loader:
            with autocast():
                logits = self.model(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.means.total['loss'] += loss.item()
""",
    'model/model.py':
    """
import torch


class ResNet32Model(torch.nn.Module):
    def __init__(self, num_classes, num_experts, reduce_dimension, use_norm):
        super().__init__()
        assert reduce_dimension and use_norm
        self.experts = torch.nn.ModuleList(
            torch.nn.Linear(192, num_classes) for _ in range(num_experts))
        self.scale = torch.ones(1).cuda()

    def forward(self, images):
        x = images.flatten(1) * self.scale
        return sum(expert(x) for expert in self.experts)


class Router(torch.nn.Module):
    def pred_expert_help(self, inputs, index):
        return inputs[1][:, :1]


class ResNet32EAModel(ResNet32Model):
    def __init__(self, top_choices_num, **kwargs):
        super().__init__(**kwargs)
        self.backbone = Router()

    def forward(self, images):
        x = images.flatten(1) * self.scale
        logits, active = self.experts[0](x), torch.arange(len(x))
        for index in range(len(self.experts) - 1):
            help = self.backbone.pred_expert_help((x, logits[active]), index)
            active = active[torch.sigmoid(help[:, 0]) > 0.5]
            logits[active] += self.experts[index + 1](x[active])
        return logits
""",
    'model/loss.py':
    '',
    'data_loader/data_loaders.py':
    '',
    'configs/config_imbalance_cifar100_ride.json':
    json.dumps(
        dict(
            arch=dict(type='ResNet32Model', args=dict(num_classes=100)),
            trainer=dict(epochs=200))),
    'configs/config_imbalance_cifar100_ride_ea.json':
    json.dumps(
        dict(arch=dict(type='ResNet32EAModel', args=dict(num_classes=100))))
}


@pytest.fixture
def tool(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'tools/benchmark')
    # The contenders are started with the options of this machine's tools.
    monkeypatch.setattr(sys, 'argv', ['benchmark'])
    return lambda name: importlib.import_module(name).main


@pytest.fixture
def clone(tmp_path):
    for name, text in CLONE.items():
        path = tmp_path / 'clone' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path / 'clone')


def write_config(root, path, name, **options):
    """A config of the digits as scanned, on ResNet-32."""
    cfg = Config.fromfile(root / f'configs/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.num_workers = 0
        loader.dataset.pipeline[0].scale = (8, 8)
    cfg.train_dataloader.dataset.pipeline[2].size = 8
    cfg.merge_from_dict(options)
    cfg.dump(path)
    return str(path)


@pytest.fixture
def config(root, tmp_path):
    return write_config(root, tmp_path / 'tiny.py', 'ride_r32_digits_lt')


def read(path):
    found = json.loads(path.read_text())
    assert found['machine']['device'] == 'cpu'
    assert found['machine']['versions']['torch'] == torch.__version__
    return found


FAST = ['--rounds', '2', '--seconds', '.05', '--device', 'cpu']


def test_train_step(tool, config, clone, tmp_path, capsys):
    json_file = tmp_path / 'found.json'
    tool('train_step')([
        config, *FAST, '--threads', '1', '--official', clone, '--json',
        str(json_file), '--cfg-options', 'train_dataloader.batch_size=16'
    ])
    found = read(json_file)
    assert found['options']['official'] == 'clone'
    assert [(r['contender'], r['variant']) for r in found['results']] == [
        (name, 'fp32') for name in ('official', 'ours', 'bare', 'single')
    ]
    for result in found['results']:
        assert len(result['turns']) == 2
        for turn in result['turns']:
            assert turn['steps'] >= 3 and turn['seconds'] > 0
            # Training images: 397, the last batch has 13.
            assert turn['images'] <= 16 * turn['steps']
        rate = result['images_per_second']
        assert 0 < rate['low'] <= rate['median'] <= rate['high']
        assert result['step_memory_bytes'] >= 0
    official, ours, bare, single = found['results']
    assert official['ratio'] == dict(median=1., low=1., high=1.)
    # Ten linear classes on 8x8 pixels of three colours, three experts.
    assert official['parameters'] == 3 * (3 * 64 + 1) * 10
    assert ours['parameters'] == bare['parameters'] > single['parameters']
    assert official['data'] == 'random images in its trainer'
    names = [patch['name'] for patch in official['patches']]
    assert 'Tensor.cuda' in names
    assert len(found['conclusions']) == 3
    out = capsys.readouterr().out
    assert '| ours      | fp32    |' in out
    assert 'patched in it at run time:\n  Tensor.cuda:' in out


def test_train_step_on_generated_images(tool, config, clone, tmp_path):
    json_file = tmp_path / 'found.json'
    tool('train_step')([
        config, *FAST, '--official', clone, '--synthetic', '--variant', 'amp',
        '--contenders', 'ours', 'official-amp', '--json',
        str(json_file), '--cfg-options', 'train_dataloader.batch_size=4',
        "train_dataloader.collate_fn.type='collate_batch'"
    ])
    ours, official = read(json_file)['results']
    assert (official['contender'], official['variant']) == ('official', 'amp')
    assert 'trainer.trainer.autocast' in [
        patch['name'] for patch in official['patches']
    ]
    assert {turn['images'] / turn['steps'] for turn in ours['turns']} == {4}


def test_inference(tool, config, clone, tmp_path, capsys):
    json_file = tmp_path / 'found.json'
    tool('inference')([
        config, *FAST, '--official', clone, '--batch-sizes', '1', '50',
        '--usage', '50,20,30', '--json',
        str(json_file)
    ])
    found = read(json_file)
    assert [(r['contender'], r['batch_size']) for r in found['results']
            ] == [(name, size) for size in (1, 50)
                  for name in ('ensemble', 'routed', 'single', 'official')]
    for result in found['results']:
        assert len(result['turns_ms']) == 2
        assert 0 < result['median_ms'] <= result['p95_ms']
        assert result['images_per_second']['median'] > 0
        assert result['speed_over_official']['median'] > 0
    routed = found['contenders']['routed']
    assert routed['usage'] == pytest.approx([.5, .2, .3], abs=.02)
    # A trunk and three experts; the routers are cheap.
    assert 1 / 3 < routed['compute'] < 1
    assert found['results'][1]['compute_over_ensemble'] == routed['compute']
    assert 'images that use 1, 2, ... experts (%):\n  5' in (
        capsys.readouterr().out)


def test_inference_of_a_checkpoint(tool, config, tmp_path):
    from mmpretrain import get_model
    model = get_model(config)
    # A router that never wants another expert.
    torch.nn.init.zeros_(model.head.router.fc.weight)
    torch.nn.init.constant_(model.head.router.fc.bias, -1.)
    model.head.router.num_updates += 1
    torch.save(
        dict(state_dict=model.state_dict(), meta={}), tmp_path / 'last.pth')
    json_file = tmp_path / 'found.json'
    tool('inference')([
        config,
        str(tmp_path / 'last.pth'), *FAST, '--batch-sizes', '8',
        '--fuse-conv-bn', '--json',
        str(json_file)
    ])
    routed = read(json_file)['contenders']['routed']
    assert routed['usage'] == [1., 0., 0.]
    assert routed['compute'] < .5


def test_data(tool, config, tmp_path, capsys):
    json_file = tmp_path / 'found.json'
    other = Config.fromfile(config)
    other.train_dataloader.num_workers = 1
    other.train_dataloader.dataset.pipeline = [
        other.train_dataloader.dataset.pipeline[0],
        dict(type='DrawCropFlipRotate', size=8, padding=2)
    ]
    other.train_dataloader.collate_fn = dict(type='collate_batch')
    other.dump(tmp_path / 'batched.py')
    tool('data')([
        config,
        str(tmp_path / 'batched.py'), '--rounds', '2', '--seconds', '.05',
        '--json',
        str(json_file)
    ])
    found = read(json_file)
    assert {(r['contender'], r['part'], r['kind'])
            for r in found['results']} == {(name, part, kind)
                                           for name in ('tiny', 'batched')
                                           for part in ('train', 'val')
                                           for kind in ('worker', 'normalized',
                                                        'loader')}
    for result in found['results']:
        assert result['reference'] == 'tiny'
        assert result['images_per_second']['low'] > 0
    stages = {
        (s['contender'], s['part'], s['stage']): s['microseconds']
        for s in found['stages']
    }
    assert stages['batched', 'train', 'DrawCropFlipRotate']['low'] > 0
    assert stages['tiny', 'val', 'PackInputs']['low'] > 0
    assert ('tiny', 'val', 'seed') not in stages
    assert '| batched  | train |       1 |' in capsys.readouterr().out


def test_stage2(tool, root, tmp_path, capsys):
    from mmpretrain import get_model
    config = write_config(
        root, tmp_path / 'tiny.py', 'ride_r32_digits_lt', **{
            'train_cfg.max_epochs': 42,
            'default_hooks.two_stage.train_dataloader.batch_size': 128
        })
    torch.save(
        dict(state_dict=get_model(config).state_dict(), meta={}),
        tmp_path / 'stage_1.pth')
    json_file = tmp_path / 'found.json'
    tool('stage2')([
        config,
        str(tmp_path / 'stage_1.pth'), '--seeds', '0', '--device', 'cpu',
        '--threads', '1', '--json',
        str(json_file)
    ])
    found = read(json_file)
    plain, kept = (found['runs'][name][0] for name in ('plain', 'kept'))
    for run in (plain, kept):
        assert run['seed'] == 0
        assert 0 < run['seconds']['training'] < run['seconds']['with_set_up']
        assert 0 <= run['metrics']['long_tail/overall'] <= 100
        assert 1 <= run['metrics']['experts/mean'] <= 3
    seconds = [run['seconds']['training'] for run in (plain, kept)]
    assert found['speed_up']['training']['median'] == pytest.approx(
        seconds[0] / seconds[1])
    assert '| kept - plain ' in capsys.readouterr().out


@pytest.mark.parametrize('name, arguments, message', [
    ('train_step', ['missing.py'], 'no config missing.py'),
    ('train_step', ['CONFIG', '--official', '.'], 'is no clone'),
    ('train_step', ['CONFIG', '--contenders', 'official'],
     'needs --official PATH'),
    ('train_step', ['CONFIG', '--json', 'CONFIG'], 'is not overwritten'),
    ('train_step', ['CONFIG', '--cfg-options', 'model.stage=router'],
     'trains the router'),
    ('inference', ['CONFIG', '--usage', '50,50'], '2 shares'),
    ('inference', ['CONFIG', 'missing.pth'], 'no such checkpoint'),
    ('inference', ['CONFIG', '--cfg-options', 'model.head.router=None'],
     'no model.head.router'),
    ('data', ['CONFIG', '--synthetic'], 'not for DigitsLT'),
    ('stage2', ['CONFIG', 'CONFIG', '--cfg-options',
                'default_hooks.two_stage=None'], 'no default_hooks.two_stage'),
    ('stage2', ['CONFIG', 'missing.pth'], 'no such checkpoint'),
])  # yapf: disable
def test_mistakes_are_found_first(tool, config, name, arguments, message):
    arguments = [config if x == 'CONFIG' else x for x in arguments]
    with pytest.raises(UserError, match=message):
        tool(name)(arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason='for no GPU')
def test_missing_gpu(tool, config):
    with pytest.raises(UserError, match='there is no GPU'):
        tool('train_step')([config, '--device', 'cuda'])


@pytest.mark.parametrize('name', ['train_step', 'inference', 'data', 'stage2'])
def test_help_has_an_example(tool, name, capsys):
    with pytest.raises(SystemExit) as status:
        tool(name)(['--help'])
    assert status.value.code == 0
    out = capsys.readouterr().out
    assert f'example:\n  python tools/benchmark/{name}.py configs/' in out
    assert '--json FILE' in out
