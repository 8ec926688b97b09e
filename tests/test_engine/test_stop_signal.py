import os
import signal
import subprocess
import sys
from multiprocessing import Process

import pytest
from conftest import ROOT
from mmengine.hooks import Hook
from runs import STAGE_1, assert_same_state, build_runner, digits_config, train

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.engine import launch
from ride_mm.engine.hooks.non_finite_hook import NonFiniteError
from ride_mm.engine.hooks.stop_signal_hook import SIGNALS, _SignalThread
from ride_mm.utils.errors import UserError

SCRIPT = """
import os, signal, sys
from pathlib import Path
from mmengine.hooks import Hook
from runs import build_runner, digits_config
import ride_mm

class Send(Hook):
    def after_train_iter(self, runner, batch_idx, **kwargs):
        if (runner.epoch, batch_idx) == (int(sys.argv[3]), 1):
            os.kill(os.getpid(), int(sys.argv[4]))
            while True:  # as one that waits for another process
                pass

cfg = digits_config(Path(sys.argv[1]), sys.argv[2],
                    **{'default_hooks.checkpoint.interval': 10})
runner = build_runner(cfg)
runner.register_hook(Send())
runner.train()
"""


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
    path = os.pathsep.join([str(ROOT), str(ROOT / 'tests/test_engine')])
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            SCRIPT,
            str(ROOT),
            str(tmp_path / 'run'),
            str(epoch),
            str(int(number)),
        ],
        env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 128 + number, done.stderr
    assert 'Traceback' not in done.stderr
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
    monkeypatch.setattr(launch, 'build_runner', lambda cfg: runner)
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


GROUP = """
import os, signal, sys
from pathlib import Path
from mmengine.hooks import Hook
from runs import digits_config
from ride_mm.engine import launch
from ride_mm.utils.errors import run_tool
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SendToAll(Hook):
    def after_train_iter(self, runner, batch_idx, **kwargs):
        if (runner.epoch, batch_idx) == (1, 1):
            os.killpg(0, signal.SIGTERM)

cfg = digits_config(Path(sys.argv[1]), sys.argv[2], workers=2,
                    **{'default_hooks.checkpoint.interval': 10})
cfg.custom_hooks = [dict(type='SendToAll')]
run_tool(lambda: launch.train(cfg))
"""


def test_signal_that_ends_workers_too(tmp_path):
    """As of Slurm, which signals every process of a job."""
    path = os.pathsep.join([str(ROOT), str(ROOT / 'tests/test_engine')])
    done = subprocess.run(
        [sys.executable, '-c', GROUP, str(ROOT), str(tmp_path)],
        env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1'),
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert 'Traceback' not in done.stderr
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
