"""Schedules by epochs: over fewer or more of them, and checked."""

import copy
import itertools
import math
import os.path as osp
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ride_mm.utils.errors import UserError

from .config import as_list, find_hook, load_config, merge_options, type_name, warn
from .hooks.two_stage_hook import merge_wrappers

# What MMEngine's schedulers count, in epochs or steps, from their begin on.
_LENGTHS = ('T_max', 'total_steps', 'step_size')
# When a hook begins, in epochs.
_HOOK_BEGINS = dict(DeferredReweightingHook='begin', EMAHook='begin_epoch')
# Options that say how long a training is.
_TOTAL = 'train_cfg.max_epochs'
_STAGE_2 = 'default_hooks.two_stage.begin'


def load_training(
    path: str, options: dict | None = None, epochs: int | None = None, stage: str | None = None
) -> Config:
    """Read the config of a training, of one stage alone or of another number
    of epochs if wanted.

    Args:
        path (str): The config file.
        options (dict, optional): ``--cfg-options``, by dotted key. Each one
            holds as it is given: what ``stage`` and ``epochs`` would make of
            the same key gives way to it, but ``epochs`` overrides
            ``train_cfg.max_epochs``. A warning says so. Defaults to None.
        epochs (int, optional): The epochs of all stages, see
            :func:`scale_schedule`. Defaults to None, which means those of
            the config.
        stage (str, optional): 'experts' or 'router', see
            :func:`select_stage`. Defaults to None, which means both.

    Returns:
        Config: The config.

    Raises:
        UserError: As :func:`~ride_mm.engine.config.load_config` does, or if
            the schedule cannot be changed so.
    """
    if epochs is None and stage is None:
        return load_config(path, options)
    options = dict(options or {})
    total, begin = options.pop(_TOTAL, None), options.pop(_STAGE_2, None)
    # In the file's proportions.
    cfg = load_config(path, options)
    if stage is not None:
        select_stage(cfg, stage, begin)
        if total is not None:
            cfg.train_cfg.max_epochs = total
        _restore(cfg, options, path)
    if epochs is not None:
        scale_schedule(cfg, *split_epochs(cfg, epochs, begin))
        if total not in (None, epochs):
            warn(f'--epochs {epochs} overrides --cfg-options {_TOTAL}={total}')
        held = _restore(cfg, options, path)
        if held:
            warn(f'--cfg-options {held} overrides --epochs {epochs}, which would scale this value')
    return cfg


def _restore(cfg: Config, options: dict, path: str) -> str:
    """Merge again what has been changed since, and name it."""
    held = {}
    for key, value in list(options.items()):
        try:
            if _value_at(cfg, key) == value:
                continue
        except (KeyError, IndexError, TypeError):
            # of a hook, or of a scheduler, that the stage does not have
            del options[key]
            if not key.startswith('default_hooks.'):
                warn(f'--cfg-options {key}={value} has no effect in this stage')
            continue
        held[key] = value
    merge_options(cfg, held, path)
    return ', '.join(f'{key}={value}' for key, value in held.items())


def _value_at(cfg: Config, key: str) -> Any:
    node = cfg
    for part in key.split('.'):
        node = node[int(part) if isinstance(node, list) else part]
    return node


def select_stage(cfg: Config, stage: str, begin: int | None = None) -> None:
    """Make of a training of two stages one of a single stage.

    Args:
        cfg (Config): The config, changed in place. For the router,
            ``load_from`` is, unless it is given, the last checkpoint of
            stage 1 that the config itself would leave, and the default
            work_dir ends in ``_router``.
        stage (str): 'experts', which ends where the router's stage begins,
            or 'router', which trains it alone.
        begin (int, optional): The number of epochs of stage 1. Defaults to
            None, which means the config's.

    Raises:
        UserError: If the training has no second stage.
    """
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is None:
        raise UserError(
            f'--stage {stage}: the config has no '
            'default_hooks.two_stage, so it has no stages to '
            'choose from'
        )
    first = two_stage['begin'] if begin is None else begin
    taken_out = {'TwoStageHook'}
    if stage == 'experts':
        cfg.train_cfg.max_epochs = first
    else:
        taken_out.add('DeferredReweightingHook')
        cfg.train_cfg.max_epochs -= two_stage['begin']
        _select_router(cfg, two_stage, first)
    for name, hook in cfg.default_hooks.items():
        if type_name(hook) in taken_out:
            cfg.default_hooks[name] = None


