import io
import json
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from mmengine.hooks import LoggerHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.progress import Progress
from runs import digits_config

from ride_mm.engine import launch
from ride_mm.engine.screen import ProgressHook, progress_bar, validation_table
from ride_mm.evaluation import LongTailMetric

BANNER = ('System environment:', 'Config:\n', 'Hooks will be executed', 'FileClient')
TABLES = ('Accuracy (%)', 'Experts used', 'Epoch(val)')


class Terminal(io.StringIO):
    def isatty(self):
        return True


def config(work_dir, **options):
    cfg = digits_config(ROOT, work_dir, **{'train_cfg.val_interval': 1, **options})
    # mmengine keeps loggers by this name
    cfg.experiment_name = work_dir.name
    return cfg


def read(work_dir, pattern):
    (path,) = work_dir.glob(pattern)
    return path.read_text()


def use_terminal(monkeypatch, name='stderr'):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('NO_COLOR', '1')
    monkeypatch.setattr(sys, name, Terminal())
    return getattr(sys, name)


def test_the_screen_leaves_out_what_the_log_file_has(tmp_path, capsys):
    launch.train(config(tmp_path))
    screen, log = capsys.readouterr().out, read(tmp_path, '*/*.log')
    for text in (*BANNER, *TABLES):
        assert text in log and text not in screen
    # a table for each of five validations, and none for the check before the training
    assert log.count('Accuracy (%)') == 5
    lines = screen.splitlines()
    assert str(tmp_path) in lines[0] and lines[0].endswith('.log')
    assert 'Epoch(train) [5]' in screen and 'Saving checkpoint at 5 epochs' in screen
    first = next(i for i, line in enumerate(lines) if line.endswith('Validation of epoch 1'))
    assert lines[first + 1].split() == ['top-1', 'experts', 'compute']
    titles = ['overall', 'balanced (class mean)', 'many (> 20)', 'medium (5 to 20)', 'few (< 5)']
    assert [line[1:24].strip() for line in lines[first + 2 : first + 7]] == titles

    records = [
        json.loads(line) for line in read(tmp_path, '*/vis_data/scalars.json').split('\n')[:-1]
    ]
    stage_1 = [record for record in records if 'loss_cls' in record]
    assert len(stage_1) == 3
    for record in stage_1:
        of_experts = [record[f'expert/loss_{k}'] for k in (1, 2, 3)]
        assert sum(of_experts) == pytest.approx(record['loss_cls'], rel=1e-5)
    validations = [record for record in records if 'long_tail/overall' in record]
    assert len(validations) == 5
    for record in validations:
        for group in ('many', 'medium', 'few'):
            assert {f'long_tail/{group}', f'experts/{group}_mean'} <= record.keys()


def test_verbose(tmp_path, capsys):
    runner = launch.build_runner(config(tmp_path), verbose=True)
    runner.val()
    screen = capsys.readouterr().out
    for text in (*BANNER[:3], *TABLES):
        assert text in screen


def test_runner_of_another_type(tmp_path, capsys):
    class OtherRunner(Runner):
        pass

    launch.RUNNERS.register_module(module=OtherRunner)
    runner = launch.build_runner(config(tmp_path, runner_type='OtherRunner'))
    assert isinstance(runner, OtherRunner)
    assert 'Config:' not in capsys.readouterr().out


def test_warnings_are_shown(tmp_path, capsys):
    runner = launch.build_runner(config(tmp_path))

    def evaluate(size):
        runner.logger.info('a table')
        runner.logger.warning('a warning')
        return {'long_tail/overall': 50.0}

    runner.val_loop.evaluator.evaluate = evaluate
    runner.val()
    runner.logger.info('what follows')
    screen = capsys.readouterr().out
    assert 'a table' not in screen
    assert 'a warning' in screen and 'what follows' in screen


