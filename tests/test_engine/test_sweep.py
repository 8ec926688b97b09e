"""tools/sweep.py, with trainings in a moment, and a real one."""

import json
import os
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest
from conftest import load_tool
from mmengine.config import Config
from mmengine.logging import MMLogger

from ride_mm.engine import sweep
from ride_mm.engine.schedule import load_training
from ride_mm.utils.errors import UserError

# What the tool starts in place of tools/train.py and tools/test.py.
TRAIN = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
seed = int(sys.argv[-1].split('=')[1])
with open('calls.txt', 'a') as file:
    print(json.dumps(['train', *sys.argv[1:]]), file=file)
if seed == int(os.environ.get('FAILS', -1)):
    sys.exit('error: the disk is full')
data = folder / '2026' / 'vis_data'
data.mkdir(parents=True, exist_ok=True)
records = [dict(epoch=e, iter=7 * e, step=e, loss=1. / e, time=.5)
           for e in (1, 2, 3)]
records += [{'step': 2, 'long_tail/overall': 40. + seed},
            {'step': 3, 'long_tail/overall': 39. + seed,
             'experts/compute': .8}]
(data / 'scalars.json').write_text('\\n'.join(map(json.dumps, records)))
(data / 'config.py').touch()
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
"""
TEST = """
import json, sys
with open('calls.txt', 'a') as file:
    print(json.dumps(['test', *sys.argv[1:]]), file=file)
