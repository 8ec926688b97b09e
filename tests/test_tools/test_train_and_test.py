"""tools/train.py and tools/test.py, and what a mistake of the user gets."""

import json
import os
import socket
import subprocess
import sys

import cv2
import mmengine
import numpy as np
import pytest
import torch
from conftest import load_tool
from mmengine.config import Config
from mmpretrain import get_model
from prediction_files import write_predictions

from ride_mm.analysis import read_predictions
from ride_mm.engine import launch
from ride_mm.utils.errors import UserError

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['ride_mm'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='LeNet5', num_classes=2),
    head=dict(type='ClsHead'))
data_preprocessor = dict(mean=[128.], std=[64.], to_rgb=False, num_classes=2)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        type='CustomDataset',
        data_root='{data}',
        pipeline=[
            dict(type='LoadImageFromFile', color_type='grayscale'),
            dict(type='PackInputs')
        ]),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = test_dataloader = train_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=1)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
randomness = dict(seed=0)
log_level = 'WARNING'
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a config `tiny.py` and 8 images of two classes."""
    rng = np.random.default_rng(0)
    for name in 'ab':
        (tmp_path / 'data' / name).mkdir(parents=True)
        for i in range(4):
            cv2.imwrite(
                str(tmp_path / 'data' / name / f'{i}.png'),
                rng.integers(0, 255, (32, 32), dtype=np.uint8),
            )
    (tmp_path / 'tiny.py').write_text(CONFIG.format(data=tmp_path / 'data'))
    # the tools set it
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train():
    return load_tool('tools/train.py').main


@pytest.fixture
def test():
    return load_tool('tools/test.py').main


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_train_resume_and_test(folder, train, test):
    run = folder / 'work_dirs' / 'tiny'
    train(['tiny.py', '--amp', '--no-validate'])
    assert (run / 'epoch_1.pth').is_file()

    first = (run / 'epoch_1.pth').read_bytes()
    with pytest.raises(UserError, match='--resume'):
        train(['tiny.py'])
    assert (run / 'epoch_1.pth').read_bytes() == first

    more = ['--cfg-options', 'train_cfg.max_epochs=2']
    train(['tiny.py', '--resume', *more])
    resumed = torch.load(run / 'epoch_2.pth', weights_only=False)
    assert resumed['meta']['epoch'] == 2
    assert resumed['meta']['iter'] == 4
    # from a checkpoint by name, into another folder
    train(['tiny.py', '--resume', str(run / 'epoch_1.pth'), '--work-dir', 'other', *more])
    for name, value in weights(folder / 'other' / 'epoch_2.pth').items():
        assert torch.equal(value, resumed['state_dict'][name])

    checkpoint = str(run / 'epoch_2.pth')
    trained = (run / 'tiny.py').read_bytes()
    test(['tiny.py', checkpoint, '--out', 'results/pred.npz'])
    assert (run / 'tiny.py').read_bytes() == trained
    kept = [Config.fromfile(path) for path in run.glob('*/tiny.py')]
    assert [cfg.load_from for cfg in kept] == [checkpoint]
    predictions = read_predictions('results/pred.npz')
    assert predictions.pred_score.shape == (8, 2)
    # the work_dir stands for its last checkpoint
    test(['tiny.py', str(run), '--out', 'results/again.npz'])
    assert read_predictions('results/again.npz').run['checkpoint'] == predictions.run['checkpoint']
    test(['tiny.py', checkpoint, '--out', 'results/pred.pkl'])
    for sample, score in zip(mmengine.load('results/pred.pkl'), predictions.pred_score):
        assert (sample['pred_score'].numpy() == score).all()
    with pytest.raises(UserError, match='not overwritten'):
        test(['tiny.py', checkpoint, '--out', 'results/pred.npz'])

    # data/a and data/b have files of the same names
    test(
        [
            'tiny.py',
            checkpoint,
            '--show-dir',
            'images',
            '--cfg-options',
            "default_hooks.visualization.type='VisualizationHook'",
            'test_dataloader.batch_size=3',
        ]
    )
    numbers = sorted(name.split('_')[0] for name in os.listdir('images'))
    assert numbers == [str(i) for i in range(8)]

    test(
        ['tiny.py', checkpoint, '--tta', '--amp', '--out', 'metrics.json', '--out-item', 'metrics']
    )
    with open('metrics.json') as file:
        assert 0 <= json.load(file)['accuracy/top1'] <= 100


def test_train_and_test_at_once(folder, train, monkeypatch):
    # As the first of several processes would see it.
    monkeypatch.setenv('RANK', '0')
    train(['tiny.py', '--test', '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=2'])
    predictions = read_predictions('run/predictions.npz')
    assert len(predictions) == 8
    assert predictions.run['checkpoint'] == str(folder / 'run/epoch_2.pth')
    with pytest.raises(UserError, match='run/predictions.npz exists and is not overwritten'):
        train(['tiny.py', '--test', '--resume', '--work-dir', 'run'])


def test_what_routing_gives_is_printed(tmp_path, capsys):
    """Of two images of class 0, the first expert knows one, both experts the other."""
    path = tmp_path / 'predictions.npz'
    logits = torch.tensor([[[2.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [4.0, 0.0]]])
    samples = [
        dict(
            gt_label=torch.tensor([0]),
            pred_score=expert_logits.mean(0).softmax(0),
            expert_logits=expert_logits,
            router_logits=torch.tensor([-1.0]),
            routed_compute=torch.tensor([0.7, 1.0], dtype=torch.float64),
            num_experts_used=2,
            relative_compute=1.0,
        )
        for expert_logits in logits
    ]
    print_routed = load_tool('tools/train.py').print_routed
    for counts in (None, [30, 10]):
        path.unlink(missing_ok=True)
        write_predictions(path, samples, num_experts=2, class_counts=counts)
        capsys.readouterr()
        print_routed(path)
        found = capsys.readouterr().out
        assert bool(found) is bool(counts)
    rows = [line.split('│')[1:5] for line in found.splitlines() if '│' in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['', 'threshold', 'compute', 'overall'],
        ['all experts', '0', '1.0000', '100.00'],
        ['routed', '0.5', '0.7000', '50.00'],
    ]
    assert 'The router stops every image after expert 1.' in found


def test_another_number_of_epochs(folder, train, capsys):
    train(['tiny.py', '--epochs', '2', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=3'])
    run = folder / 'work_dirs' / 'tiny'
    assert (run / 'epoch_2.pth').is_file()
    assert not (run / 'epoch_3.pth').is_file()
    assert Config.fromfile(run / 'tiny.py').train_cfg.max_epochs == 2
    assert '--epochs 2 overrides' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train(['tiny.py', '--epochs', '0'])
    assert 'at least 1' in capsys.readouterr().err


def test_fused_batch_norm_predicts_the_same(root, tmp_path, test, monkeypatch):
    config = str(root / 'configs/ride_r32_digits_lt.py')
    model = get_model(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    checkpoint = str(tmp_path / 'random.pth')
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    monkeypatch.chdir(tmp_path)
    runners = []
    build_runner = launch.build_runner

    def spy(*args):
        runners.append(build_runner(*args))
        return runners[-1]

    monkeypatch.setattr(launch, 'build_runner', spy)
    scores = []
    for i, options in enumerate([[], ['--fuse-conv-bn']]):
        test([config, checkpoint, '--out', f'{i}.npz', *options])
        scores.append(torch.from_numpy(read_predictions(f'{i}.npz').pred_score))
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-6)
    num_norms = [
        sum(isinstance(module, torch.nn.BatchNorm2d) for module in runner.model.modules())
        for runner in runners
    ]
    assert num_norms == [11 + 3 * 20, 0]


def test_a_resume_with_nothing_there_is_a_new_run(folder, train):
    train(['tiny.py', '--resume', '--work-dir', 'new'])
    assert (folder / 'new' / 'epoch_1.pth').is_file()


def test_mistakes(folder, train, test):
    with pytest.raises(UserError, match='no config tinyy.py.*mean tiny.py'):
        train(['tinyy.py'])
    with pytest.raises(UserError, match='base_batch_size'):
        train(['tiny.py', '--auto-scale-lr'])
    with pytest.raises(UserError, match='epoch_9.pth: there is no such'):
        train(['tiny.py', '--resume', 'epoch_9.pth'])
    with pytest.raises(UserError, match='epoch_9.pth: there is no such'):
        test(['tiny.py', 'epoch_9.pth'])
    (folder / 'epoch_1.pth').touch()
    with pytest.raises(UserError, match='end in .npz or .pkl'):
        test(['tiny.py', 'epoch_1.pth', '--out', 'pred.json'])
    with pytest.raises(UserError, match='VisualizationHook'):
        test(['tiny.py', 'epoch_1.pth', '--show-dir', 'images'])
    # before anything was written
    assert not (folder / 'work_dirs').exists()


def test_out_item_needs_a_file(test, capsys):
    with pytest.raises(SystemExit):
        test(['tiny.py', 'epoch_1.pth', '--out-item', 'metrics'])
    assert '--out-item needs --out FILE' in capsys.readouterr().err


def run(root, *command):
    env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1')
    env.pop('LOCAL_RANK', None)
    # `python` of dist_train.sh is the one that runs the tests
    env['VIRTUAL_ENV'] = sys.prefix
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)


def test_one_line_for_a_mistake(root, folder):
    done = run(root, sys.executable, root / 'tools' / 'train.py', 'tinyy.py')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f'error: there is no config tinyy.py (relative to {folder}). Did you mean tiny.py?'
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo is for the CPU')
def test_two_processes_without_a_gpu(root, folder, monkeypatch):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        monkeypatch.setenv('PORT', str(free.getsockname()[1]))
    done = run(root, 'bash', root / 'tools' / 'dist_train.sh', 'tiny.py', 2, '--work-dir', 'two')
    assert done.returncode == 0, done.stderr[-2000:]
    checkpoint = torch.load('two/epoch_1.pth', weights_only=False)
    # 8 images, 4 of them in a step of each process
    assert checkpoint['meta']['iter'] == 1