def test_summary_of_other_metrics():
    metric = LongTailMetric(topk=(1, 5), class_counts=[300, 50, 5])
    metrics = {
        'long_tail/overall': 40.0,
        'long_tail/overall_top5': 70.0,
        'long_tail/balanced': 38.0,
        'long_tail/few': 12.5,
        'accuracy/top1': 40.0,
        'accuracy/by_class': [1.0],
    }
    text = validation_table(metrics, metric).splitlines()
    assert [line.split() for line in text] == [
        ['top-1', 'top-5'],
        ['overall', '40.00', '70.00'],
        ['balanced', '(class', 'mean)', '38.00'],
        ['few', '(<', '20)', '12.50'],
        ['accuracy/top1:', '40.0000'],
    ]


def test_progress_bar(tmp_path, capsys, monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setattr('ride_mm.engine.screen._SECONDS', 0)
    runner = launch.build_runner(config(tmp_path))
    stdout = sys.stdout
    streams = [handler.stream for handler in runner.logger.handlers]
    with progress_bar(runner):
        runner.val()
    batches = len(runner.val_dataloader)
    assert 'Validation' in terminal.getvalue()
    for text in (f'0/{batches}', f'{batches}/{batches} eta 0:00:00'):
        assert text in terminal.getvalue()
    assert 'eta' not in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt), progress_bar(runner):
        raise KeyboardInterrupt
    assert [handler.stream for handler in runner.logger.handlers] == streams
    assert sys.stdout is stdout and sys.stderr is terminal


def test_log_is_written_above_the_bar(tmp_path, monkeypatch):
    terminal, stdout = use_terminal(monkeypatch), use_terminal(monkeypatch, 'stdout')
    runner = launch.build_runner(config(tmp_path))
    with progress_bar(runner):
        runner.logger.info('a line ' + 'of many words ' * 20)
    assert 'a line ' + 'of many words ' * 20 in terminal.getvalue()
    runner.logger.info('the end')
    assert 'the end' in stdout.getvalue()


def test_no_bar_in_a_file_or_another_process(tmp_path, capsys, monkeypatch):
    runner = launch.build_runner(config(tmp_path))
    with progress_bar(runner):
        assert not any(isinstance(hook, ProgressHook) for hook in runner.hooks)
    use_terminal(monkeypatch)
    monkeypatch.setenv('RANK', '1')
    with progress_bar(runner):
        assert not any(isinstance(hook, ProgressHook) for hook in runner.hooks)


def test_the_bar_is_rarely_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(Progress, 'refresh', lambda bar: drawn.append(1))
    hook = ProgressHook(Progress())
    loop = SimpleNamespace(dataloader=range(1000), max_iters=1000)
    hub = SimpleNamespace(get_info=lambda *_: 5.0)
    runner = SimpleNamespace(train_loop=loop, message_hub=hub)
    drawn.clear()
    hook.before_train_epoch(runner)
    for step in range(1000):
        hook.after_train_iter(runner, step)
    assert len(drawn) == 1


class Epochs(EpochBasedTrainLoop):
    def __init__(self, steps):
        self.dataloader = range(steps)


@pytest.mark.parametrize(
    'loop, expected',
    [
        (Epochs(1), 20),
        (Epochs(20), 20),
        (Epochs(21), 10),
        (Epochs(85), 17),
        (Epochs(5000), 20),
        (SimpleNamespace(dataloader=range(2), max_iters=3000), 20),
    ],
)
def test_log_interval(loop, expected):
    hook = LoggerHook()
    launch.set_log_interval(SimpleNamespace(cfg={}, hooks=[hook], train_loop=loop))
    assert hook.interval == expected


def test_log_interval_of_the_config():
    hook = LoggerHook(interval=50)
    cfg = dict(default_hooks=dict(logger=dict(type='LoggerHook', interval=50)))
    launch.set_log_interval(SimpleNamespace(cfg=cfg, hooks=[hook], train_loop=Epochs(7)))
    assert hook.interval == 50
