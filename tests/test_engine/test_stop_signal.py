import os
import signal
from multiprocessing import Process

import pytest
from conftest import ROOT, run_process
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from runs import STAGE_1, assert_same_state, build_runner, digits_config, train

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.engine import launch
from ride_mm.engine.hooks.non_finite_hook import NonFiniteError
from ride_mm.engine.hooks.stop_signal_hook import SIGNALS, _SignalThread
from ride_mm.utils.errors import UserError, run_tool


class Send(Hook):
    """Sends a signal to the process, which then waits as for another one."""

    def __init__(self, epoch, number):
        self.epoch, self.number = epoch, number

    def after_train_iter(self, runner, batch_idx, **kwargs):
        if (runner.epoch, batch_idx) == (self.epoch, 1):
            os.kill(os.getpid(), self.number)
            while True:
                pass


def train_until(work_dir, epoch, number):
    runner = build_runner(
        digits_config(ROOT, work_dir, **{'default_hooks.checkpoint.interval': 10})
    )
    runner.register_hook(Send(epoch, number))
    runner.train()


def state(work_dir, name):
    checkpoint = load_checkpoint_file(str(work_dir / name))
    return {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}


@pytest.mark.parametrize(
    'epoch, number',
    [
        (0, signal.SIGUSR1),
        pytest.param(2, signal.SIGUSR1, marks=pytest.mark.slow),
        (STAGE_1 + 1, signal.SIGTERM),
    ],
)
def test_saves_the_last_whole_epoch(tmp_path, epoch, number):
    stderr = tmp_path / 'stderr.txt'
    code = run_process(stderr, train_until, tmp_path / 'run', epoch, number)
    assert code == 128 + number, stderr.read_text()
    assert 'Traceback' not in stderr.read_text()
    cfg = digits_config(ROOT, tmp_path / 'run', **{'default_hooks.checkpoint.interval': 10})
    files = {path.name for path in (tmp_path / 'run').glob('*.pth')}
    assert (f'epoch_{epoch}.pth' in files) == (epoch > 0)
    if epoch == 0:
        assert not files
        return
    cfg.resume = True
    runner = train(cfg)
    assert runner.iter == runner.max_iters
    cfg.work_dir, cfg.resume = str(tmp_path / 'whole'), False
    train(cfg)
    assert_same_state(
        state(tmp_path / 'whole', 'epoch_5.pth'), state(tmp_path / 'run', 'epoch_5.pth')
    )


class Raise(Hook):
    """As an image that cannot be read, in the second validation."""

    error = UserError('no image')

    def before_val_iter(self, runner, **kwargs):
        if runner.epoch == 4:
            raise self.error


@pytest.mark.parametrize(
    'error', [UserError('no image'), RuntimeError('of a worker'), NonFiniteError('loss is nan')]
)
def test_an_error_saves_the_last_whole_epoch(tmp_path, error, monkeypatch):
    monkeypatch.setattr(_SignalThread, 'let_end', lambda: None)
    options = {'default_hooks.checkpoint.interval': 10, 'train_cfg.val_interval': 2}
    cfg = digits_config(ROOT, tmp_path / 'run', **options)
    runner = build_runner(cfg)
    runner.register_hook(Raise())
    Raise.error = error
    monkeypatch.setattr(launch, 'build_runner', lambda cfg, **_: runner)
    texts = []
    runner.logger.warning = lambda text, *_: texts.append(text)
    with pytest.raises(type(error), match=str(error)):
        launch.train(cfg)
    _SignalThread.stop_active()
    saved = tmp_path / 'run/epoch_4.pth'
    if isinstance(error, NonFiniteError):
        assert not saved.exists()
        return
    assert texts[-1] == (f'An error ends the training, {saved} is saved. Continue with --resume.')
    if isinstance(error, UserError):
        return
    cfg.resume = True
    runner = build_runner(cfg)
    epochs = []
    monkeypatch.setattr(
        Raise, 'before_val_iter', lambda self, runner, **_: epochs.append(runner.epoch)
    )
    runner.register_hook(Raise())
    runner.train()
    assert [*dict.fromkeys(epochs)] == [4, 5]  # made up, and the last
    cfg = digits_config(ROOT, tmp_path / 'whole', **options)
    train(cfg)
    assert_same_state(
        state(tmp_path / 'whole', 'epoch_5.pth'), state(tmp_path / 'run', 'epoch_5.pth')
    )


def test_handlers_come_back(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    class Look(Hook):
        def before_train_epoch(self, runner):
            seen.append(signal.getsignal(signal.SIGTERM))

        def after_train_epoch(self, runner):
            raise ZeroDivisionError

    cfg = digits_config(ROOT, tmp_path)
    for _ in range(2):
        # an error leaves the handlers to the next training
        runner = build_runner(cfg)
        runner.register_hook(Look())
        with pytest.raises(ZeroDivisionError):
            runner.train()
    assert seen[0] not in before
    worker = Process(target=signal.pause)
    worker.start()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == -signal.SIGTERM
    _SignalThread.stop_active()
    assert [signal.getsignal(number) for number in SIGNALS] == before


class SendToAll(Hook):
    def after_train_iter(self, runner, batch_idx, **kwargs):
        if (runner.epoch, batch_idx) == (1, 1):
            os.killpg(0, signal.SIGTERM)


def train_in_a_group(work_dir):
    os.setsid()
    HOOKS.register_module(module=SendToAll, force=True)
    cfg = digits_config(ROOT, work_dir, workers=2, **{'default_hooks.checkpoint.interval': 10})
    cfg.custom_hooks = [dict(type='SendToAll')]
    run_tool(lambda: launch.train(cfg))


def test_signal_that_ends_workers_too(tmp_path):
    """As of Slurm, which signals every process of a job."""
    stderr = tmp_path / 'stderr.txt'
    code = run_process(stderr, train_in_a_group, tmp_path)
    assert code == 128 + signal.SIGTERM, stderr.read_text()
    assert 'Traceback' not in stderr.read_text()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