def _select_router(cfg: Config, two_stage: dict, first: int) -> None:
    stem = Path(cfg.filename).stem
    if cfg.get('load_from') is None:
        folder = cfg.get('work_dir') or osp.join('work_dirs', stem)
        cfg.load_from = osp.join(folder, f'epoch_{first}.pth')
    if cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', f'{stem}_router')
    cfg.model.stage = 'router'
    if 'teacher' in cfg.model:
        cfg.model.teacher = None
    _forget_pretrained(cfg.model)
    two_stage = copy.deepcopy(two_stage)
    for key, value in (two_stage.get('train_dataloader') or {}).items():
        cfg.train_dataloader[key] = value
    cfg.optim_wrapper = merge_wrappers(cfg.optim_wrapper, two_stage['optim_wrapper'])
    cfg.param_scheduler = two_stage['param_scheduler']
    scale = two_stage.get('auto_scale_lr')
    enabled = (cfg.get('auto_scale_lr') or {}).get('enable', False)
    cfg.auto_scale_lr = scale and dict(scale, enable=enabled)


def _forget_pretrained(part: Any) -> None:
    """Take out what is replaced by the weights of ``load_from``."""
    if isinstance(part, dict):
        init = part.get('init_cfg')
        if isinstance(init, dict) and type_name(init) == 'Pretrained':
            part['init_cfg'] = None
        for value in part.values():
            _forget_pretrained(value)


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
        raise UserError(
            'train_cfg.max_epochs is missing: only epoch-based training can be shortened'
        )
    two_stage = find_hook(cfg, 'TwoStageHook')
    return max_epochs if two_stage is None else two_stage['begin']


def split_epochs(cfg: Config, epochs: int, begin: int | None = None) -> tuple[int, int]:
    """Divide a number of epochs among the stages of a training.

    Args:
        cfg (Config): The config of the training.
        epochs (int): The epochs of all stages.
        begin (int, optional): Those of the first. Defaults to None, which
            means in the config's proportion, to the nearest epoch, and at
            least one for each.

    Returns:
        tuple[int, int]: Epochs of the first stage, and of the router's.

    Raises:
        UserError: If there are fewer epochs than stages.
    """
    first = first_stage_epochs(cfg)
    if find_hook(cfg, 'TwoStageHook') is None:
        return epochs, 0
    if epochs < 2:
        raise UserError(
            f'--epochs {epochs}: the config has two stages, which need at least one epoch each'
        )
    if begin is None:
        total = cfg.train_cfg.max_epochs
        router = max(1, round(epochs * (total - first) / total))
        begin = epochs - min(router, epochs - 1)
    elif begin not in range(1, epochs):
        raise UserError(
            f'--cfg-options {_STAGE_2}={begin} must lie between 0 and --epochs {epochs}'
        )
    return begin, epochs - begin


def scale_schedule(cfg: Config, epochs: int, router_epochs: int | None = None) -> None:
    """Give the stages of a training another number of epochs.

    What is counted in epochs, or steps, moves in proportion with its stage,
    to the nearest one and to at least 1: ``param_scheduler``, the begin of
    re-weighting and of EMA. What comes before the end of its stage stays
    before it. A warm-up takes 2 epochs at least, see :func:`check_warm_up`;
    of a stage of 2 or fewer, the first one, step by step. Intervals of
    validation and checkpoints move with the whole training; where the
    config's meet the end of the first stage, so do the new ones, if that
    makes them no more than twice as long or as short.

    Args:
        cfg (Config): The config, changed in place.
        epochs (int): The number of epochs, of the first stage where there
            are two.
        router_epochs (int, optional): Those of the router's stage. Defaults
            to None, which means that it keeps its own.

    Raises:
        UserError: If the training is not by epochs.
    """
    old, old_total = first_stage_epochs(cfg), cfg.train_cfg.max_epochs
    old_router = old_total - old
    if router_epochs is None or not old_router:
        router_epochs = old_router
    total = cfg.train_cfg.max_epochs = epochs + router_epochs
    _scale_schedulers(as_list(cfg.get('param_scheduler')), epochs, old)
    for kind, key in _HOOK_BEGINS.items():
        hook = find_hook(cfg, kind)
        if hook is not None and key in hook:
            hook[key] = _moved(hook[key], epochs, old)
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is not None:
        two_stage['begin'] = epochs
        if router_epochs != old_router:
            _scale_schedulers(as_list(two_stage['param_scheduler']), router_epochs, old_router)

    def interval(value: int) -> int:
        wish = max(1, value * total / old_total)
        near = range(math.ceil(wish / 2), int(wish * 2) + 1)
        fit = [i for i in near if epochs % i == 0] if old % value == 0 else []
        return min(fit or [round(wish)], key=lambda i: abs(i - wish))

    _scale_intervals(cfg, interval, total, old_total)


