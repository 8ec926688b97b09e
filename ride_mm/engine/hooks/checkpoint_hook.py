import math
import os
import os.path as osp
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from ride_mm.compat.checkpoint_loading import CheckpointError
from ride_mm.utils.errors import UserError
from ride_mm.utils.files import remove_leftovers, write_file

from ..buffers import synchronize_buffers
from ..class_names import check_class_names
from ..config import find_hook
from ..resume_check import find_resume_problem, numbered_checkpoints, step_of
from .main_process import on_main_process

# Key of the message hub: checkpoints about to be removed.
_OUTDATED = 'outdated_ckpts'
# Name of the file that holds the last validated epoch.
_VALIDATED = '.validated'


class _DeferredRemovals:
    """File backend that removes files only when told to.

    The message hub, which is saved in the next checkpoint, lists the pending
    removals, in case the run is killed before them.
    """

    def __init__(self, backend: Any, message_hub: MessageHub) -> None:
        self._backend = backend
        self._message_hub = message_hub
        self.set_pending([])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def set_pending(self, paths: list[str]) -> None:
        self._pending = paths
        self._message_hub.update_info(_OUTDATED, [osp.basename(path) for path in paths])

    def remove(self, path: str) -> None:
        self.set_pending([*self._pending, path])

    rmtree = remove

    def carry_out(self, but: list[str | None]) -> None:
        """Carry out the pending removals, except of files written since."""
        pending = self._pending
        self.set_pending([])
        for path in pending:
            if path in but:
                continue
            if self._backend.isfile(path):
                self._backend.remove(path)
            elif self._backend.isdir(path):
                self._backend.rmtree(path)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's hook, safe against full disks, kills and damaged files.

    It replaces MMEngine's hook in every config with
    ``default_scope='mmpretrain'`` and has the same arguments. The differences
    are:

    - An old checkpoint is removed only after the new one and the pointer to
      it, ``last_checkpoint``, are on the disk. With ``max_keep_ckpts`` or
      ``save_best`` the disk must briefly hold one more checkpoint.
    - Before a run is resumed, the checkpoint is checked. If it is damaged, a
      folder or another kind of file, or if ``last_checkpoint`` points nowhere,
      the newest intact one of the same folder is used, with a warning. If a
      damaged one was given explicitly (``--resume epoch_5.pth``), only an
      older one of this run is used. If there is none, the run ends with a
      :class:`~ride_mm.compat.checkpoint_loading.CheckpointError` instead of
      starting from the beginning.
    - Files that a killed process left incomplete, or was about to remove, are
      removed when the run is resumed.
    - The last epoch of stage 1 is saved like the last epoch of the run.
    - With several processes, running statistics are averaged over them before
      they are saved and before every validation, so that the logged accuracy
      is that of the saved model: see
      :func:`~ride_mm.engine.buffers.synchronize_buffers`.

    Local files are written atomically by
    :func:`~ride_mm.utils.files.write_file`. Checkpoints on
    other storage, and those that are folders (DeepSpeed), are not checked.
    """

    _default_greater_keys = [*MMEngineCheckpointHook._default_greater_keys, 'long_tail']
    best_ckpt_path: str | None = None
    best_ckpt_path_dict: dict[str, str | None] = {}
    file_backend: Any

    def before_run(self, runner) -> None:
        """Make sure that the checkpoint to resume is intact.

        Raises:
            CheckpointError: If no checkpoint is intact.
        """
        if runner._resume and not runner._has_loaded:
            runner._load_from = on_main_process(lambda: self._find_intact(runner))

    def _find_intact(self, runner) -> str | None:
        """Find an intact checkpoint to resume from; None leaves the choice to MMEngine."""
        folder, before = runner.work_dir, math.inf
        # `before_train` joins them only later
        if self.out_dir is not None and str(self.out_dir) != folder:
            folder = osp.join(self.out_dir, osp.basename(folder.rstrip(osp.sep)))
        pointer = osp.join(runner.work_dir, 'last_checkpoint')
        problem: str | None = f'{pointer} does not exist'
        if runner._load_from is not None:
            named = str(runner._load_from)
            problem, step = self._problem(named, runner), step_of(named, self.filename_tmpl)
            is_own = osp.realpath(osp.dirname(named)) == osp.realpath(folder)
            if problem and (step is None or not is_own or not osp.exists(named)):
                raise CheckpointError(f'Cannot resume: {problem}.')
            before = math.inf if step is None else step
        elif osp.isfile(pointer):
            with open(pointer, errors='replace') as file:
                last = ' '.join(file.read().split())
            problem = self._problem(last, runner) if last else f'{pointer} is empty'
            # the pointer may be into another `out_dir`
            if osp.isdir(osp.dirname(last)):
                folder = osp.dirname(last)
        elif not numbered_checkpoints(folder, self.filename_tmpl):
            return None
        if problem is None:
            return runner._load_from

        problems = [problem]
        for step, path in numbered_checkpoints(folder, self.filename_tmpl):
            if step >= before:
                continue
            problem = self._problem(path, runner)
            if problem is None:
                runner.logger.warning(
                    f'Cannot resume: {"; ".join(problems)}. Resuming from '
                    f'{path} instead, the newest intact checkpoint.'
                )
                return path
            if problem not in problems:
                problems.append(problem)
        raise CheckpointError(
            f'Cannot resume: {"; ".join(problems)}; and {folder} holds no '
            'other checkpoint to resume from. Pass one with `--resume PATH`, '
            'or start a new run without `--resume` in another work_dir.'
        )

    def _problem(self, path: str, runner) -> str | None:
        """Describe what is wrong with a checkpoint; None if it is intact."""
        # a runner with a strategy, such as DeepSpeed's, writes folders
        if '://' in path or (osp.isdir(path) and hasattr(runner, 'strategy')):
            return None
        # the best checkpoints are saved without optimizer
        optimizer = self.save_optimizer and step_of(path, self.filename_tmpl) is not None
        found = find_resume_problem(osp.expanduser(path), optimizer)
        return None if found is None else f'the checkpoint {path} {found}'

    def before_train(self, runner) -> None:
        """Prepare the folder of the checkpoints; repeat a missing validation."""
        super().before_train(runner)
        # the checkpoint may name files of a folder that has been copied
        self.best_ckpt_path = self._own(self.best_ckpt_path)
        self.best_ckpt_path_dict = {
            key: self._own(path) for key, path in self.best_ckpt_path_dict.items()
        }
        outdated = runner.message_hub.runtime_info.get(_OUTDATED, [])
        self.file_backend = _DeferredRemovals(self.file_backend, runner.message_hub)
        if is_main_process():
            self._remove_outdated(runner, outdated)
            for folder in {runner.work_dir, str(self.out_dir)}:
                for path in remove_leftovers(folder):
                    runner.logger.info(f'Removed {path}, left incomplete by a killed process.')
        self._make_up_validation(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to test or resume with other classes."""
        check_class_names(runner, checkpoint)

    def _make_up_validation(self, runner) -> None:
        """Validate the resumed epoch if the run was killed before."""
        loop, path = runner.train_loop, osp.join(runner.work_dir, _VALIDATED)
        last = on_main_process(lambda: _read_number(path))
        if (
            runner._resume
            and runner.val_loop is not None
            and self.by_epoch
            and runner.epoch >= max(1, loop.val_begin)
            and (runner.epoch % loop.val_interval == 0 or runner.epoch == loop.max_epochs)
            and last < runner.epoch
        ):
            runner.logger.info(
                f'Epoch {runner.epoch} was not validated before the run was interrupted.'
            )
            runner.val_loop.run()
        elif last > runner.epoch and is_main_process():
            # epochs that are trained again, as after a damaged checkpoint
            write_file(path, str(runner.epoch))

    def after_val_epoch(self, runner, metrics: dict) -> None:
        """Save the best checkpoint, and record that this epoch is validated."""
        super().after_val_epoch(runner, metrics)
        if self.by_epoch and isinstance(runner._train_loop, BaseLoop) and is_main_process():
            write_file(osp.join(runner.work_dir, _VALIDATED), str(runner.epoch))

    def is_last_train_epoch(self, runner) -> bool:
        """Return whether this is the last epoch of a stage, which ``save_last`` saves."""
        two_stage = find_hook(runner.cfg, 'TwoStageHook') or {}
        return super().is_last_train_epoch(runner) or runner.epoch + 1 == two_stage.get('begin')

    def _own(self, path: Any) -> str | None:
        """Path of a checkpoint of this run; None if the name is not one."""
        name = osp.basename(str(path))
        if step_of(name, self.filename_tmpl) is None and not re.fullmatch(r'best_.*\.pth', name):
            return None
        return self.file_backend.join_path(self.out_dir, name)

    def _kept(self) -> list[str | None]:
        """Checkpoints that are never removed."""
        return [self.last_ckpt, self.best_ckpt_path, *self.best_ckpt_path_dict.values()]

    def _remove_outdated(self, runner, names: list[str]) -> None:
        """Remove what a killed process was about to remove."""
        kept = [self._own(path) for path in self._kept()]
        for path in filter(None, map(self._own, names)):
            step = step_of(path, self.filename_tmpl)
            is_kept = path in kept or (
                step is not None and (self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids)
            )
            if osp.isfile(path) and not is_kept:
                os.remove(path)
                runner.logger.info(f'Removed {path}, left over by a killed process.')

    def before_val(self, runner) -> None:
        """Make all ranks validate the same model."""
        synchronize_buffers(runner)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.file_backend.set_pending([])
            raise
        self.file_backend.carry_out(but=self._kept())

    def _init_rule(self, rules, key_indicators) -> None:
        try:
            super()._init_rule(rules, key_indicators)
        except (KeyError, ValueError) as error:
            raise UserError(
                f'default_hooks.checkpoint.save_best={key_indicators} with '
                f'rule={rules}: {error.args[0]} Use the metric names of the '
                "log, as in 'long_tail/overall'; rule='greater' or 'less' "
                'says which is better'
            ) from error

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        # `Runner.val` calls this without `before_train`
        if self.save_best:
            with self._removing_last():
                super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        # Replaces MMEngine's, which writes the pointer in place: a full disk
        # would leave it empty.
        synchronize_buffers(runner)
        with self._removing_last():
            # a new best checkpoint saves the same step again
            if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                    if is_main_process():
                        self.file_backend.remove(self.file_backend.join_path(self.out_dir, oldest))
                self.keep_ckpt_ids.append(step)
                runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            filename = self.filename_tmpl.format(step)
            self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            runner.save_checkpoint(
                self.out_dir,
                filename,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_file(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)


def _read_number(path: str) -> int:
    """Read a whole number from a file; 0 without one."""
    try:
        return int(Path(path).read_text())
    except (FileNotFoundError, ValueError):
        return 0