open(sys.argv[sys.argv.index('--out') + 1], 'x').close()  # it must not exist
"""


@pytest.fixture
def run(root, monkeypatch, tmp_path):
    """Run the tool; what it starts is noted in calls.txt."""
    tool = load_tool('tools/sweep.py')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/train.py').write_text(TRAIN)
    (tmp_path / 'tools/test.py').write_text(TEST)
    monkeypatch.setattr(tool, 'TOOLS', tmp_path / 'tools')
    for name in ('one', 'two'):
        (tmp_path / f'{name}.py').write_text(f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n")

    def run(*args):
        (tmp_path / 'calls.txt').write_text('')
        try:
            tool.main([*map(str, args), '--jobs', '2'])
        finally:
            lines = (tmp_path / 'calls.txt').read_text().splitlines()
            run.calls = sorted(map(json.loads, lines))
        return run.calls

    return run


def test_two_configs_from_nothing(run, tmp_path, capsys):
    calls = run('one.py', 'two.py', '--seeds', 2, '--epochs', 3)
    assert len(calls) == 2 * 2 * 2
    folder, config = 'work_dirs/sweep/one/seed_1', 'work_dirs/sweep/one'
    common = ['--work-dir', folder, '--cfg-options', 'randomness.seed=1']
    assert ['train', f'{config}/config.py', '--resume', *common] in calls
    assert [
        'test',
        f'{config}/config.py',
        f'{folder}/epoch_3.pth',
        '--out',
        f'{folder}/predictions.npz',
        *common,
    ] in calls
    result = json.loads((tmp_path / 'work_dirs/sweep/one_seed1.json').read_text())
    assert (result['name'], result['seed'], result['epochs']) == ('one', 1, 3)
    assert result['figures'] == dict(
        stage_1={'epoch': 2, 'long_tail/overall': 41.0},
        final={'epoch': 3, 'long_tail/overall': 40.0, 'experts/compute': 0.8},
    )
    assert result['training_seconds'] == round(21 * 0.5)
    assert result['command'] == ('python tools/sweep.py one.py two.py --seeds 2 --epochs 3')
    assert result['log']['train'][1] == dict(epoch=2, loss=0.5)
    out = capsys.readouterr().out
    assert f'{folder} is done' in out
    assert '| one, all experts |     2 |      2 | 40.5 ± 0.7 |' in out
    assert '| two, routed      |     2 |      3 | 39.5 ± 0.7 |' in out

    # Nothing is made twice; another seed is one run more.
    assert run('one.py', '--seeds', 2, '--epochs', 3) == []
    calls = run('one.py', '--seeds', 3, '--epochs', 3)
    assert [call[0] for call in calls] == ['test', 'train']
    assert calls[0][-1] == 'randomness.seed=2'


def test_a_run_that_fails(run, monkeypatch):
    monkeypatch.setenv('FAILS', '1')
    with pytest.raises(
        UserError,
        match='1 of 3 runs failed(.|\n)*one/seed_1/log.txt ends with:\n    error: the disk is full',
    ):
        run('one.py', '--seeds', 3)
    assert len(run.calls) == 5
    monkeypatch.delenv('FAILS')
    assert [call[0] for call in run('one.py', '--seeds', 3)] == ['test', 'train']


def test_a_run_that_was_interrupted_after_its_test(run, tmp_path):
    calls = run('one.py', '--seeds', 1)
    (tmp_path / 'work_dirs/sweep/one_seed0.json').unlink()
    assert run('one.py', '--seeds', 1) == calls
    assert (tmp_path / 'work_dirs/sweep/one_seed0.json').exists()


def test_a_run_without_validation(run, tmp_path):
    train = tmp_path / 'tools/train.py'
    train.write_text(train.read_text().replace('records += [', '_ = ['))
    with pytest.raises(UserError, match='seed_0: there was no validation'):
        run('one.py', '--seeds', 1)
    assert not (tmp_path / 'work_dirs/sweep/one_seed0.json').exists()


def test_settings_are_not_mixed(run):
    run('one.py', '--seeds', 1)
    for options, named in [
        (['--epochs', 8], 'reweighting.begin=6'),
        (['--amp'], "optim_wrapper.type='AmpOptimWrapper'"),
        (['--resample'], 'max_count=78'),
    ]:
        with pytest.raises(UserError, match=f'settings other than .*{named}'):
            run('one.py', '--seeds', 1, *options)
        assert run.calls == []
    # How the data is read and how classes are grouped change no training.
    assert (
        run(
            'one.py',
            '--seeds',
            1,
            '--cfg-options',
            'train_dataloader.num_workers=0',
            'test_evaluator.0.thresholds=[3,70]',
        )
        == []
    )


def test_mistakes(run, tmp_path, capsys):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/one.py').write_text("_base_ = '../one.py'\n")
    with pytest.raises(UserError, match='two configs are named one'):
        run('one.py', 'other/one.py')
    with pytest.raises(UserError, match='no config four.py'):
        run('four.py')
    with pytest.raises(UserError, match='needs a CheckpointHook'):
        run('one.py', '--cfg-options', 'default_hooks.checkpoint=None')
    with pytest.raises(SystemExit):
        run('one.py', '--slurm', 'gpu')
    assert "--slurm: expected KEY=VALUE, found 'gpu'" in capsys.readouterr().err
    assert run.calls == []


def test_training_sets_of_their_own(run, capsys):
    calls = run('one.py', '--seeds', 1, '--resample', '--cfg-options', 'load_from=old.pth')
    assert calls[0][-2:] == ['randomness.seed=0', 'train_dataloader.dataset.subset_seed=0']
    assert 'all runs of one.py share load_from=old.pth' in (capsys.readouterr().err)


def test_sampled_training_sets(root, tmp_path):

    def sampled(path, options=None):
        cfg = load_training(str(path), options)
        return cfg, sweep.sample_training_set(cfg)

    cfg, key = sampled(root / 'configs/ride_r32_cifar100_lt.py')
    assert key == 'train_dataloader.dataset.subset_seed'
    # The paper's 300 images, and the metrics know of them.
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert loader.dataset.max_count == 300
        assert loader.dataset.imb_factor == 0.01
    cfg, _ = sampled(
        root / 'configs/ride_r32_cifar100_lt.py', {'train_dataloader.dataset.max_count': 200}
    )
    assert cfg.test_dataloader.dataset.max_count == 200

    # Within a wrapper.
    (tmp_path / 'held_out.py').write_text(
        f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n"
        'train_dataloader = dict(dataset=dict(\n'
        "    _delete_=True, type='HoldOut', held_out=False,\n"
        '    dataset=_base_.train_dataloader.dataset))\n'
    )
    cfg, key = sampled(tmp_path / 'held_out.py')
    assert key == 'train_dataloader.dataset.dataset.subset_seed'
    assert cfg.train_dataloader.dataset.dataset.max_count == 78

    # A list of images.
    cfg, key = sampled(root / 'configs/ride_r50_imagenet_lt.py')
    assert key == 'train_dataloader.dataset.seed'
    assert cfg.train_dataloader.dataset.type == 'Bootstrap'
    assert cfg.train_dataloader.dataset.dataset.type == 'ImageNetLT'
    assert 'max_count' not in cfg.test_dataloader.dataset


def test_shares_of_the_machine(monkeypatch):
    monkeypatch.setattr(sweep.torch, 'get_num_threads', lambda: 8)
    monkeypatch.setattr(sweep.torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(os, 'sysconf', lambda name: 2**16)  # 4 GiB in all
    assert sweep.share_machine(None, 9) == 2 * [dict(OMP_NUM_THREADS='4')]
    assert sweep.share_machine(3, 9) == 3 * [dict(OMP_NUM_THREADS='2')]
    assert len(sweep.share_machine(3, 2)) == 2
    monkeypatch.setattr(sweep.torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '5,7')
    assert [share['CUDA_VISIBLE_DEVICES'] for share in sweep.share_machine(3, 9)] == ['5', '7', '5']


def test_jobs_of_a_cluster(root, monkeypatch, tmp_path):
    """By submitit's executor for this machine."""
    pytest.importorskip('submitit')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(root))
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'test.py').write_text(TEST)
    cfg = load_training(str(root / 'configs/ride_r32_digits_lt.py'))
    runs = sweep.prepare_runs('digits', cfg, tmp_path / 'sweep', [0, 1], 'a command', tmp_path)
    monkeypatch.setenv('FAILS', '1')

    def make(runs):
        return sweep.make_on_cluster(runs, tmp_path / 'jobs', dict(timeout_min=5), cluster='local')

    ended = {}
    with pytest.raises(UserError, match='1 of 2 runs failed'):
        for run, error in sweep.complete(runs, make):
            ended[run.seed] = error
    assert ended[0] is None and 'the disk is full' in ended[1]
    assert [run.result.exists() for run in runs] == [True, False]
    with pytest.raises(UserError, match='--slurm: .*nonsense'):
        next(sweep.make_on_cluster(runs, tmp_path / 'jobs', dict(nonsense=1), cluster='local'))