def _scale_intervals(cfg: Config, interval: Callable[[int], int], new: int, old: int) -> None:
    """Scale what comes every few epochs of the whole training."""
    loop = cfg.train_cfg
    if 'val_interval' in loop:
        loop.val_interval = interval(loop.val_interval)
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [
            (_moved(begin, new, old), interval(value)) for begin, value in loop.dynamic_intervals
        ]
    if 'val_begin' in loop:
        loop.val_begin = _moved(loop.val_begin, new, old)
    checkpoint = find_hook(cfg, 'CheckpointHook')
    if checkpoint is not None and checkpoint.get('by_epoch', True):
        if checkpoint.get('interval', -1) > 0:
            checkpoint['interval'] = interval(checkpoint['interval'])
        if 'save_begin' in checkpoint:
            checkpoint['save_begin'] = _moved(checkpoint['save_begin'], new, old)


def _scale_schedulers(schedulers: list[dict], new: int, old: int) -> None:
    """Scale what is counted from the beginning of a stage."""
    if new == old:
        return
    begins = [scheduler.get('begin', 0) for scheduler in schedulers]
    ends = [scheduler.get('end') for scheduler in schedulers]
    for scheduler, begin in zip(schedulers, begins):
        _scale_scheduler(scheduler, begin, new, old)
    for scheduler, end in zip(schedulers, ends):
        if not _is_stuck(scheduler):
            continue
        if new <= 2:
            scheduler['convert_to_iter_based'] = True
            continue
        scheduler['end'] += 1
        for follower, begin in zip(schedulers, begins):
            if begin == end:
                follower['begin'] = scheduler['end']


def _scale_scheduler(scheduler: dict, begin: int, new: int, old: int) -> None:
    by_epoch = scheduler.get('by_epoch', True)
    new_begin = _scaled(begin, new, old)
    if by_epoch:
        new_begin = min(new_begin, new - 1)

    def length(value: int) -> int:
        return max(1, _scaled(begin + value, new, old) - new_begin)

    if begin:
        scheduler['begin'] = new_begin
    if 'end' in scheduler:
        end = _scaled(scheduler['end'], new, old)
        scheduler['end'] = max(end, new_begin + 1)
    for key in _LENGTHS:
        if scheduler.get(key):
            scheduler[key] = length(scheduler[key])
    if 'periods' in scheduler:
        ends = [0, *itertools.accumulate(scheduler['periods'])]
        scheduler['periods'] = [
            max(1, length(b) - (length(a) if a else 0)) for a, b in zip(ends, ends[1:])
        ]
    if 'milestones' in scheduler:
        move = _moved if by_epoch else _scaled
        scheduler['milestones'] = [
            max(1, move(begin + milestone, new, old) - new_begin)
            for milestone in scheduler['milestones']
        ]
    if type_name(scheduler).startswith('Exponential'):
        scheduler['gamma'] **= old / new


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
    for i, schedule in enumerate(as_list(cfg.get('param_scheduler'))):
        if _is_stuck(schedule):
            raise UserError(
                f'param_scheduler.{i} is a LinearLR of a single epoch, which '
                'leaves the learning rate at start_factor forever; with '
                f'param_scheduler.{i}.end={schedule["end"] + 1} the first '
                'epoch warms up and the second has the full learning rate'
            )


def _is_stuck(schedule: dict) -> bool:
    epochs = schedule.get('end', math.inf) - schedule.get('begin', 0)
    return (
        type_name(schedule) == 'LinearLR'
        and epochs == 1
        and schedule.get('by_epoch', True)
        and not schedule.get('convert_to_iter_based')
    )


def _scaled(value: float, new: int, old: int) -> float:
    """In proportion, to the nearest whole number and to at least 1."""
    if not value or math.isinf(value):
        return value
    return max(1, round(value * new / old))


def _moved(value: int, new: int, old: int) -> int:
    """As :func:`_scaled`; what lies before the end stays before it."""
    scaled = _scaled(value, new, old)
    return min(scaled, max(1, new - 1)) if value < old else scaled
