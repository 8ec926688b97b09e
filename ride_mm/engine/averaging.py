"""Averaged weights (mmengine's ``EMAHook``) in a two-stage training."""

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from ride_mm.utils.errors import UserError


def averaging_hooks(runner: Runner) -> list[EMAHook]:
    """The hooks that average weights."""
    return [hook for hook in runner.hooks if isinstance(hook, EMAHook)]


def check_averaging(runner: Runner, begin: int) -> None:
    """Refuse averaging that would begin after stage 1.

    Args:
        runner (Runner): The runner, with its training loop built.
        begin (int): Number of epochs of stage 1.

    Raises:
        UserError: If the averaging of an ``EMAHook`` begins later.
    """
    iters = begin * len(runner.train_dataloader)
    for hook in averaging_hooks(runner):
        for name, limit in (('begin_epoch', begin), ('begin_iter', iters)):
            value = getattr(hook, name)
            if value > limit:
                raise UserError(
                    f'{type(hook).__name__}.{name}={value}: weights are averaged in stage 1 only, '
                    f'which ends with {name[6:]} {limit}; choose a smaller one'
                )


@torch.no_grad()
def finish_averaging(runner: Runner) -> None:
    """Replace the weights by their averages at the end of stage 1.

    The averaged weights were validated and saved, so stage 2 freezes these and
    trains the router for them. The router is not averaged, since it is trained
    for too few steps.

    Args:
        runner (Runner): The runner. Its ``model`` is changed in place. From then
            on, its hooks copy the weights instead of averaging them.
    """
    for hook in averaging_hooks(runner):
        own = hook.src_model.state_dict()
        for key, value in hook.ema_model.module.state_dict().items():
            own[key].copy_(value)
        # An EMAHook that has not started copies the weights.
        hook._ema_started = lambda runner: False
        runner.logger.info(
            f'{type(hook).__name__}: the experts keep their averaged weights; the router is not '
            'averaged.'
        )
