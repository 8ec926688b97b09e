"""tools/analysis/bias_variance.py, with trainings in a moment, and a real
one."""
import json

import numpy as np
import pytest
from conftest import load_tool

from ride_mm.analysis import bias_variance, prepare_config
from ride_mm.utils import jobs
from ride_mm.utils.errors import UserError

# What the tool starts in place of tools/train.py and tools/test.py. Each of
# the 440 test images is taken for the next class by one run in three.
TRAIN = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
seed = int(sys.argv[-1].split('=')[1])
with open('calls.txt', 'a') as file:
    print(json.dumps(['train', *sys.argv[1:]]), file=file)
print('Epoch(train) [1][1/4]')
if seed == int(os.environ.get('FAILS', -1)):
    sys.exit('error: the disk is full')
(folder / 'epoch_4.pth').touch()
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_4.pth'))
"""
TEST = """
import json, pickle, sys
seed = int(sys.argv[-1].split('=')[1])
with open('calls.txt', 'a') as file:
    print(json.dumps(['test', *sys.argv[1:]]), file=file)
samples = [
    dict(gt_label=i // 44, pred_label=(i // 44 + (i % 3 == seed % 3)) % 10)
    for i in range(440)]
with open(sys.argv[sys.argv.index('--out') + 1], 'wb') as file:
    pickle.dump(samples, file)
"""


@pytest.fixture
def tool(monkeypatch, tmp_path):
    module = load_tool('tools/analysis/bias_variance.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, '_PAUSE', .01)
    return module


@pytest.fixture
def run(root, tool, monkeypatch, tmp_path):
    """Run the tool on two configs; what it starts is noted in calls.txt."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/train.py').write_text(TRAIN)
    (tmp_path / 'tools/test.py').write_text(TEST)
    monkeypatch.setattr(tool, 'TOOLS', tmp_path / 'tools')
    for name in ('one', 'two'):
        (tmp_path / f'{name}.py'
         ).write_text(f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n")

    def run(*args):
        (tmp_path / 'calls.txt').write_text('')
        try:
            tool.main([*map(str, args), '--jobs', '2'])
        finally:
            lines = (tmp_path / 'calls.txt').read_text().splitlines()
            run.calls = sorted(map(json.loads, lines))
        return run.calls

    return run


def expected(num_runs):
    gt_label = np.arange(440) // 44
    pred_label = np.stack([(gt_label + (np.arange(440) % 3 == seed % 3)) % 10
                           for seed in range(num_runs)])
    counts = [int(78 * .05**(c / 9)) for c in range(10)]
    return bias_variance(pred_label, gt_label, counts)


def test_two_configs_from_nothing(run, tmp_path, capsys):
    calls = run('one.py', 'two.py', '--runs', 4, '--epochs', 8, '--json',
                'out/figures.json', '--plot', 'out/picture.svg')
    assert len(calls) == 2 * 4 * 2
    seeds = ['train_dataloader.dataset.subset_seed=3', 'randomness.seed=3']
    folder = 'work_dirs/bias_variance/one/run_03'
    config = 'work_dirs/bias_variance/one/config.py'
    assert [
        'train', config, '--resume', '--no-validate', '--work-dir', folder,
        '--cfg-options', *seeds
    ] in calls
    assert [
        'test', config, f'{folder}/epoch_4.pth', '--out',
        f'{folder}/predictions.pkl', '--work-dir', folder, '--cfg-options',
        *seeds
    ] in calls
    content = json.loads((tmp_path / 'out/figures.json').read_text())
    assert content['one'] == dict(
        config='one.py', runs=4, epochs=13, groups=expected(4))
    assert content['two']['groups'] == content['one']['groups']
    out = capsys.readouterr().out
    assert 'few (< 20)' in out and 'out/picture.svg' in out
    # One in three, and the first of them again: 67 of 100 images are right.
    assert f'{folder} is done: accuracy 66.59%' in out
    assert (tmp_path / 'out/picture.svg').is_file()
    assert not (tmp_path / folder / 'predictions.pkl').exists()

    # Nothing is made twice; another run is one more.
    assert run('one.py', '--runs', 4, '--epochs', 8) == []
    calls = run('one.py', '--runs', 5, '--epochs', 8)
    assert [call[0] for call in calls] == ['test', 'train']
    assert calls[0][-1] == 'randomness.seed=4'


def test_a_run_that_fails(run, monkeypatch, tmp_path):
    monkeypatch.setenv('FAILS', '1')
    with pytest.raises(
            UserError,
            match='1 of 3 runs failed(.|\n)*one/run_01/log.txt ends'
            ' with:\n    Epoch.*\n    error: the disk is full'):
        run('one.py', '--runs', 3, '--fast')
    assert len(run.calls) == 5
    monkeypatch.delenv('FAILS')
    calls = run('one.py', '--runs', 3, '--fast')
    assert [call[0] for call in calls] == ['test', 'train']
    assert calls[0][-1] == 'randomness.seed=1'
    assert (tmp_path / 'work_dirs/bias_variance/bias_variance.png').is_file()


def test_settings_are_not_mixed(run, tmp_path):
    folder = tmp_path / 'work_dirs/bias_variance/one'
    run('one.py', '--runs', 1)
    for options, named in [
        (['--epochs', 8], 'train_cfg.max_epochs=13'),
        (['--fast'], 'train_cfg.max_epochs=9'),
        (['--cfg-options', 'train_dataloader.dataset.max_count=60'],
         'test_dataloader.dataset.max_count=60'),
    ]:
        with pytest.raises(UserError, match=f'other settings.*{named}'):
            run('one.py', '--runs', 1, *options)
        assert run.calls == []
    # How the data is read and how classes are grouped change no prediction.
    assert run('one.py', '--runs', 1, '--json', 'figures.json',
               '--cfg-options', 'train_dataloader.num_workers=0',
               'test_evaluator.0.thresholds=[3,70]') == []
    assert 'num_workers=0' in (folder / 'config.py').read_text()
    groups = json.loads((tmp_path / 'figures.json').read_text())['one']
    assert list(groups['groups']) == ['many', 'medium', 'overall']
    (folder / 'config.py').unlink()
    with pytest.raises(UserError, match='but not their config.py'):
        run('one.py', '--runs', 1)


def test_what_was_begun_only_is_no_obstacle(run, monkeypatch):
    monkeypatch.setenv('FAILS', '0')
    with pytest.raises(UserError, match='1 of 1 runs failed'):
        run('one.py', '--runs', 1, '--epochs', 8)
    monkeypatch.delenv('FAILS')
    assert len(run('one.py', '--runs', 1, '--epochs', 4)) == 2


def test_labels_that_are_not_what_they_should_be(run, tmp_path):
    run('one.py', '--runs', 2)
    path = tmp_path / 'work_dirs/bias_variance/one/run_01/labels.json'
    content = json.loads(path.read_text())
    for text, message in [
        ('{"pred_label"', 'is damaged'),
        (json.dumps(dict(pred_label=[1])), "KeyError.*'gt_label'"),
        (json.dumps(dict(content, pred_label=[1])), r'shape \(1,\).*440 test'),
        (json.dumps(dict(content, gt_label=content['gt_label'][::-1])),
         'is of other images than .*run_00'),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            run('one.py', '--runs', 2)
    path.unlink()
    assert len(run('one.py', '--runs', 2)) == 2


def test_one_at_a_time(run, tool, tmp_path):
    cfg, key = prepare_config('one.py')
    runs = tool.ResampledRuns('one.py', cfg, key, 'work_dirs/bias_variance', 1)
    runs.claim()
    with pytest.raises(UserError, match='one is in use'):
        run('one.py', '--runs', 1)
    runs.lock.close()
    assert len(run('one.py', '--runs', 1)) == 2


def test_what_cannot_be_compared(run, tmp_path):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/one.py').write_text("_base_ = '../one.py'\n")
    with pytest.raises(UserError, match='2 configs are named one'):
        run('one.py', 'other/one.py')
    (tmp_path / 'three.py').write_text(
        "_base_ = './one.py'\n"
        'train_dataloader = dict(dataset=dict(imb_factor=.1))\n')
    with pytest.raises(
            UserError, match='one.py and three.py .* in the training images'):
        run('one.py', 'three.py')
    with pytest.raises(UserError, match='plot.jpg: a picture'):
        run('one.py', '--plot', 'plot.jpg')
    with pytest.raises(UserError, match='no config four.py'):
        run('four.py')
    (tmp_path / 'empty.py').write_text('model = dict()\n')
    with pytest.raises(UserError, match='no `train_dataloader.dataset`'):
        run('empty.py')
    assert run.calls == []


def test_a_start_that_all_runs_share(run, capsys):
    run('one.py', '--runs', 1, '--cfg-options', 'load_from=old.pth',
        'model.teacher.checkpoint=six.pth')
    err = capsys.readouterr().err
    assert 'all runs of one.py share load_from=old.pth' in err
    assert 'share model.teacher.checkpoint=six.pth' in err


def test_sampled_training_sets(root, tmp_path):
    cfg, key = prepare_config(root / 'configs/ride_r32_cifar100_lt.py')
    assert key == 'train_dataloader.dataset.subset_seed'
    # The paper's 300 images, and the metrics know of them.
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert loader.dataset.max_count == 300
        assert loader.dataset.imb_factor == .01
    assert cfg.train_cfg.max_epochs == 205
    cfg, _ = prepare_config(
        root / 'configs/ride_r32_cifar100_lt.py',
        {'train_dataloader.dataset.max_count': 200},
        fast=True)
    assert cfg.test_dataloader.dataset.max_count == 200
    assert cfg.train_cfg.max_epochs == 25

    # Within a wrapper.
    (tmp_path / 'held_out.py').write_text(
        f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n"
        'train_dataloader = dict(dataset=dict(\n'
        "    _delete_=True, type='HoldOut', held_out=False,\n"
        '    dataset=_base_.train_dataloader.dataset))\n')
    cfg, key = prepare_config(tmp_path / 'held_out.py')
    assert key == 'train_dataloader.dataset.dataset.subset_seed'
    assert cfg.train_dataloader.dataset.dataset.max_count == 78

    # A list of images.
    plain = root / 'configs/ride_r50_imagenet_lt.py'
    cfg, key = prepare_config(plain)
    assert key == 'train_dataloader.dataset.seed'
    assert cfg.train_dataloader.dataset.type == 'Bootstrap'
    assert cfg.train_dataloader.dataset.dataset.type == 'ImageNetLT'
    assert 'max_count' not in cfg.test_dataloader.dataset


def test_help_and_numbers(tool, capsys):
    with pytest.raises(SystemExit) as info:
        tool.parse_args(['--help'])
    assert info.value.code == 0
    assert 'tools/analysis/bias_variance.py \\\n' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tool.parse_args(['one.py', '--runs', '0'])
    assert 'whole number of at least 1' in capsys.readouterr().err


def test_real_training(root, tool, monkeypatch, tmp_path):
    monkeypatch.setenv('PYTHONPATH', str(root))
    (tmp_path / 'tiny.py').write_text(
        f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n"
        'model = dict(backbone=dict(depth=20),\n'
        '             neck=dict(expert=dict(depth=20)))\n'
        'train_dataloader = dict(num_workers=0)\n'
        'test_dataloader = dict(num_workers=0)\n')
    tool.main([
        'tiny.py', '--runs', '1', '--epochs', '1', '--work-dir', 'runs',
        '--json', 'figures.json'
    ])
    groups = json.loads((tmp_path / 'figures.json').read_text())['tiny']
    assert list(groups['groups']) == ['medium', 'few', 'overall']
    folder = tmp_path / 'runs/tiny/run_00'
    # One epoch of the experts and five of the router, 6 steps each.
    assert [path.name for path in folder.glob('*.pth')] == ['epoch_6.pth']
    log = (folder / 'log.txt').read_text()
    assert 'max_count=78' in log and 'Stage 2' in log
    assert 'experts/used_1' in log  # tested with the router
    labels = json.loads((folder / 'labels.json').read_text())
    assert np.bincount(labels['gt_label']).tolist() == [44] * 10
    assert set(labels['pred_label']) <= set(range(10))
