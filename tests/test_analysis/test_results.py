"""tools/analysis/collect_result.py: what a training run has measured."""
import json
import shlex
import shutil
import statistics
import time

import cv2
import numpy as np
import pytest
from conftest import load_tool
from mmengine.config import Config, DictAction

from ride_mm.analysis import collect_result, read_results, write_result
from ride_mm.engine import launch
from ride_mm.utils.errors import UserError

CONFIG = """
model = dict(
    type='RIDEClassifier',
    num_experts=2,
    head=dict(router=dict(topk=3), diversity=dict(weight=.5)))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        type='RepeatDataset',
        dataset=dict(
            type='CIFAR100LT', data_root='data', imb_factor=.02,
            max_count=300,
            pipeline=[dict(type='A', scale=(1, 2)), dict(type='B')])))
param_scheduler = [dict(type='MultiStepLR', milestones=[2, 3])]
default_hooks = dict(two_stage=dict(type='TwoStageHook', begin=8))
train_cfg = dict(max_epochs=10, val_interval=2)
randomness = dict(seed=0)
"""
OPTIONS = {
    'default_hooks.two_stage.begin': 4,
    'model.compile': True,
    'model.head.diversity': None,
    'param_scheduler.0.milestones': [1, 2],
    'train_cfg.max_epochs': 6,
}
HOUSEKEEPING = {
    'default_hooks.checkpoint.interval': 2,
    'train_dataloader.dataset.dataset.data_root': '/elsewhere',
    'train_dataloader.num_workers': 3,
    'work_dir': '/elsewhere/run',
    'randomness.seed': 7,
}
LOG = """start
System environment:
    sys.platform: linux
    Python: 3.11.7 (main) [GCC 12]
    numpy_random_seed: 3
{gpus}    PyTorch: 2.11.0
    PyTorch compiling details: PyTorch built with:
  - CPU capability usage: AVX512

    TorchVision: 0.26.0
    MMEngine: 0.10.7

Runtime environment:
    seed: 7
    GPU number: {processes}

"""
FIRST, SECOND = '20260101_000001', '20260102_000001'
STEPS, ROUTER_STEPS = 50, 21


def train_record(epoch, step, shift=0.):
    stage_2 = epoch > 4
    loss = 10. / epoch + step / 100 + shift
    losses = dict(loss_router=loss) if stage_2 else dict(
        loss_cls=loss + .5, loss_diversity=-.5)
    return dict(
        lr=.1 / epoch,
        data_time=.01,
        loss=loss,
        **losses,
        time=.2 + step / 1000 + shift,
        epoch=epoch,
        iter=step,
        step=step)


def val_record(epoch, shift=0.):
    figures = {
        'long_tail/overall': 30. + epoch + shift,
        'long_tail/balanced': 29.,
        'long_tail/many': 60. / 7,
        'long_tail/overall_top5': 70.,
        'long_tail/many_top5': 80.,
        'experts/used_1': 10. * epoch,
        'experts/compute': .875,
        'experts/many_compute': .75,
    }
    return dict(**figures, data_time=.01, time=.1, step=epoch)


