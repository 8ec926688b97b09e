import copy
import os
import os.path as osp
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Optional
from unittest import mock

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner, save_checkpoint
from mmpretrain.registry import HOOKS

from ride_mm.utils.errors import UserError
from ride_mm.utils.files import write_file

from ..buffers import synchronize_buffers
from .non_finite_hook import NonFiniteError

SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name)]
# Long enough for rank 0 to save; torchrun and Slurm wait for 30 s.
_RANK_DELAY = 10
# Slurm signals all processes of a job, workers of a loader perhaps first.
_OWN_SIGNAL_SECONDS = 2


def _forget_workers(*_) -> None:
    """Ignore workers that end by the same signal as this process."""
    if hasattr(signal, 'SIGCHLD'):
        # not SIG_DFL: Python would print that a signal was pending
        signal.signal(signal.SIGCHLD, lambda *_: None)


class _SignalThread:
    """Calls a function when a signal arrives, even while the main thread is
    blocked by a GPU or another process. Only one is active at a time.

    Args:
        function (Callable): Called with the number of the signal.
    """

    active: Optional['_SignalThread'] = None

    def __init__(self, function: Callable[[int], None]) -> None:
        # of a training that an error has ended
        self.stop_active()
        self._read, self._write = os.pipe()
        if hasattr(os, 'set_blocking'):  # not on Windows before Python 3.12
            os.set_blocking(self._write, False)
        self._function = function
        self._called = threading.Event()
        self._handlers = {number: signal.signal(number, _forget_workers) for number in SIGNALS}
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, daemon=True).start()
        _SignalThread.active = self

    def _wait(self) -> None:
        number = -1
        while number:
            number = os.read(self._read, 1)[0]
            if number in SIGNALS:
                self._called.set()
                self._function(number)
        os.close(self._read)
        os.close(self._write)

    @classmethod
    def stop_active(cls) -> None:
        self, cls.active = cls.active, None
        if self is not None:
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.write(self._write, b'\0')

    @classmethod
    def let_end(cls) -> None:
        """Let a signal that has arrived or is about to arrive end the process."""
        self = cls.active
        end = time.monotonic() + _OWN_SIGNAL_SECONDS
        while self is not None and (self._called.is_set() or time.monotonic() < end):
            # another worker that was ended raises an error, too
            with suppress(Exception):
                time.sleep(0.1)

    @classmethod
    def before_fork(cls) -> None:
        if cls.active is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    @classmethod
    def after_fork_in_parent(cls) -> None:
        if cls.active is not None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    @classmethod
    def after_fork_in_child(cls) -> None:
        """Let signals end a child, such as a loader's worker, without notifying its parent."""
        if cls.active is not None:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            cls.after_fork_in_parent()
            cls.active = None


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(
        before=_SignalThread.before_fork,
        after_in_parent=_SignalThread.after_fork_in_parent,
        after_in_child=_SignalThread.after_fork_in_child,
    )


@contextmanager
def saved_on_error(runner: Runner) -> Iterator[None]:
    """Save the last complete epoch when an error ends training, unless the
    weights were about to become infinite or NaN.

    A signal takes precedence over an error that it caused by ending a worker
    or another process first.
    """
    try:
        yield
    except NonFiniteError:
        raise
    except Exception as error:
        if not isinstance(error, UserError):
            _SignalThread.let_end()
        # the original error is the one to report
        with suppress(Exception):
            save_last_epoch(runner, 'An error ends the training')
        raise


