import copy
import os.path as osp
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from ride_mm.utils.errors import UserError

from ..config import find_hook
from ..resumed_schedule import Schedule, Stage, follow_config, read_schedule
from ..schedule_check import STAGE_NAMES, check_run, describe_schedule, find_unreached, stage_name
from .class_counts_hook import unwrapped
from .stop_signal_hook import save_last_epoch

_KEY = 'schedule'
_REWEIGHTED = 're-weighted'


@HOOKS.register_module()
class ScheduleHook(Hook):
    """Logs the schedule before and after training, and makes a resumed run
    follow its config.

    Before the first step, the log shows the schedule, with a warning for each
    part of the config that the run never reaches. At the end it shows how many
    steps each stage had and in which epochs classes were re-weighted, as
    counted during the run, including the part before a resume.

    If learning rates, milestones or other optimizer settings differ between
    config and checkpoint, a resumed run uses those of the config, see
    :func:`~ride_mm.engine.resumed_schedule.follow_config`.

    Raises:
        UserError: If a stage of the run cannot be trained, see
            :func:`~ride_mm.engine.schedule_check.check_run`, or a checkpoint
            of stage 2 is resumed with another ``begin``.
    """

    # After TotalBatchHook, which scales the rates of a resumed run, and after
    # DeferredReweightingHook.
    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        # First and last epoch and steps of each stage, and of re-weighting.
        self._done: dict[str, dict[str, int]] = {}
        self._wanted: Schedule | None = None
        self._parts: Sequence[str] = ()
        self._note = ''

    def before_run(self, runner: Runner) -> None:
        """Check and show the schedule."""
        # ``runner.train_loop`` would build one even for a test.
        loop = getattr(runner, '_train_loop', None)
        if not isinstance(runner, Runner) or not isinstance(loop, BaseLoop) or loop.iter:
            return
        check_run(runner)
        runner.logger.info(describe_schedule(runner))
        for line in find_unreached(runner):
            runner.logger.warning(f'{line}.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the steps so far, and the epoch at which stage 2 begins."""
        checkpoint['meta'][_KEY] = dict(done=copy.deepcopy(self._done), stage_2=_begin(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the settings of the config before the optimizer is loaded.

        Raises:
            UserError: If stage 2 began at another epoch than configured.
        """
        if not getattr(runner, '_resume', False):
            return
        stored = checkpoint.get('meta', {}).get(_KEY) or {}
        self._done = copy.deepcopy(stored.get('done', {}))
        if not stored:
            self._note = (
                ' Epochs before the resume are not counted: the checkpoint does not record them.'
            )
        begin = stored.get('stage_2')
        if STAGE_NAMES['router'] in self._done and begin != _begin(runner):
            raise UserError(
                '--resume: the checkpoint comes from stage 2, with '
                f'default_hooks.two_stage.begin={begin}, not '
                f'{_begin(runner)}: keep {begin} (and --epochs as it was), or '
                'resume a checkpoint of stage 1'
            )
        self._wanted = read_schedule(runner)
        self._saved = checkpoint.get('param_schedulers')

    def before_train(self, runner: Runner) -> None:
        """Make a resumed run follow its config."""
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        changes = follow_config(runner, wanted, self._saved, self._stage(runner))
        if changes:
            runner.logger.warning(
                'The config differs from the resumed checkpoint and takes '
                f'precedence: {"; ".join(changes)}.'
            )
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop) and loop.epoch > loop.max_epochs:
            runner.logger.warning(
                'Nothing to train: the checkpoint is from epoch '
                f'{loop.epoch}, and train_cfg.max_epochs is '
                f'{loop.max_epochs}.'
            )

    def _stage(self, runner: Runner) -> Stage:
        loop, steps = runner.train_loop, len(runner.train_dataloader)
        two_stage = find_hook(runner.cfg, 'TwoStageHook')
        if two_stage is None or stage_name(runner) != STAGE_NAMES['router']:
            return Stage(runner.cfg.get('param_scheduler'), 'param_scheduler', 0, 0, steps)
        planned = two_stage['begin']
        router = self._done.get(STAGE_NAMES['router'], {})
        return Stage(
            two_stage['param_scheduler'],
            'default_hooks.two_stage.param_scheduler',
            begin=router.get('first', planned + 1) - 1,
            first_step=loop.max_iters - (loop.max_epochs - planned) * steps,
            steps=steps,
        )

    def before_train_epoch(self, runner: Runner) -> None:
        """Find out what is trained in this epoch."""
        stage = stage_name(runner)
        weights = getattr(getattr(unwrapped(runner), 'head', None), 'class_weights', None)
        is_weighted = weights is not None and (weights != 1).any()
        is_router = stage == STAGE_NAMES['router']
        self._parts = [stage, _REWEIGHTED] if is_weighted and not is_router else [stage]

    def after_train_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        """Count the step."""
        for name in self._parts:
            part = self._done.setdefault(name, dict(first=runner.epoch + 1, steps=0))
            part['steps'] += 1
            part['last'] = runner.epoch + 1

    def after_train(self, runner: Runner) -> None:
        """Log what was trained."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        done = dict(self._done)
        weighted = done.pop(_REWEIGHTED, None)
        for name, part in done.items():
            runner.logger.info(f'Trained: {name}, {_show(part, by_epoch)}.')
        if by_epoch and runner.epoch < runner.max_epochs:
            save_last_epoch(
                runner, f'The training ends after epoch {runner.epoch} of {runner.max_epochs}'
            )
        router = STAGE_NAMES['router']
        if _begin(runner) is not None and router not in done:
            folder = runner.work_dir.rstrip(osp.sep)
            # the config that the run has dumped, with its options
            name = osp.basename(runner.cfg.filename or f'{runner.timestamp}.py')
            last = runner.message_hub.runtime_info.get('last_ckpt', 'CHECKPOINT')
            runner.logger.warning(
                f'Not trained: {router}. To train it: python tools/train.py '
                f'{osp.join(folder, name)} --stage router --work-dir '
                f'{folder}_router --cfg-options load_from={last}'
            )
        shown = _show(weighted, by_epoch) if weighted else 'never'
        runner.logger.info(f'Classes re-weighted: {shown}.{self._note}')


def _show(part: dict[str, int], by_epoch: bool) -> str:
    """Format the steps and epochs."""
    if not by_epoch:
        return f'{part["steps"]} steps'
    return f'epochs {part["first"]} to {part["last"]}, {part["steps"]} steps'


def _begin(runner: Runner) -> int | None:
    two_stage = find_hook(runner.cfg, 'TwoStageHook')
    return two_stage['begin'] if two_stage else None