class Run:
    """A work_dir in two pieces: stopped in epoch 4, gone on with it."""

    def __init__(self, folder):
        self.path = folder / 'work_dirs' / 'tiny'
        self.config = Config.fromfile(str(folder / 'configs' / 'tiny.py'))
        self.config.merge_from_dict({**OPTIONS, **HOUSEKEEPING})
        launch.set_dataloader_defaults(self.config)
        self.records = {FIRST: [], SECOND: []}
        for epoch in (1, 2, 3):
            self.records[FIRST] += [
                train_record(epoch, step) for step in (20, 40)
            ]
            if epoch == 2:
                self.records[FIRST].append(val_record(2))
        self.records[FIRST] += [train_record(4, 20), val_record(4, shift=-9.)]
        for epoch in (4, 5, 6):
            self.records[SECOND] += [
                train_record(epoch, step, shift=1.)
                for step in ((20, 40) if epoch == 4 else (20, ))
            ]
            if epoch in (4, 6):
                self.records[SECOND].append(val_record(epoch))
        self.log = LOG.format(gpus='', processes=1)

    def write(self, **configs):
        """Write all pieces; `configs` by piece where they differ."""
        for name, records in self.records.items():
            data = self.path / name / 'vis_data'
            data.mkdir(parents=True, exist_ok=True)
            (data / 'scalars.json').write_text(''.join(
                json.dumps(record) + '\n' for record in records))
            configs.get(name, self.config).dump(str(data / 'config.py'))
            lines = [
                'x - INFO - Epoch(train)  [{epoch}][{step}/{total}]  lr: 1\n'.
                format(
                    **record,
                    total=STEPS if record['epoch'] <= 4 else ROUTER_STEPS)
                for record in records if 'epoch' in record
            ]
            (self.path / name / f'{name}.log').write_text(self.log +
                                                          ''.join(lines))
        self.config.dump(str(self.path / 'tiny.py'))
        return self.path


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / 'configs' / 'sub').mkdir(parents=True)
    (tmp_path / 'configs' / 'tiny.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path)


def test_pieces_are_merged(run):
    result = collect_result(run.write())
    log = result['log']['train']
    assert [record['epoch'] for record in log] == [1, 2, 3, 4, 5, 6]
    used = {
        record['epoch']: []
        for record in run.records[FIRST] + run.records[SECOND]
        if 'epoch' in record
    }
    for name, epochs in ((FIRST, (1, 2, 3)), (SECOND, (4, 5, 6))):
        for record in run.records[name]:
            if record.get('epoch') in epochs:
                used[record['epoch']].append(record)
    seconds = 0
    for record in log:
        parts = used[record['epoch']]
        steps = STEPS if record['epoch'] <= 4 else ROUTER_STEPS
        for key in set(parts[0]) - {
                'lr', 'data_time', 'time', 'epoch', 'iter', 'step'
        }:
            assert record[key] == pytest.approx(
                np.mean([part[key] for part in parts]), rel=1e-4)
        assert record['lr'] == pytest.approx(.1 / record['epoch'], rel=1e-4)
        assert record['seconds'] == pytest.approx(
            steps * np.mean([part['time'] for part in parts]), rel=1e-4)
        seconds += record['seconds']
    assert set(log[4]) == {'epoch', 'lr', 'loss', 'loss_router', 'seconds'}
    assert result['training_seconds'] == pytest.approx(seconds, abs=.5)


def test_figures(run):
    result = collect_result(run.write())
    val = result['log']['val']
    assert [record['epoch'] for record in val] == [2, 4, 6]
    # the validation after the repeated epoch, not the one before the stop
    assert [record['long_tail/overall'] for record in val] == [32., 34., 36.]
    assert set(val[0]) == {
        'epoch', 'long_tail/overall', 'long_tail/many',
        'long_tail/overall_top5', 'experts/used_1', 'experts/compute'
    }
    stage_1, final = result['figures']['stage_1'], result['figures']['final']
    assert list(result['figures']) == ['stage_1', 'final']
    assert (stage_1['epoch'], final['epoch']) == (4, 6)
    expected = val_record(6)
    for key in ('data_time', 'time', 'step'):
        del expected[key]
    assert final == pytest.approx(dict(expected, epoch=6), rel=1e-4)
    assert stage_1['experts/used_1'] == 40.


def test_what_was_trained(run):
    result = collect_result(run.write(), commit='abc')
    assert result['name'] == 'tiny' and result['config'] == 'configs/tiny.py'
    assert result['seed'] == 7 and result['commit'] == 'abc'
    assert result['data'] == dict(
        type='CIFAR100LT', imbalance=50, max_count=300)
    assert result['experts'] == 2
    assert (result['epochs'], result['epochs_of_config']) == (6, 10)
    assert result['options'] == OPTIONS
    environment = dict(
        machine='CPU with AVX512',
        python='3.11.7',
        torch='2.11.0',
        torchvision='0.26.0',
        mmengine='0.10.7')
    assert result['pieces'] == [
        dict(first_epoch=1, last_epoch=4, **environment),
        dict(first_epoch=4, last_epoch=6, **environment)
    ]


def test_command_repeats_the_run(run):
    result = collect_result(run.write())
    python, tool, config, flag, *pairs = shlex.split(result['command'])
    assert (python, tool, config, flag) == ('python', 'tools/train.py',
                                            'configs/tiny.py', '--cfg-options')
    again = Config.fromfile(config)
    again.merge_from_dict({
        key: DictAction._parse_iterable(value)
        for key, value in (pair.split('=', 1) for pair in pairs)
    })
    assert again.train_cfg == run.config.train_cfg
    assert again.default_hooks.two_stage == run.config.default_hooks.two_stage
    assert again.param_scheduler == run.config.param_scheduler
    assert again.randomness.seed == 7
    assert again.model == run.config.model

    stated = collect_result(run.path, command='make it')
    assert stated == dict(result, command='make it')


def test_several_processes_on_gpus(run):
    run.log = LOG.format(gpus='    GPU 0,1: NVIDIA H200\n', processes=2)
    result = collect_result(run.write())
    assert {piece['machine']
            for piece in result['pieces']} == {'2 x NVIDIA H200'}
    assert result['command'].startswith(
        'bash tools/dist_train.sh configs/tiny.py 2 --cfg-options ')

    run.log = LOG.format(gpus='', processes=2)
    piece, _ = collect_result(run.write())['pieces']
    assert piece['machine'] == 'CPU with AVX512, 2 processes'
    piece, _ = collect_result(run.path, machine='my desk')['pieces']
    assert piece['machine'] == 'my desk'


def test_resumed_with_other_options(run):
    other = run.config.copy()
    other.merge_from_dict({'model.compile': False})
    result = collect_result(run.write(**{FIRST: other}))
    assert result['options'] == OPTIONS
    assert result['pieces'][0]['options'] == {
        **OPTIONS, 'model.compile': False
    }
    assert 'options' not in result['pieces'][1]


def test_single_stage_has_no_stage_1(run):
    run.config.default_hooks.two_stage.begin = 6
    assert list(collect_result(run.write())['figures']) == ['final']
    run.config.default_hooks.two_stage = None
    result = collect_result(run.write(), command='x')
    assert list(result['figures']) == ['final']
    assert result['options']['default_hooks.two_stage'] is None


def test_killed_while_writing(run):
    path = run.write() / FIRST / 'vis_data' / 'scalars.json'
    whole = collect_result(run.path)
    path.write_text(path.read_text() + '{"lr": 0.1, "lo')
    # killed before anything was logged, and a later test in the same folder
    (run.path / '20260101_120000').mkdir()
    shutil.copytree(path.parent, run.path / '20260103_000000' / 'vis_data')
    (run.path / '20260103_000000' / 'vis_data' / 'scalars.json').write_text('')
    assert collect_result(run.path) == whole
    path.write_text('{"lr": 0.1, "lo\n' + path.read_text())
    with pytest.raises(UserError, match='scalars.json, line 1'):
        collect_result(run.path)


def drop(run, name, epoch):
    run.records[name] = [
        record for record in run.records[name] if record.get('epoch') != epoch
    ]


def test_gap(run):
    drop(run, FIRST, 2)
    drop(run, FIRST, 3)
    with pytest.raises(UserError, match=r'gap.*epoch 2 \(2 missing'):
        collect_result(run.write())


def test_not_complete(run):
    run.records[SECOND].pop()
    with pytest.raises(
            UserError, match='not complete: 6 epochs.*last one logged is 6'):
        collect_result(run.write())


def test_work_dir_of_somebody_else(run, tmp_path):
    """Its config is read and not run; what is odd is told in a line."""
    config = run.write() / SECOND / 'vis_data' / 'config.py'
    text = config.read_text()
    config.write_text(text + f"open(r'{tmp_path}/trace', 'w')\n")
    with pytest.raises(UserError, match=r'config.py, line \d+: .*`open\('):
        collect_result(run.path)
    assert not (tmp_path / 'trace').exists()
    config.write_text(text.replace('train_dataloader', 'other'))
    with pytest.raises(UserError, match='is not what tools/train.py writes'):
        collect_result(run.path)


def test_no_run(run, tmp_path):
    with pytest.raises(UserError, match='no work_dir absent'):
        collect_result('absent')
    with pytest.raises(UserError, match='holds no training'):
        collect_result(tmp_path)


def test_log_without_environment(run):
    (run.write() / FIRST / f'{FIRST}.log').write_text('')
    with pytest.raises(UserError, match="log_level='INFO'"):
        collect_result(run.path)


def test_config_is_unclear(run):
    run.write()
    (run.path / 'other.py').touch()
    with pytest.raises(UserError, match='other.py, tiny.py'):
        collect_result(run.path)
    (run.path / 'other.py').unlink()
    shutil.copy('configs/tiny.py', 'configs/sub/tiny.py')
    with pytest.raises(UserError, match='tiny.py.*found 2'):
        collect_result(run.path)


def test_options_that_no_command_expresses(run):
    pipeline = run.config.train_dataloader.dataset.dataset.pipeline
    pipeline.append(dict(type='C'))
    with pytest.raises(UserError, match='dataset.pipeline.*--command'):
        collect_result(run.write())
    result = collect_result(run.path, command='mine')
    assert result['options']['train_dataloader.dataset.dataset.pipeline'] == [
        dict(type='A', scale=[1, 2]),
        dict(type='B'),
        dict(type='C')
    ]


def test_file(run, capsys):
    run.write()
    load_tool('tools/analysis/collect_result.py').main(
        [str(run.path), '--name', 'short', '--machine', 'here'])
    assert capsys.readouterr().out == 'results/short_seed7.json\n'
    (name, (result, )), = read_results('results').items()
    assert name == 'short'
    assert result == collect_result(run.path, name='short', machine='here')
    with pytest.raises(UserError, match='named without a folder'):
        collect_result(run.path, name='../short')

    path = write_result(result, 'results')  # the same once more
    before = path.read_text()
    assert max(map(len, before.splitlines())) < 600
    with pytest.raises(UserError, match='not overwritten'):
        write_result(dict(result, epochs=5), 'results')
    assert path.read_text() == before


def test_a_long_run_stays_small(run):
    result = collect_result(run.write())
    result['log'] = dict(
        train=[dict(result['log']['train'][0], epoch=i) for i in range(205)],
        val=[dict(result['log']['val'][0], epoch=i) for i in range(21)])
    assert write_result(result, 'results').stat().st_size < 60000


def test_seeds_are_grouped(run):
    result = collect_result(run.write())
    for seed in (10, 2):
        write_result(dict(result, seed=seed), 'results')
    write_result(dict(result, name='other'), 'results')
    groups = read_results('results')
    assert {
        name: [result['seed'] for result in results]
        for name, results in groups.items()
    } == dict(
        tiny=[2, 10], other=[7])

    write_result(dict(result, seed=3, options={}), 'results')
    with pytest.raises(UserError, match='named tiny differ in `options`'):
        read_results('results')


@pytest.mark.parametrize('text', ['{', '[]', '{"name": "a", "seed": 1}'])
def test_file_that_is_no_result(tmp_path, text):
    (tmp_path / 'a_seed1.json').write_text(text)
    with pytest.raises(UserError, match='a_seed1.json is not a result'):
        read_results(tmp_path)


def test_renamed_file(run):
    path = write_result(collect_result(run.write()), 'results')
    path.rename('results/other_seed7.json')
    with pytest.raises(UserError, match='holds the result tiny_seed7'):
        read_results('results')


REAL = """
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
        data_root='data',
        metainfo=dict(class_counts=[200, 4]),
        pipeline=[
            dict(type='LoadImageFromFile', color_type='grayscale'),
            dict(type='PackInputs')
        ]),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = train_dataloader
val_evaluator = dict(type='LongTailMetric')
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
"""


def test_of_a_real_run(tmp_path, monkeypatch):
    """What tools/train.py writes is what is read: two pieces, no seed."""
    rng = np.random.default_rng(0)
    for name in 'ab':
        (tmp_path / 'data' / name).mkdir(parents=True)
        for i in range(4):
            cv2.imwrite(
                str(tmp_path / 'data' / name / f'{i}.png'),
                rng.integers(0, 255, (32, 32), dtype=np.uint8))
    (tmp_path / 'real.py').write_text(REAL)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    train = load_tool('tools/train.py').main
    train(['real.py'])
    time.sleep(1)  # a folder is named by the second
    train(['real.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])

    result = collect_result('work_dirs/real')
    assert result['command'] == (
        'python tools/train.py real.py --cfg-options '
        f"train_cfg.max_epochs=2 randomness.seed={result['seed']}")
    assert result['options'] == {'train_cfg.max_epochs': 2}
    assert [(piece['first_epoch'], piece['last_epoch'], piece.get('options'))
            for piece in result['pieces']] == [(1, 1, {}), (2, 2, None)]
    folders = sorted(
        (tmp_path / 'work_dirs/real').glob('*/vis_data/scalars.json'))
    assert len(folders) == 2
    for path, epoch in zip(folders, result['log']['train']):
        steps, validation = map(json.loads, path.read_text().splitlines())
        assert epoch['loss'] == pytest.approx(steps['loss'], rel=1e-4)
        assert epoch['seconds'] == pytest.approx(2 * steps['time'], rel=1e-4)
    final = result['figures']['final']
    assert final['long_tail/overall'] == validation['long_tail/overall']
    assert final['long_tail/overall'] == statistics.mean(
        (final['long_tail/many'], final['long_tail/few']))