def run_in_this_process(command, stdout, **_):
    """What a process of a sweep does, without importing everything anew."""
    _, tool, *arguments = command
    # Loggers go by the second in which a run begins.
    MMLogger._instance_dict.clear()
    with open(stdout.name, 'a') as log:
        with redirect_stdout(log), redirect_stderr(log):
            load_tool(tool).main(arguments)
    MMLogger._instance_dict.clear()
    return SimpleNamespace(returncode=0)


def test_real_training(root, monkeypatch, tmp_path, capsys):
    """Two tiny models with training sets of their own; bias and variance."""
    tool = load_tool('tools/sweep.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(
        sweep, 'subprocess', SimpleNamespace(run=run_in_this_process, DEVNULL=None, STDOUT=None)
    )
    (tmp_path / 'tiny.py').write_text(
        f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n"
        'model = dict(backbone=dict(depth=20),\n'
        '             neck=dict(expert=dict(depth=20)))\n'
        'train_dataloader = dict(num_workers=0, dataset=dict(max_count=30))\n'
        'test_dataloader = dict(num_workers=0)\n'
    )
    tool.main(
        [
            'tiny.py',
            '--seeds',
            '2',
            '--epochs',
            '2',
            '--work-dir',
            'runs',
            '--resample',
            '--jobs',
            '1',
        ]
    )
    assert '| tiny, routed      |     2 |      2 |' in capsys.readouterr().out
    folder = tmp_path / 'runs/tiny/seed_1'
    log = (folder / 'log.txt').read_text()
    assert 'Stage 2' in log and 'experts/used_1' in log
    assert Config.fromfile(folder / 'config.py').train_dataloader.dataset.subset_seed == 1
    load_tool('tools/analysis/bias_variance.py').main(
        ['runs/tiny', '--json', 'figures.json', '--plot', 'picture.svg']
    )
    figures = json.loads((tmp_path / 'figures.json').read_text())['tiny']
    assert figures['runs'] == 2
    overall = figures['groups']['overall']
    assert overall['error'] == pytest.approx(overall['bias'] + overall['net_variance'])
    assert (tmp_path / 'picture.svg').is_file()
