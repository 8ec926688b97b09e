from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.utils.errors import UserError

_KEY = 'total_batch'


def _total_batch(runner: Runner) -> int:
    """Images per step over all processes."""
    return (
        runner.train_dataloader.batch_size
        * runner.world_size
        * getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    )


def _initial_rates(runner: Runner) -> list[float]:
    """Learning rates before any schedule."""
    return [group.get('initial_lr', group['lr']) for group in runner.optim_wrapper.param_groups]


@HOOKS.register_module()
class TotalBatchHook(Hook):
    """Warns if a resumed run uses another number of images per step, as with
    another number of processes.

    The resumed optimizer has the old learning rates: a warning says that they
    are kept, or, with ``--auto-scale-lr``, they become those of a new run.
    """

    def __init__(self) -> None:
        self._resumed: int | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the number of images per step."""
        checkpoint['meta'][_KEY] = _total_batch(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the number in the checkpoint, and the rates of a new run."""
        if runner._resume:
            self._resumed = checkpoint.get('meta', {}).get(_KEY)
            self._rates = _initial_rates(runner)

    def before_train(self, runner: Runner) -> None:
        """Compare the numbers, once everything is resumed.

        Raises:
            UserError: If they differ and a scheduler counts iterations.
        """
        old, new = self._resumed, _total_batch(runner)
        self._resumed = None
        if old in (None, new):
            return
        change = f'{old} images per step before the resume, {new} now'
        schedulers = runner.param_schedulers or []
        if isinstance(schedulers, dict):  # several optimizers
            schedulers = sum(schedulers.values(), [])
        if not all(scheduler.by_epoch for scheduler in schedulers):
            raise UserError(
                f'the run had {change}, but a param_scheduler counts steps: '
                f'set train_dataloader.batch_size to {old} divided by the '
                f'number of processes, {runner.world_size}'
            )
        runner.train_loop._iter = round(runner.iter * old / new)
        if not (runner.auto_scale_lr or {}).get('enable'):
            runner.logger.warning(
                f'The run had {change}. The learning rate is unchanged; '
                '--auto-scale-lr would scale it.'
            )
            return
        factors = [new / old for new, old in zip(self._rates, _initial_rates(runner))]
        for factor, group in zip(factors, runner.optim_wrapper.param_groups):
            for key in {'lr', 'initial_lr'} & group.keys():
                group[key] *= factor
        for scheduler in schedulers:
            if scheduler.param_name == 'lr':
                scheduler.base_values = [
                    factor * value for factor, value in zip(factors, scheduler.base_values)
                ]
        runner.logger.warning(
            f'The run had {change}: multiplying the learning rate by {factors[0]:g}.'
        )
