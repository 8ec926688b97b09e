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

from ride_mm.compat.atomic_backend import write_file
from ride_mm.utils.errors import UserError

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
        # not SIG_DFL: Python would print that one was pending
        signal.signal(signal.SIGCHLD, lambda *_: None)


class _SignalThread:
    """Calls a function when a signal arrives, even while the main thread is
    blocked by a GPU or another process. Only one is active at a time.

    Args:
        function (callable): Called with the number of the signal.
    """

    active: Optional['_SignalThread'] = None

    def __init__(self, function: Callable[[int], None]) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._function = function
        self._called = threading.Event()

    def start(self) -> None:
        # of a training that an error has ended
        self.stop_active()
        self._handlers = {number: signal.signal(number, _forget_workers) for number in SIGNALS}
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, daemon=True).start()
        _SignalThread.active = self

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
        """Wait for a signal that has arrived or is about to arrive to end the
        process."""
        self = cls.active
        end = time.monotonic() + _OWN_SIGNAL_SECONDS
        while self is not None and (self._called.is_set() or time.monotonic() < end):
            # the next worker that was ended is an error, too
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
        """A child, such as a data loader worker, ends by signals as usual,
        without notifying its parent."""
        if cls.active is not None:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            cls.active = None

    def _wait(self) -> None:
        number = -1
        while number:
            number = os.read(self._read, 1)[0]
            if number in SIGNALS:
                self._called.set()
                self._function(number)
        os.close(self._read)
        os.close(self._write)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(
        before=_SignalThread.before_fork,
        after_in_parent=_SignalThread.after_fork_in_parent,
        after_in_child=_SignalThread.after_fork_in_child,
    )


@contextmanager
def signals_first() -> Iterator[None]:
    """Give a signal precedence over an error that it caused by ending a worker
    or another process first."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except Exception:
        _SignalThread.let_end()
        raise


@contextmanager
def last_epoch_saved(runner: Runner) -> Iterator[None]:
    """Save the last complete epoch when an error ends training, unless the
    weights were about to become infinite or NaN."""
    try:
        yield
    except NonFiniteError:
        raise
    except Exception:
        # the error itself is told
        with suppress(Exception):
            save_last_epoch(runner, 'An error ends the training')
        raise


def save_last_epoch(runner: Runner, why: str) -> None:
    """Save the last complete epoch, if it has no checkpoint yet.

    Args:
        runner (Runner): A training with a :class:`StopSignalHook`; without
            one nothing is done.
        why (str): The reason, for the log.
    """
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
        self._kept: dict | None = None
        self._path: str | None = None
        # a signal may come while an error is at it
        self._saving = threading.Lock()

    def before_train(self, runner: Runner) -> None:
        """Start listening for signals; only possible in a main thread."""
        if threading.current_thread() is threading.main_thread():
            runner = weakref.ref(runner)
            _SignalThread(lambda number: self._end(runner(), number)).start()

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        if threading.current_thread() is threading.main_thread():
            _SignalThread.stop_active()

    def after_train_epoch(self, runner: Runner) -> None:
        """Keep the state that a signal would save."""
        hook = _checkpoint_hook(runner)
        if hook is None or not runner.train_loop.max_epochs:
            return
        name = hook.filename_tmpl.format(runner.epoch + 1)
        path = osp.join(str(hook.out_dir), name)
        if getattr(hook, 'last_ckpt', None) == path:
            self._kept = self._path = None
            return
        synchronize_buffers(runner)
        if is_main_process():
            self._kept = _checkpoint_of(runner, hook)
            self._path = path

    def _end(self, runner: Runner, number: int) -> None:
        name = signal.Signals(number).name
        try:
            if is_main_process():
                self._save_or_say(runner, f'{name}: stopping training')
            else:
                # what other processes leave behind is no news
                sys.stderr = open(os.devnull, 'w')
                time.sleep(_RANK_DELAY)
            for handler in runner.logger.handlers:
                handler.flush()
        except Exception as error:
            print(f'{name}: nothing could be saved: {error}', file=sys.stderr, flush=True)
        finally:
            os._exit(128 + number)

    def _save_or_say(self, runner: Runner, why: str) -> None:
        if self._kept is not None:
            self.save(runner, why)
            return
        last = runner.message_hub.runtime_info.get('last_ckpt')
        runner.logger.warning(
            f'{why}. '
            + (
                f'{last} is there: continue with --resume.'
                if last
                else 'No epoch is complete: nothing is saved.'
            )
        )

    def save(self, runner: Runner, why: str) -> None:
        """Write the kept state, if there is one.

        Args:
            runner (Runner): The runner of the training process.
            why (str): The reason, for the log.
        """
        with self._saving:
            if self._kept is None:
                return
            save_checkpoint(self._kept, self._path)
            write_file(osp.join(runner.work_dir, 'last_checkpoint'), self._path)
            runner.message_hub.update_info('last_ckpt', self._path)
            self._kept = None
        runner.logger.warning(f'{why}, {self._path} is saved. Continue with --resume.')


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next(
        (hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.by_epoch), None
    )


def _checkpoint_of(runner: Runner, hook: CheckpointHook) -> dict:
    """The checkpoint that the hook would save now, in its own memory."""
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
    kept = checkpoint['message_hub']['runtime_info']
    if hook.max_keep_ckpts > 0:
        kept['keep_ckpt_ids'] = [*hook.keep_ckpt_ids, runner.epoch + 1]
    return checkpoint
