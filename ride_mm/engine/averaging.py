"""Averaged weights (mmengine's ``EMAHook``) in a run of two stages."""

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from ride_mm.utils.errors import UserError


def averaging_hooks(runner: Runner) -> list[EMAHook]:
    """The hooks of a run that average weights: EMA, SWA."""
    return [hook for hook in runner.hooks if isinstance(hook, EMAHook)]


def check_averaging(runner: Runner, begin: int) -> None:
    """Refuse averages that would begin when stage 1 is over.

    Args:
        runner (Runner): Its training loop is built.
        begin (int): Epochs of stage 1.

    Raises:
        UserError: If there is one.
    """
    iters = begin * len(runner.train_dataloader)
    for hook in averaging_hooks(runner):
        for name, limit in (('begin_epoch', begin), ('begin_iter', iters)):
            value = getattr(hook, name)
            if value > limit:
                raise UserError(
                    f'{type(hook).__name__}.{name}={value}: weights are '
                    f'averaged in stage 1 only, which ends with {name[6:]} '
                    f'{limit}; choose a smaller one'
                )


@torch.no_grad()
def finish_averaging(runner: Runner) -> None:
    """End the averages of stage 1: the model takes the averaged weights,
    with which it was validated and saved.

    They are what stage 2 freezes, so the router is trained for the experts
    that are saved. The router itself is not averaged: its few steps are too
    few for an average over thousands.

    Args:
        runner (Runner): Its ``model`` is changed in place, and its hooks
            copy its weights from now on.
    """
    for hook in averaging_hooks(runner):
        own = hook.src_model.state_dict()
        for key, value in hook.ema_model.module.state_dict().items():
            own[key].copy_(value)
        hook._ema_started = _never
        runner.logger.info(
            f'{type(hook).__name__}: the experts keep their averaged '
            'weights; the router is not averaged.'
        )


def _never(runner: Runner) -> bool:
    """In place of ``EMAHook._ema_started``: weights are copied, not
    averaged."""
    return False
