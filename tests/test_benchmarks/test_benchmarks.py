"""The benchmarks from end to end, on tiny models and a stand-in clone."""

import importlib
import json
import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

# Asks, as the official code does, for a GPU and for pandas.
CLONE = {
    'train.py': """
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
    'parse_config.py': """
class ConfigParser(dict):
    def __init__(self, config, run_id):
        super().__init__(config)
""",
    'trainer/__init__.py': 'from .trainer import *',
    'trainer/trainer.py': """
import contextlib
import pandas
import torch

autocast = contextlib.nullcontext
use_fp16 = False


class Trainer:
    def __init__(self, model, loader):
        self.model, self.loader = model, loader
        self.means = pandas.DataFrame(index=['loss'], columns=['total', 'counts'])
        self.optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def train_epoch(self):
        for images, labels in self.loader:
            with autocast():
                logits = self.model(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            means = self.means
            means.total['loss'] += loss.item() * 1
            means.average['loss'] = means.total['loss'] / means.counts['loss']
        for column in means.columns:
            means[column].values[:] = 0
        assert dict(means.average) == {}
""",
    'model/model.py': """
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
    'model/loss.py': '',
    'data_loader/data_loaders.py': """
import torch
from torch.utils.data import DataLoader, TensorDataset


class ImbalanceCIFAR100DataLoader(DataLoader):
    def __init__(self, data_dir, batch_size, num_workers, **kwargs):
        data = TensorDataset(torch.randn(40, 3, 8, 8), torch.arange(40) % 10)
        self.cls_num_list, self.val_dataset = [4] * 10, data
        self.init_kwargs = dict(batch_size=20, num_workers=num_workers)
        super().__init__(data, batch_size, num_workers=num_workers)
""",
    'configs/config_imbalance_cifar100_ride.json': json.dumps(
        dict(arch=dict(type='ResNet32Model', args=dict(num_classes=100)), trainer=dict(epochs=200))
    ),
    'configs/config_imbalance_cifar100_ride_ea.json': json.dumps(
        dict(arch=dict(type='ResNet32EAModel', args=dict(num_classes=100)))
    ),
}


@pytest.fixture
def module(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'benchmarks')
    # Processes are started with the options of this one.
    monkeypatch.setattr(sys, 'argv', ['benchmark'])
    return importlib.import_module


@pytest.fixture
def clone(tmp_path, monkeypatch):
    # What is patched, and imported, is so for one test alone.
    monkeypatch.setattr(torch.Tensor, 'cuda', torch.Tensor.cuda)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    for name, text in CLONE.items():
        path = tmp_path / 'clone' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield str(tmp_path / 'clone')
    own = {name.split('/')[0].removesuffix('.py') for name in CLONE} | {'pandas'}
    for name in [*sys.modules]:
        if name.split('.')[0] in own:
            del sys.modules[name]


@pytest.fixture
def config(root, tmp_path):
    """The digits as scanned, on ResNet-32."""
    cfg = Config.fromfile(root / 'configs/ride_r32_digits_lt.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        loader.batch_size = 16
        loader.dataset.pipeline[0].scale = (8, 8)
    cfg.train_dataloader.dataset.pipeline[2].size = 8
    cfg.dump(tmp_path / 'tiny.py')
    return str(tmp_path / 'tiny.py')


@pytest.fixture
def run(module, tmp_path, capsys, monkeypatch):
    """Run a benchmark: what it wrote, and what it printed."""
    context = multiprocessing.get_context('forkserver')
    monkeypatch.setattr(multiprocessing, 'get_context', lambda _: context)

    def run_benchmark(name, *arguments):
        path = tmp_path / 'found.json'
        module(name).main(
            [
                *arguments,
                '--rounds',
                '2',
                '--seconds',
                '.05',
                '--device',
                'cpu',
                '--json',
                str(path),
            ]
        )
        return json.loads(path.read_text()), capsys.readouterr().out

    return run_benchmark


@pytest.fixture
def theirs(module, monkeypatch):
    """A dataset of which the stand-in has a loader."""
    loaders = module('official')._LOADERS
    monkeypatch.setitem(loaders, 'DigitsLT', loaders['CIFAR100LT'])


def test_train_step(run, config):
    found, out = run('train_step', config, '--threads', '1')
    assert list(found['turns']) == ['ours fp32', 'bare fp32', 'single fp32']
    for turns in found['turns'].values():
        assert len(turns) == 2
        for turn in turns:
            assert turn['images'] >= 3 * 13 and turn['seconds'] >= 0.05
            assert turn['memory_bytes'] > 2**20
    ours, bare, single = (turns[0]['parameters'] for turns in found['turns'].values())
    assert ours == bare > single
    assert found['machine']['threads'] == 1
    assert '| ours      |    fp32 |' in out


def test_step_of_the_router(run, config):
    found, _ = run(
        'train_step',
        config,
        '--stage',
        'router',
        '--cfg-options',
        'default_hooks.two_stage.train_dataloader.batch_size=32',
    )
    assert list(found['turns']) == ['ours fp32', 'cached fp32']
    for turns in found['turns'].values():
        assert all(turn['images'] > 3 for turn in turns)


def test_official_step(module, config, clone, theirs, tmp_path):
    """In this process: the loader of the stand-in is registered in it."""
    train_step = module('train_step')
    args = train_step.parse_args([config, '--official', clone])
    steps, facts = train_step.official_steps('official', 'amp', args, str(tmp_path))
    turn = module('harness').measure(steps['official'], 0.0)
    # 40 images of the stand-in, in batches of 16
    assert turn['images'] == 16 + 8 + 16
    # Ten linear classes on 8x8 pixels of three colours, three experts.
    assert facts['parameters'] == 3 * (3 * 64 + 1) * 10
    assert {*facts['patches']} == {
        'Tensor.cuda',
        'pandas.DataFrame',
        'trainer.trainer.autocast',
    }


def test_inference(run, config, clone):
    found, out = run(
        'inference', config, '--official', clone, '--batch-sizes', '1', '50', '--usage', '50,20,30'
    )
    assert {(t['model'], t['part'], t['batch_size']) for t in found['turns']} == {
        (name, part, size)
        for name in ('ensemble', 'routed', 'single', 'official')
        for part in ('tensors', 'predict')
        for size in (1, 50)
        if (name, part) != ('official', 'predict')
    }
    assert all(min(t['seconds']) > 0 for t in found['turns'])
    assert found['usage'] == pytest.approx([0.5, 0.2, 0.3], abs=0.02)
    # A trunk and three experts; the routers are cheap.
    assert 1 / 3 < found['compute']['routed'] < 1
    assert 'images that use 1, 2, ... experts: 5' in out


def test_inference_of_a_checkpoint(run, config, tmp_path):
    from mmpretrain import get_model

    model = get_model(config)
    # A router that never wants another expert.
    torch.nn.init.zeros_(model.head.router.fc.weight)
    torch.nn.init.constant_(model.head.router.fc.bias, -1.0)
    model.head.router.num_updates += 1
    checkpoint = tmp_path / 'last.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    options = ['--batch-sizes', '8', '--fuse-conv-bn', '--compile']
    found, _ = run('inference', config, str(checkpoint), *options)
    assert found['usage'] == [1.0, 0.0, 0.0]
    models = {turn['model'] for turn in found['turns']}
    assert models == {'ensemble', 'routed', 'single', 'compiled'}
    assert found['compute']['compiled'] == found['compute']['routed']
    assert found['compute']['routed'] < 0.5


def test_data(run, config, clone, theirs):
    found, out = run('data', config, '--official', clone)
    assert {*found['turns']} == {
        f'{part} 0 {name}' for part in ('train', 'val') for name in ('ours', 'official')
    }
    assert all(turn['images'] >= 2 * 13 for turns in found['turns'].values() for turn in turns)
    assert '| train |' in out


@pytest.mark.parametrize(
    'name, arguments, message',
    [
        ('train_step', ['missing.py'], 'no config missing.py'),
        ('train_step', ['CONFIG', '--official', '.'], 'is no clone'),
        ('train_step', ['CONFIG', '--contenders', 'official'], 'needs --official PATH'),
        ('train_step', ['CONFIG', '--json', 'CONFIG'], 'is not overwritten'),
        (
            'train_step',
            ['CONFIG', '--stage', 'router', '--contenders', 'bare'],
            'the contenders ours and cached',
        ),
        (
            'train_step',
            ['CONFIG', '--stage', 'router', '--cfg-options', 'default_hooks.two_stage=None'],
            'no default_hooks.two_stage',
        ),
        ('train_step', ['PLAIN'], 'model.type="RIDEClassifier"'),
        ('inference', ['CONFIG', '--usage', '50,50'], '2 shares'),
        ('inference', ['CONFIG', 'missing.pth'], 'no such checkpoint'),
        (
            'inference',
            ['CONFIG', '--cfg-options', 'model.head.router=None'],
            'no model.head.router',
        ),
        ('data', ['CONFIG', '--official', 'CLONE'], 'no loader of DigitsLT'),
    ],
)
def test_mistakes_are_found_first(module, tmp_path, config, clone, name, arguments, message):
    plain = tmp_path / 'plain.py'
    plain.write_text("model = dict(type='ImageClassifier')")
    places = dict(CONFIG=config, CLONE=clone, PLAIN=str(plain))
    with pytest.raises(UserError, match=message):
        module(name).main([places.get(x, x) for x in arguments])


@pytest.mark.skipif(torch.cuda.is_available(), reason='for no GPU')
def test_missing_gpu(module, config):
    with pytest.raises(UserError, match='there is no GPU'):
        module('train_step').main([config, '--device', 'cuda'])


@pytest.mark.parametrize('name', ['train_step', 'inference', 'data'])
def test_help_has_an_example(module, name, capsys):
    with pytest.raises(SystemExit) as status:
        module(name).main(['--help'])
    assert status.value.code == 0
    out = capsys.readouterr().out
    assert f'example:\n  python benchmarks/{name}.py configs/' in out


# ------------------------------------------------------------------ the parts


def test_turns_are_taken_in_turn(module):
    calls = []
    results = module('harness').take_turns(
        {name: lambda name=name: calls.append(name) or len(calls) for name in 'AB'}, 3
    )
    assert ''.join(calls) == 'ABABAB'
    assert results == dict(A=[1, 3, 5], B=[2, 4, 6])


def test_statistics_are_those_of_rounds(module):
    harness = module('harness')
    slow, fast = [10.0, 2.0, 4.0], [12.0, 8.0, 5.0]
    # Round by round 1.2, 4 and 1.25; the ratio of the medians would be 2.
    assert harness.spread(harness.ratios(fast, slow), 2) == '1.25 (1.20 to 4.00)'
    assert harness.spread([1234.5], 1) == '1,234.5'


def count(start):
    return dict(first=iter(range(start, 999)), other=iter(range(100, 999))), dict(start=start)


def fail():
    raise UserError('what happened')


def die():
    os.write(1, b'a line of the log')
    os._exit(1)


def test_processes(module, tmp_path, monkeypatch):
    harness = module('harness')
    context = multiprocessing.get_context('forkserver')
    monkeypatch.setattr(multiprocessing, 'get_context', lambda _: context)
    process = harness.Process(count, (10,), tmp_path / 'log')
    assert process.facts == dict(start=10)
    # After the steps of the warm-up and one or three uncounted ones.
    first = 10 + harness.WARM_UP + 1
    assert process.measure('first', 0)['images'] == first + (first + 1) + (first + 2)
    assert process.measure('other', 0, 2)['images'] == 103 + 104 + 105
    process.close()
    with pytest.raises(UserError, match='what happened'):
        harness.Process(fail, (), tmp_path / 'log')
    with pytest.raises(RuntimeError, match='a line of the log'):
        harness.Process(die, (), tmp_path / 'log')


def test_steps_of_a_turn_are_counted(module, monkeypatch):
    harness = module('harness')
    now = [0.0]
    monkeypatch.setattr(harness, 'timer', lambda: now[0])
    monkeypatch.setattr(harness.time, 'perf_counter', lambda: now[0])

    def steps():
        while True:
            now[0] += 1.0
            yield 10

    turns = [harness.measure(steps(), seconds, skip) for seconds, skip in [(0, 0), (5, 2), (1, 2)]]
    assert [(turn['seconds'], turn['images']) for turn in turns] == [(3, 30), (5, 50), (3, 30)]
    assert now[0] == (1 + 3) + (3 + 5) + (3 + 3)


def test_a_training_becomes_steps(module):
    """It goes on only when a step is asked for, and its errors arrive."""
    taken = []

    def train(report):
        for images in (8, 4):
            taken.append(images)
            report(images)
        raise UserError('the disk is full')

    steps = module('official').as_steps(train)
    assert next(steps) == 8
    time.sleep(0.05)
    assert taken == [8]
    assert next(steps) == 4
    with pytest.raises(UserError, match='the disk is full'):
        next(steps)


def test_single_network_is_that_of_the_baseline(module, root):
    harness = module('harness')
    cfg = harness.load(str(root / 'configs/ride_r32_cifar100_lt.py'), {})
    harness.set_single(cfg)
    baseline = Config.fromfile(root / 'configs/baselines/ce_r32_cifar100_lt.py')
    ours, theirs = (
        {key: value.shape for key, value in MODELS.build(c.model).state_dict().items()}
        for c in (cfg, baseline)
    )
    assert ours == theirs
    cfg = harness.load(str(root / 'configs/ride_r50_imagenet_lt.py'), {})
    harness.set_single(cfg)
    # ResNet-50
    assert sum(p.numel() for p in MODELS.build(cfg.model).parameters()) == 25557032


def test_variants(module, root):
    train_step = module('train_step')
    path = str(root / 'configs/ride_r32_digits_lt.py')

    def variant(name, options={}):
        cfg = train_step.load(path, options)
        train_step.set_variant(cfg, name)
        return cfg.optim_wrapper.type, cfg.model.compile

    assert variant('amp-compiled') == ('AmpOptimWrapper', True)
    fast = {'compile': dict(mode='max-autotune'), 'optim_wrapper.type': 'AmpOptimWrapper'}
    assert variant('fp32', fast) == ('OptimWrapper', False)
    assert variant('fp32-compiled', fast)[1] == dict(mode='max-autotune')


def used_by_plan(router, batch_size):
    """Route by hand: how many of three experts each image of a batch uses."""
    used = torch.ones(batch_size, dtype=torch.long)
    active = torch.arange(batch_size)
    for index in range(2):
        active = active[router.decide(index, torch.zeros(len(active))) > 0]
        used[active] += 1
    return used.tolist()


@pytest.mark.parametrize('batch_size', [1, 7, 500])
def test_planned_shares_at_any_batch_size(module, batch_size):
    router = module('inference').PlannedRouter
    plan = router(None, [41, 9, 50])
    used = sum((used_by_plan(plan, batch_size) for _ in range(-(-2000 // batch_size))), [])[:2000]
    shares = np.bincount(used, minlength=4)[1:] / len(used)
    assert np.allclose(shares, [0.41, 0.09, 0.5], atol=0.002)
    # The same images whatever the batches are.
    assert used == used_by_plan(router(None, [41, 9, 50]), 2000)


def test_planned_router_in_a_model(module, tiny_model):
    router = module('inference').PlannedRouter
    model = MODELS.build(dict(tiny_model, test_cfg=dict(mode='route'))).eval()
    model.head.router = router(model.head.router, [25, 50, 25])
    with torch.no_grad():
        samples = model.predict(torch.randn(40, 3, 8, 8))
    used = [sample.num_experts_used for sample in samples]
    assert used == used_by_plan(router(None, [25, 50, 25]), 40)


def test_configs_of_the_official_code(module, root, clone):
    official = module('official')
    cfg = module('harness').load(str(root / 'configs/ride_r50_imagenet_lt.py'), {})
    path = official.config_path(clone, cfg, router=True)
    assert path.name == 'config_imagenet_lt_resnet50_ride_ea.json'
    cfg.model.backbone.depth = 18
    with pytest.raises(UserError, match='has no ResNet-18'):
        official.config_path(clone, cfg)
