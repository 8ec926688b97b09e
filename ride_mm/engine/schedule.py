"""Read the config of a training, for one stage or another number of epochs."""

import copy
import itertools
import math
import os.path as osp
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ride_mm.utils.errors import UserError

from .config import as_list, find_hook, follow_key, load_config, merge_options, type_name, warn
from .hooks.two_stage_hook import merge_wrappers

# Options of MMEngine's schedulers that count epochs, or steps, from `begin`.
_LENGTHS = ('T_max', 'total_steps', 'step_size')
# Options of hooks that count epochs.
_HOOK_BEGINS = dict(DeferredReweightingHook='begin', EMAHook='begin_epoch')
# Options that set the length of a training and of its first stage.
_TOTAL = 'train_cfg.max_epochs'
_STAGE_2 = 'default_hooks.two_stage.begin'


def load_training(
    path: str, options: dict | None = None, epochs: int | None = None, stage: str | None = None
) -> Config:
    """Read the config of a training, optionally for a single stage or another
    number of epochs.

    Args:
        path (str): The config file.
        options (dict, optional): ``--cfg-options``, by dotted key. They take
            precedence over changes by ``stage`` and ``epochs``, with a warning,
            except that ``epochs`` overrides ``train_cfg.max_epochs``. Defaults
            to None.
        epochs (int, optional): The total number of epochs, see
            :func:`scale_schedule`. Defaults to None, the config's.
        stage (str, optional): 'experts' or 'router', see
            :func:`select_stage`. Defaults to None, both.

    Returns:
        Config: The config.

    Raises:
        UserError: See :func:`~ride_mm.engine.config.load_config`; also if the
            schedule cannot be changed as requested.
    """
    if epochs is None and stage is None:
        return load_config(path, options)
    options = dict(options or {})
    total, begin = options.pop(_TOTAL, None), options.pop(_STAGE_2, None)
    # the proportions are those of the file
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
    """Merge options again that were changed since, and return them as text."""
    changed = {}
    for key, value in list(options.items()):
        found, missing = follow_key(cfg, key)
        if missing:
            # of a hook or scheduler that the stage does not have
            del options[key]
            if not key.startswith('default_hooks.'):
                warn(f'--cfg-options {key}={value} has no effect in this stage')
        elif found != value:
            changed[key] = value
    merge_options(cfg, changed, path)
    return ', '.join(f'{key}={value}' for key, value in changed.items())


def select_stage(cfg: Config, stage: str, begin: int | None = None) -> None:
    """Reduce a two-stage training to one of its stages.

    Args:
        cfg (Config): The config, changed in place. For the router,
            ``load_from`` defaults to the last checkpoint of stage 1 of this
            config, and the default work_dir ends in ``_router``.
        stage (str): 'experts', which is stage 1, or 'router', which is stage 2.
        begin (int, optional): The number of epochs of stage 1. Defaults to
            None, the config's.

    Raises:
        UserError: If the training has no second stage.
    """
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is None:
        raise UserError(
            f'--stage {stage}: the config has no default_hooks.two_stage, so it has no stages to '
            'choose from'
        )
    first = two_stage['begin'] if begin is None else begin
    removed = {'TwoStageHook'}
    if stage == 'experts':
        cfg.train_cfg.max_epochs = first
    else:
        removed.add('DeferredReweightingHook')
        cfg.train_cfg.max_epochs -= two_stage['begin']
        _select_router(cfg, two_stage, first)
    for name, hook in cfg.default_hooks.items():
        if type_name(hook) in removed:
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
    loader = two_stage.get('train_dataloader') or {}
    cfg.train_dataloader = dict(cfg.train_dataloader, **loader)
    cfg.optim_wrapper = merge_wrappers(cfg.optim_wrapper, two_stage['optim_wrapper'])
    cfg.param_scheduler = two_stage['param_scheduler']
    recipes = find_hook(cfg, 'SwitchRecipeHook')
    if recipes is not None:
        recipes['schedule'] = _recipes_after(recipes['schedule'], two_stage['begin'])
    scale = two_stage.get('auto_scale_lr')
    enabled = (cfg.get('auto_scale_lr') or {}).get('enable', False)
    cfg.auto_scale_lr = scale and dict(scale, enable=enabled)


