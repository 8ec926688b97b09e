import os
import os.path as osp
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from ride_mm.compat.atomic_backend import remove_leftovers, write_file
from ride_mm.compat.checkpoint_loading import (
    CheckpointError,
    find_resume_problem,
    numbered_checkpoints,
    step_of,
)
from ride_mm.utils.errors import UserError

from ..buffers import synchronize_buffers
from ..class_names import check_class_names
from ..config import find_hook

# What a checkpoint says is removed once it and the pointer are on the disk.
_OUTDATED = 'outdated_ckpts'


# The file that tells which epoch was validated last.
_VALIDATED = '.validated'


def _last_validated(runner) -> int:
    """The epoch, the same on all ranks; 0 if none is known."""
    answer = [0]
    path = osp.join(runner.work_dir, _VALIDATED)
    if is_main_process() and osp.isfile(path):
        with open(path) as file:
            text = file.read().strip()
        answer[0] = int(text) if text.isdigit() else 0
    broadcast_object_list(answer)
    return answer[0]


class _RemovalsLast:
    """A file backend that defers removals until everything else is done.

    Args:
        backend (BaseStorageBackend): The backend that does the work.
        message_hub (MessageHub): Saved in the next checkpoint. It records the
            pending removals, in case the run is killed before them.
    """

    def __init__(self, backend: Any, message_hub: MessageHub) -> None:
        self._backend = backend
        self._message_hub = message_hub
        self._pending: list[tuple[str, str]] = []
        self._tell()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _tell(self) -> None:
        self._message_hub.update_info(_OUTDATED, [osp.basename(path) for _, path in self._pending])

    def remove(self, filepath: str) -> None:
        self._pending.append(('remove', filepath))
        self._tell()

    def rmtree(self, dir_path: str) -> None:
        self._pending.append(('rmtree', dir_path))
        self._tell()

    def carry_out(self, but: list[str | None]) -> None:
        """Carry out the pending removals, except of files written since."""
        pending, self._pending = self._pending, []
        self._tell()
        for method, path in pending:
            if path not in but:
                getattr(self._backend, method)(path)

    def forget(self) -> None:
        self._pending.clear()
        self._tell()


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
      :class:`~ride_mm.compat.checkpoint_loading.CheckpointError`, and does not
      start from the beginning.
    - Files that a killed process left incomplete, or was about to remove, are
      removed when the run is resumed.
    - The last epoch of stage 1 is saved like the last epoch of the run.
    - With several processes, running statistics are averaged over them before
      they are saved and before every validation, so that the accuracy in the
      log is that of the file: see
      :func:`~ride_mm.engine.buffers.synchronize_buffers`.

    Local files are written atomically by
    :class:`~ride_mm.compat.atomic_backend.AtomicLocalBackend`. Checkpoints on
    other storage, and those that are folders (DeepSpeed), are not checked.
    """

    _default_greater_keys = [*MMEngineCheckpointHook._default_greater_keys, 'long_tail']
    _depth = 0

    def before_run(self, runner) -> None:
        """Make sure that the checkpoint to resume is intact.

        Args:
            runner (Runner): The runner of the training process.

        Raises:
            CheckpointError: If no checkpoint is intact.
        """
        super().before_run(runner)
        if not runner._resume or runner._has_loaded:
            return
        answer: list = [None, None]
        if is_main_process():
            try:
                answer[0] = self._whole_checkpoint(runner)
            except (CheckpointError, OSError) as error:
                answer[1] = str(error)
        # all ranks must resume from the same file, or stop together
        broadcast_object_list(answer)
        path, error_message = answer
        if error_message is not None:
            raise CheckpointError(error_message)
        if path is not None:
            runner._load_from = path

    def _whole_checkpoint(self, runner) -> str | None:
        """Find an intact checkpoint to resume from.

        Returns:
            Optional[str]: The path, or None to leave the choice to MMEngine.
        """
        folder = self._local_folder(runner)
        if runner._load_from is not None:
            named = str(runner._load_from)
            problem = self._problem(named, runner)
            if problem is None:
                return None
            step = step_of(named, self.filename_tmpl)
            if step is None or not osp.exists(named) or not _is_in(named, folder):
                raise CheckpointError(f'Cannot resume: {problem}.')
            return self._newest_whole(runner, folder, problem, step)

        pointer = osp.join(runner.work_dir, 'last_checkpoint')
        if not osp.isfile(pointer):
            if not numbered_checkpoints(folder, self.filename_tmpl):
                return None
            problem = f'{pointer} does not exist'
            return self._newest_whole(runner, folder, problem)
        with open(pointer, errors='replace') as file:
            last = ' '.join(file.read().split())
        problem = f'{pointer} is empty'
        if last:
            problem = self._problem(last, runner)
        if problem is None:
            return None
        # the pointer may be of another `out_dir`
        if osp.isdir(osp.dirname(last)):
            folder = osp.dirname(last)
        return self._newest_whole(runner, folder, problem)

    def _newest_whole(self, runner, folder: str, problem: str, before: int | None = None) -> str:
        problems = [problem]
        for step, path in numbered_checkpoints(folder, self.filename_tmpl):
            if before is not None and step >= before:
                continue
            found = self._problem(path, runner)
            if found is None:
                runner.logger.warning(
                    f'Cannot resume: {"; ".join(problems)}. Resuming from '
                    f'{path} instead, the newest intact checkpoint.'
                )
                return path
            if found not in problems:
                problems.append(found)
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
        # the best ones are saved without
        optimizer = self.save_optimizer and step_of(path, self.filename_tmpl) is not None
        found = find_resume_problem(osp.expanduser(path), optimizer)
        return None if found is None else f'the checkpoint {path} {found}'

    def _local_folder(self, runner) -> str:
        """Folder of this run's checkpoints; `before_train` sets `out_dir`."""
        if self.out_dir is None or str(self.out_dir) == runner.work_dir:
            return runner.work_dir
        return osp.join(self.out_dir, osp.basename(runner.work_dir.rstrip(osp.sep)))

    def before_train(self, runner) -> None:
        """Prepare the folder of the checkpoints.

        Args:
            runner (Runner): The runner of the training process.
        """
        super().before_train(runner)
        # what a checkpoint says may be of a folder that has been copied
        if getattr(self, 'best_ckpt_path', None) is not None:
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        best = getattr(self, 'best_ckpt_path_dict', {})
        best.update({key: self._own(path) for key, path in best.items()})
        outdated = runner.message_hub.runtime_info.get(_OUTDATED, [])
        self.file_backend = _RemovalsLast(self.file_backend, runner.message_hub)
        if is_main_process():
            self._remove_outdated(runner, outdated)
            for folder in {runner.work_dir, str(self.out_dir)}:
                for path in remove_leftovers(folder):
                    runner.logger.info(f'Removed {path}, left unfinished by a killed process.')

        self._make_up_validation(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to test or resume with other classes.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The loaded checkpoint.
        """
        check_class_names(runner, checkpoint)

    def _make_up_validation(self, runner) -> None:
        """Repeat the validation of the resumed epoch if a kill prevented
        it."""
        loop = runner.train_loop
        last = _last_validated(runner)
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
            # epochs that are trained once more, as after a damaged checkpoint
            write_file(osp.join(runner.work_dir, _VALIDATED), str(runner.epoch))

    def after_val_epoch(self, runner, metrics) -> None:
        """Save the best checkpoint, and note that this epoch is validated.

        Args:
            runner (Runner): The runner of the training process.
            metrics (dict): Results of the evaluators.
        """
        super().after_val_epoch(runner, metrics)
        if self.by_epoch and isinstance(runner._train_loop, BaseLoop) and is_main_process():
            write_file(osp.join(runner.work_dir, _VALIDATED), str(runner.epoch))

    def is_last_train_epoch(self, runner) -> bool:
        """Whether a stage ends here, whose last epoch `save_last` saves.

        Args:
            runner (Runner): The runner of the training process.

        Returns:
            bool: Whether it does.
        """
        two_stage = find_hook(runner.cfg, 'TwoStageHook') or {}
        return super().is_last_train_epoch(runner) or runner.epoch + 1 == two_stage.get('begin')

    def _own(self, path: Any) -> str | None:
        """Path of a checkpoint of this run; None if the name is not one."""
        name = osp.basename(str(path))
        if step_of(name, self.filename_tmpl) is None and not re.fullmatch(r'best_.*\.pth', name):
            return None
        return self.file_backend.join_path(self.out_dir, name)

    def _kept(self) -> list[str | None]:
        """The checkpoints that are never removed."""
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        return [self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best]

    def _remove_outdated(self, runner, names: list[str]) -> None:
        """Remove what a killed process did not."""
        kept = [self._own(path) for path in self._kept() if path]
        for path in filter(None, map(self._own, names)):
            step = step_of(path, self.filename_tmpl)
            is_kept = path in kept or (
                step is not None and (self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids)
            )
            if osp.isfile(path) and not is_kept:
                os.remove(path)
                runner.logger.info(f'Removed {path}, left over by a killed process.')

    def before_val(self, runner) -> None:
        """Make all ranks validate the same model.

        Args:
            runner (Runner): The runner of the training process.
        """
        synchronize_buffers(runner)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        # saving a new best checkpoint saves the last one once more
        self._depth += 1
        try:
            yield
        except BaseException:
            self.file_backend.forget()
            raise
        finally:
            self._depth -= 1
        if self._depth == 0:
            self.file_backend.carry_out(but=self._kept())

    def _init_rule(self, rules, key_indicators) -> None:
        """Report in one line what MMEngine cannot compare."""
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
        if not self.save_best:
            return
        with self._removing_last():
            super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        # Written anew because MMEngine's writes the pointer in place, so
        # that a full disk leaves it empty.
        synchronize_buffers(runner)
        with self._removing_last():
            if self.max_keep_ckpts > 0:
                self._keep(runner, step)
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

    def _keep(self, runner, step: int) -> None:
        """Note that ``step`` is kept, and that the oldest may be removed."""
        kept = self.keep_ckpt_ids
        # `save_best` saves the same step once more
        if kept and kept[-1] == step:
            return
        if len(kept) == self.max_keep_ckpts:
            outdated = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(kept.popleft())
            )
            if is_main_process():
                if self.file_backend.isfile(outdated):
                    self.file_backend.remove(outdated)
                elif self.file_backend.isdir(outdated):
                    self.file_backend.rmtree(outdated)
        kept.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(kept))


def _is_in(path: str, folder: str) -> bool:
    return osp.realpath(osp.dirname(path)) == osp.realpath(folder)
