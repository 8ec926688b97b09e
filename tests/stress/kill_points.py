"""A hook that kills its process at the point that the environment names.

``KILL_POINT`` is a key of :data:`POINTS`, ``KILL_RANKS`` the ranks that die:
'all', a number, or 'launcher'. Nothing happens without them.
"""

import os
import signal
import time

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from ride_mm.engine.hooks import RouterCacheHook, checkpoint_hook, two_stage_hook
from ride_mm.utils import files

# Where in the run of five epochs, two of the router, a process dies.
POINTS = {
    'first step': 'after_train_iter at epoch 1, step 1',
    'step of stage 1': 'after_train_iter at epoch 2, step 2',
    'half of a checkpoint': 'epoch_2.pth is written to its half',
    'checkpoint unnamed': 'epoch_2.pth is written, but has not its name',
    'no pointer': 'epoch_3.pth is there, last_checkpoint is not written',
    'half of a pointer': 'last_checkpoint is written to its half',
    'old one not removed': 'the pointer is at epoch_3.pth, epoch_1.pth there',
    'validation': 'in the validation after epoch 2',
    'last validation of stage 1': 'in the validation after epoch 3',
    'switch': 'between the stages, before the new optimizer',
    'router cache': "while the router's inputs are computed",
    'step of stage 2': 'after_train_iter at epoch 5, step 2',
    'checkpoint of stage 2': 'epoch_4.pth is written to its half',
    'last validation': 'in the validation after epoch 5',
}


def die() -> None:
    """Die here, if this rank is to."""
    ranks = os.environ['KILL_RANKS']
    if ranks == 'launcher':
        if get_rank() == 0:
            os.kill(os.getppid(), signal.SIGKILL)
        # as long as it takes a rank to notice
        time.sleep(60)
    if ranks == 'all' or int(ranks) == get_rank():
        os.kill(os.getpid(), signal.SIGKILL)


def _before(owner, name: str, condition=lambda *args: True) -> None:
    """Die before a call that meets the condition."""
    call = getattr(owner, name)

    def patched(*args, **kwargs):
        if condition(*args):
            die()
        return call(*args, **kwargs)

    setattr(owner, name, patched)


def _halve(name: str) -> None:
    """Die when half of a file is on the disk."""

    def is_half(descriptor: int) -> bool:
        path = os.readlink(f'/proc/self/fd/{descriptor}')
        if f'.{name}.' not in path:
            return False
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        return True

    _before(files.os, 'fsync', is_half)


def _named(name: str):
    return lambda source, target: target.endswith(name)


@HOOKS.register_module()
class KillPointHook(Hook):
    """Dies where ``KILL_POINT`` says."""

    def __init__(self) -> None:
        self.point = os.environ.get('KILL_POINT')

    def before_run(self, runner) -> None:
        removals = checkpoint_hook._DeferredRemovals
        prepare = {
            'half of a checkpoint': lambda: _halve('epoch_2.pth'),
            'checkpoint of stage 2': lambda: _halve('epoch_4.pth'),
            'half of a pointer': lambda: _halve('last_checkpoint'),
            'checkpoint unnamed': lambda: _before(files.os, 'replace', _named('epoch_2.pth')),
            'no pointer': lambda: _before(
                files.os,
                'replace',
                lambda source, target: target.endswith('last_checkpoint') and runner.epoch == 2,
            ),
            'old one not removed': lambda: _before(
                removals, 'carry_out', lambda *args: runner.epoch == 2
            ),
            'switch': lambda: _before(two_stage_hook, 'merge_wrappers'),
            'router cache': lambda: _before(RouterCacheHook, '_compute'),
        }
        if self.point in prepare:
            prepare[self.point]()

    def after_train_iter(self, runner, batch_idx, **kwargs) -> None:
        here = {(0, 0): 'first step', (1, 1): 'step of stage 1', (4, 1): 'step of stage 2'}
        if self.point and here.get((runner.epoch, batch_idx)) == self.point:
            die()

    def after_val_iter(self, runner, batch_idx, **kwargs) -> None:
        # the epoch that is validated is counted as over
        here = {2: 'validation', 3: 'last validation of stage 1', 5: 'last validation'}
        if self.point and here.get(runner.epoch) == self.point:
            die()
