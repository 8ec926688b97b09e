"""docs/make_short_runs.py: its configs, commands and page."""
import importlib
import json
import shlex
import subprocess
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from ride_mm.engine import launch
from ride_mm.engine.config import load_config
from ride_mm.utils.errors import UserError


@pytest.fixture
def short(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'docs')
    return importlib.import_module('make_short_runs')


def parsed(options):
    """Options as tools/train.py takes them from the command line."""
    parser = launch.common_arguments()
    args = parser.parse_args(['config.py', '--cfg-options', *options])
    return args.cfg_options


def test_commands_and_configs(root, short, monkeypatch, tmp_path):
    commands = {}

    def run(command, cwd):
        name = command[command.index('--work-dir') + 1].split('/')[-1]
        commands[name] = command
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr(
        short, 'collect_result', lambda work_dir, name: dict(
            name=name, seed=0, figures={}))
    (tmp_path / 'results/short').mkdir(parents=True)
    (tmp_path / 'results/short/ce_seed0.json').touch()
    short.train(tmp_path, ['train_dataloader.num_workers=1'])
    assert list(commands) == [name for name in short.RUNS if name != 'ce']
    for name, command in commands.items():
        config = command[2]
        options = command[command.index('--cfg-options') + 1:]
        cfg = load_config(str(root / config), parsed(options))
        assert cfg.model.compile is True
        assert cfg.train_dataloader.num_workers == 1
        hooks = {
            hook.type: hook
            for hook in cfg.default_hooks.values() if hook
        }
        stage_1 = cfg.train_cfg.max_epochs
        if 'TwoStageHook' in hooks:
            assert stage_1 == 12
            stage_1 = hooks['TwoStageHook'].begin
        assert stage_1 == 10
        if 'DeferredReweightingHook' in hooks:
            assert hooks['DeferredReweightingHook'].begin == 8
        if name != 'crt':
            assert cfg.param_scheduler[0].end == 2
            assert cfg.param_scheduler[1].milestones == [8, 9]
    assert 'work_dirs/short_runs/ride/epoch_10.pth' in shlex.join(
        commands['crt'])


def test_a_training_that_fails(short, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: SimpleNamespace(
        returncode=1))
    with pytest.raises(UserError, match='training of cross entropy failed'):
        short.train(tmp_path, [])


def test_page(short, tmp_path):
    folder = tmp_path / 'results/short'
    folder.mkdir(parents=True)

    def figures(overall):
        return {'long_tail/overall': overall, 'long_tail/few': 1.25}

    for name, content in dict(
            ce=dict(final=figures(20.04)),
            ride=dict(stage_1=figures(30.06), final=figures(29.))).items():
        (folder / f'{name}_seed0.json').write_text(
            json.dumps(dict(figures=content)))
    page = short.make_page(tmp_path)
    assert 'Not trained yet: LDAM-DRW; balanced softmax; the teacher' in page
    rows = [line for line in page.splitlines() if line.startswith('| ')]
    assert rows[2:] == [
        '| cross entropy | 20.0 | – | – | 1.2 | – | '
        '[`ce_r32_cifar100_lt.py`]'
        '(../configs/baselines/ce_r32_cifar100_lt.py) |',
        '| RIDE, 3 experts | 30.1 | – | – | 1.2 | 29.0 | '
        '[`ride_r32_cifar100_lt.py`](../configs/ride_r32_cifar100_lt.py) |',
    ]


def test_the_committed_page(short):
    short.main(['--check'])


def test_a_page_that_is_out_of_date(short, monkeypatch, tmp_path):
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'docs/short_runs.md').write_text('an older page')
    monkeypatch.setattr(short, 'ROOT', tmp_path)
    with pytest.raises(UserError, match='run python docs/make_short_runs.py'):
        short.main(['--check'])


def test_the_configs_exist(root, short):
    for run in short.RUNS.values():
        Config.fromfile(root / 'configs' / run.config)