def _recipes_after(schedule: list[dict], epochs: int) -> list[dict]:
    """The recipes of a run that begins after some epochs of a schedule: what is
    set until then holds from its first epoch."""
    first: dict[str, Any] = {}
    later = []
    for recipe in sorted(schedule, key=lambda recipe: recipe['action_epoch']):
        epoch = recipe['action_epoch'] - epochs
        if epoch > 1:
            later.append(dict(recipe, action_epoch=epoch))
        else:
            first.update(recipe, action_epoch=1)
    return [first, *later] if first else later


def _forget_pretrained(part: Any) -> None:
    """Remove pretrained weights, which ``load_from`` replaces."""
    if isinstance(part, dict):
        init = part.get('init_cfg')
        if isinstance(init, dict) and type_name(init) == 'Pretrained':
            part['init_cfg'] = None
        for value in part.values():
            _forget_pretrained(value)


def first_stage_epochs(cfg: Config) -> int:
    """Number of epochs before the router stage of a TwoStageHook, if any.

    Args:
        cfg (Config): The config of an epoch-based training.

    Returns:
        int: The number.

    Raises:
        UserError: If the training is not epoch-based.
    """
    max_epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if max_epochs is None:
        raise UserError(
            'train_cfg.max_epochs is missing: only epoch-based training can be shortened'
        )
    return (find_hook(cfg, 'TwoStageHook') or {}).get('begin', max_epochs)


def split_epochs(cfg: Config, epochs: int, begin: int | None = None) -> tuple[int, int]:
    """Divide a number of epochs among the stages of a training.

    Args:
        cfg (Config): The config of the training.
        epochs (int): The total number of epochs.
        begin (int, optional): Those of the first stage. Defaults to None, which
            keeps the proportions of the config, with at least one epoch per
            stage.

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
    """Change the number of epochs of the stages of a training.

    ``param_scheduler``, the begin of re-weighting and of EMA and the epochs of
    ``SwitchRecipeHook`` scale in proportion with their stage, rounded, to at
    least 1 epoch or step; what lies before the end of its stage stays before
    it. A warm-up takes at least 2 epochs, see :func:`check_schedulers`, or, in a
    stage of 1 or 2 epochs, the steps of the first. Intervals of validation and
    checkpoints scale with the whole training. Those that divide the first stage
    still do, unless that would make them more than twice as long or short as in
    proportion.

    Args:
        cfg (Config): The config, changed in place.
        epochs (int): The number of epochs of the first, or only, stage.
        router_epochs (int, optional): The number of epochs of the router's
            stage. Defaults to None, the config's.

    Raises:
        UserError: If the training is not epoch-based.
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
    recipes = find_hook(cfg, 'SwitchRecipeHook')
    if recipes is not None and 'schedule' in recipes:
        by_epoch: dict[float, dict] = {}
        for recipe in sorted(recipes['schedule'], key=lambda recipe: recipe['action_epoch']):
            # counted from 1; in a short run several fall on one epoch
            epoch = 1 + _moved(recipe['action_epoch'] - 1, epochs, old)
            by_epoch.setdefault(epoch, {}).update(recipe, action_epoch=epoch)
        recipes['schedule'] = list(by_epoch.values())
    two_stage = find_hook(cfg, 'TwoStageHook')
    if two_stage is not None:
        two_stage['begin'] = epochs
        _scale_schedulers(as_list(two_stage['param_scheduler']), router_epochs, old_router)

    def interval(value: int) -> int:
        wish = max(1, value * total / old_total)
        near = range(math.ceil(wish / 2), int(wish * 2) + 1)
        fit = [i for i in near if epochs % i == 0] if old % value == 0 else []
        return min(fit or [round(wish)], key=lambda i: abs(i - wish))

    loop = cfg.train_cfg
    if 'val_interval' in loop:
        loop.val_interval = interval(loop.val_interval)
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [
            (_moved(begin, total, old_total), interval(value))
            for begin, value in loop.dynamic_intervals
        ]
    if 'val_begin' in loop:
        loop.val_begin = _moved(loop.val_begin, total, old_total)
    checkpoint = find_hook(cfg, 'CheckpointHook')
    if checkpoint is not None and checkpoint.get('by_epoch', True):
        if checkpoint.get('interval', -1) > 0:
            checkpoint['interval'] = interval(checkpoint['interval'])
        if 'save_begin' in checkpoint:
            checkpoint['save_begin'] = _moved(checkpoint['save_begin'], total, old_total)


