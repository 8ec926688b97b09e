"""Schedules by epochs: over fewer or more of them, and checked."""
import math
from typing import Any, List

from mmengine.config import Config

from ride_mm.utils.errors import UserError
from .config import find_hook

# What MMEngine's schedulers count in epochs.
_EPOCHS = ('begin', 'end', 'T_max', 'milestones', 'periods', 'step_size')


def first_stage_epochs(cfg: Config) -> int:
    """Number of epochs before a TwoStageHook's router stage, if there is one.

    Args:
        cfg (Config): The config of a training by epochs.

    Returns:
        int: The number.

    Raises:
        UserError: If the training is not by epochs.
    """
    max_epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if max_epochs is None:
        raise UserError('train_cfg.max_epochs is missing: only a training by '
                        'epochs can be shortened')
    two_stage = find_hook(cfg, 'TwoStageHook')
    return max_epochs if two_stage is None else two_stage['begin']


def scale_schedule(cfg: Config, epochs: int) -> None:
    """Give the first stage of a training another number of epochs.

    The epochs of ``param_scheduler`` and the begin of re-weighting move in
    proportion, to the nearest epoch
    and to at least 1; a warm-up takes 2 epochs at least, see
    :func:`check_warm_up`. The router's stage, which is short, keeps its
    length.

    Args:
        cfg (Config): The config, changed in place.
        epochs (int): The number of epochs, of the first stage where there
            are two.

    Raises:
        UserError: If something is counted in iterations.
    """
    old = first_stage_epochs(cfg)
    cfg.train_cfg.max_epochs += epochs - old
    for i, schedule in enumerate(_schedules(cfg)):
        if not schedule.get('by_epoch', True):
            raise UserError(f'param_scheduler.{i} has by_epoch=False: only '
                            'schedules by epochs can be shortened')
        for key in _EPOCHS:
            if key in schedule:
                schedule[key] = _scaled(schedule[key], epochs, old)
        if _is_stuck(schedule):
            schedule['end'] += 1
    for kind in ('DeferredReweightingHook', 'TwoStageHook'):
        hook = find_hook(cfg, kind)
        if hook is not None:
            hook['begin'] = _scaled(hook['begin'], epochs, old)


def check_warm_up(cfg: Config) -> None:
    """Refuse a linear warm-up that never leaves its first value.

    MMEngine's ``LinearLR`` takes its first epoch at ``start_factor`` and
    reaches ``end_factor`` in its last one: of a single epoch there is no
    other, and the learning rate of the whole training would stay there.

    Args:
        cfg (Config): The config of a training.

    Raises:
        UserError: If there is such a warm-up.
    """
    for i, schedule in enumerate(_schedules(cfg)):
        if _is_stuck(schedule):
            raise UserError(
                f'param_scheduler.{i} is a LinearLR of a single epoch, which '
                'leaves the learning rate at start_factor for good; with '
                f'param_scheduler.{i}.end={schedule["end"] + 1} the first '
                'epoch warms up and the second has the whole learning rate')


def _is_stuck(schedule: dict) -> bool:
    epochs = schedule.get('end', math.inf) - schedule.get('begin', 0)
    return (schedule.get('type') == 'LinearLR' and epochs == 1
            and schedule.get('by_epoch', True)
            and not schedule.get('convert_to_iter_based'))


def _schedules(cfg: Config) -> List[dict]:
    schedules = cfg.get('param_scheduler') or []
    return [schedules] if isinstance(schedules, dict) else schedules


def _scaled(value: Any, new: int, old: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [_scaled(part, new, old) for part in value]
    return max(1, round(value * new / old)) if value else value
