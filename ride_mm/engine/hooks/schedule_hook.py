from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS

from ..schedule_check import check_run, describe_schedule, find_unreached


@HOOKS.register_module()
class ScheduleHook(Hook):
    """Says what is trained when, before and after.

    Before the first step, the log shows the schedule, with a warning for
    each part of the config that the run never comes to.

    Raises:
        UserError: If a stage of the run cannot be trained, see
            :func:`~ride_mm.engine.schedule_check.check_run`.
    """

    def before_run(self, runner: Runner) -> None:
        """Check and show the schedule."""
        # Not ``runner.train_loop``, which would build one for a mere test.
        loop = getattr(runner, '_train_loop', None)
        if (not isinstance(runner, Runner) or not isinstance(loop, BaseLoop)
                or loop.iter):
            return
        check_run(runner)
        runner.logger.info(describe_schedule(runner))
        for line in find_unreached(runner):
            runner.logger.warning(f'{line}.')