def _scale_schedulers(schedulers: list[dict], new: int, old: int) -> None:
    """Scale the schedulers of a stage."""
    if new == old:
        return
    spans = [(scheduler.get('begin', 0), scheduler.get('end')) for scheduler in schedulers]
    for scheduler, (begin, _) in zip(schedulers, spans):
        _scale_scheduler(scheduler, begin, new, old)
    for scheduler, (_, end) in zip(schedulers, spans):
        if _is_stuck(scheduler) and new <= 2:
            scheduler['convert_to_iter_based'] = True
        elif _is_stuck(scheduler):
            scheduler['end'] += 1
            for follower, (begin, _) in zip(schedulers, spans):
                if begin == end:
                    follower['begin'] = scheduler['end']


def _scale_scheduler(scheduler: dict, begin: int, new: int, old: int) -> None:
    by_epoch = scheduler.get('by_epoch', True)
    new_begin = _scaled(begin, new, old)
    if by_epoch:
        new_begin = min(new_begin, new - 1)

    def length(value: float) -> float:
        return max(1, _scaled(begin + value, new, old) - new_begin)

    if begin:
        scheduler['begin'] = new_begin
    if 'end' in scheduler:
        scheduler['end'] = max(_scaled(scheduler['end'], new, old), new_begin + 1)
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


def check_schedulers(cfg: Config) -> None:
    """Refuse a scheduler that ends before it begins, and a warm-up of one epoch.

    MMEngine's ``LinearLR`` uses ``start_factor`` in its first epoch and
    ``end_factor`` in its last. With a single epoch, the learning rate would
    stay at ``start_factor`` for the whole training.

    Args:
        cfg (Config): The config of a training.

    Raises:
        UserError: If there is such a scheduler.
    """
    two_stage = cfg.get('default_hooks', {}).get('two_stage') or {}
    for prefix, part in (('', cfg), ('default_hooks.two_stage.', two_stage)):
        for i, schedule in enumerate(as_list(part.get('param_scheduler'))):
            key = f'{prefix}param_scheduler.{i}'
            begin, end = schedule.get('begin', 0), schedule.get('end', math.inf)
            if begin >= end:
                raise UserError(f'{key} has begin={begin} and end={end}, expected begin < end')
            if _is_stuck(schedule):
                raise UserError(
                    f'{key} is a LinearLR of a single epoch, which leaves the learning rate at '
                    f'start_factor forever; with {key}.end={end + 1} the first epoch warms up and '
                    'the second has the full learning rate'
                )


def _is_stuck(schedule: dict) -> bool:
    return (
        type_name(schedule) == 'LinearLR'
        and schedule.get('end', math.inf) - schedule.get('begin', 0) == 1
        and schedule.get('by_epoch', True)
        and not schedule.get('convert_to_iter_based')
    )


def _scaled(value: float, new: int, old: int) -> float:
    """Scale in proportion, rounded, to at least 1; keep 0 and infinity."""
    if not value or math.isinf(value):
        return value
    return max(1, round(value * new / old))


def _moved(value: float, new: int, old: int) -> float:
    """As :func:`_scaled`, but keep before the end what lies before it."""
    scaled = _scaled(value, new, old)
    return min(scaled, max(1, new - 1)) if value < old else scaled