def save_last_epoch(runner: Runner, why: str) -> None:
    """Save the last complete epoch, if a :class:`StopSignalHook` keeps one without
    a checkpoint."""
    for hook in getattr(runner, 'hooks', []):
        if isinstance(hook, StopSignalHook):
            hook.save(runner, why)


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Saves a checkpoint and exits on SIGTERM or SIGUSR1, which Slurm,
    Kubernetes and torchrun send before they kill a process.

    After each epoch without a checkpoint, its state is kept in memory. The
    signal writes it, so the run resumes bit-identically after the last
    complete epoch, wherever it was interrupted. The exit code is 128 plus the
    number of the signal, 143 or 138 on Linux.

    This state is also saved when an error ends training, such as an unreadable
    validation image, or when training ends early, as by ``EarlyStoppingHook``.
    """

    # After CheckpointHook.
    priority = 'LOWEST'

    def __init__(self) -> None:
        # path and content of the checkpoint of the last epoch
        self._kept: tuple[str, dict] | None = None
        # a signal may arrive while an error is being handled
        self._saving = threading.Lock()

    def before_train(self, runner: Runner) -> None:
        """Start listening for signals; only possible in the main thread."""
        if threading.current_thread() is threading.main_thread():
            reference = weakref.ref(runner)
            _SignalThread(lambda number: self._end(reference(), number))

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        if threading.current_thread() is threading.main_thread():
            _SignalThread.stop_active()

    def after_train_epoch(self, runner: Runner) -> None:
        """Keep the state that a signal would save."""
        hooks = (h for h in runner.hooks if isinstance(h, CheckpointHook) and h.by_epoch)
        hook = next(hooks, None)
        if hook is None or not runner.train_loop.max_epochs:
            return
        path = osp.join(str(hook.out_dir), hook.filename_tmpl.format(runner.epoch + 1))
        if hook.last_ckpt == path:
            self._kept = None
            return
        synchronize_buffers(runner)
        if is_main_process():
            self._kept = path, _checkpoint_of(runner, hook)

    def _end(self, runner: Runner, number: int) -> None:
        name = signal.Signals(number).name
        try:
            if not is_main_process():
                # errors of other processes are a consequence of the signal
                sys.stderr = open(os.devnull, 'w')
                time.sleep(_RANK_DELAY)
            elif not self.save(runner, f'{name}: stopping training'):
                last = runner.message_hub.runtime_info.get('last_ckpt')
                runner.logger.warning(
                    f'{name}: stopping training. '
                    + (
                        f'{last} is already saved. Continue with --resume.'
                        if last
                        else 'No epoch is complete, so nothing is saved.'
                    )
                )
            for handler in runner.logger.handlers:
                handler.flush()
        except Exception as error:
            print(f'{name}: nothing could be saved: {error}', file=sys.stderr, flush=True)
        finally:
            os._exit(128 + number)

    def save(self, runner: Runner, why: str) -> bool:
        """Write the kept state, if any; return whether there was one."""
        with self._saving:
            if self._kept is None:
                return False
            path, checkpoint = self._kept
            save_checkpoint(checkpoint, path)
            write_file(osp.join(runner.work_dir, 'last_checkpoint'), path)
            runner.message_hub.update_info('last_ckpt', path)
            self._kept = None
        runner.logger.warning(f'{why}, {path} is saved. Continue with --resume.')
        return True


def _checkpoint_of(runner: Runner, hook: CheckpointHook) -> dict:
    """Copy the checkpoint that the hook would save now."""
    saved: list[dict] = []
    with mock.patch(
        'mmengine.runner.runner.save_checkpoint',
        lambda checkpoint, *args, **kwargs: saved.append(checkpoint),
    ):
        runner.save_checkpoint(
            str(hook.out_dir),
            hook.filename_tmpl.format(runner.epoch + 1),
            save_optimizer=hook.save_optimizer,
            save_param_scheduler=hook.save_param_scheduler,
            meta=dict(epoch=runner.epoch + 1, iter=runner.iter),
            by_epoch=True,
        )
    checkpoint = copy.deepcopy(saved[0])
    if hook.max_keep_ckpts > 0:
        kept = [*hook.keep_ckpt_ids, runner.epoch + 1]
        checkpoint['message_hub']['runtime_info']['keep_ckpt_ids'] = kept
    return checkpoint
