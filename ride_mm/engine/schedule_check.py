"""What a run will train, before its first step: refused, warned of, shown."""

import copy
import random
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from mmengine.hooks import CheckpointHook
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ride_mm.evaluation.tables import build_table, render_table
from ride_mm.utils.errors import UserError

from .config import as_list, hook_places, type_name
from .hooks.class_counts_hook import unwrapped
from .hooks.deferred_reweighting_hook import DeferredReweightingHook
from .hooks.two_stage_hook import TwoStageHook

STAGE_NAMES = dict(experts='stage 1 (experts)', router='stage 2 (router)', classifier='classifiers')
# Longer trainings are not played through for their learning rates.
_MAX_STEPS = 500_000


class Stage(NamedTuple):
    """A part of a run that has its own images and schedule.

    Args:
        name (str): The part, for messages.
        module (nn.Module): What is trained.
        loader (DataLoader): The images.
        loader_key (str): Where the config describes them.
        begin (int): The first epoch, counted from 0.
        epochs (int): The number of epochs; 1 of a run by steps.
        steps (int): The number of steps in an epoch.
        schedulers (list[dict] | dict): Configs of its schedulers.
        schedule_key (str): Where they stand in the config.
    """

    name: str
    module: torch.nn.Module
    loader: DataLoader
    loader_key: str
    begin: int
    epochs: int
    steps: int
    schedulers: list[dict] | dict
    schedule_key: str


def stage_name(runner: Runner) -> str:
    """Name of what is trained now, for messages."""
    stage = getattr(unwrapped(runner), 'stage', None)
    return STAGE_NAMES.get(stage, 'training')


def find_stages(runner: Runner) -> list[Stage]:
    """Find the stages that a run will have.

    Args:
        runner (Runner): A runner that is about to train.

    Returns:
        list[Stage]: One stage, or two with a ``TwoStageHook``.
    """
    loop, model = runner.train_loop, unwrapped(runner)
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    module = dict(router=lambda: model.head.router, classifier=lambda: model.head.classifiers).get(
        getattr(model, 'stage', None), lambda: model
    )()
    first = Stage(
        stage_name(runner),
        module,
        loop.dataloader,
        'train_dataloader',
        0,
        loop.max_epochs,
        len(loop.dataloader) if by_epoch else loop.max_iters,
        runner.cfg.get('param_scheduler') or [],
        'param_scheduler',
    )
    hooks = _hooks(runner)
    if 'TwoStageHook' not in hooks or not by_epoch:
        return [first]
    key, _ = hooks['TwoStageHook']
    two_stage = _two_stage_hook(runner)
    loader = two_stage.build_dataloader(runner, first.loader.dataset)
    second = Stage(
        STAGE_NAMES['router'],
        model.head.router,
        loader,
        f'{key}.train_dataloader',
        two_stage.begin,
        loop.max_epochs - two_stage.begin,
        len(loader),
        two_stage.param_scheduler,
        f'{key}.param_scheduler',
    )
    return [first._replace(epochs=two_stage.begin), second]


def _hooks(runner: Runner) -> dict[str, tuple[str, dict]]:
    """Place and config of the run's hooks, by the names of their classes."""
    return {type_name(hook): (key, hook) for key, hook in hook_places(runner.cfg).items()}


def _two_stage_hook(runner: Runner) -> TwoStageHook:
    return next(hook for hook in runner.hooks if isinstance(hook, TwoStageHook))


def check_run(runner: Runner) -> None:
    """Refuse a run with a stage that cannot be trained.

    Args:
        runner (Runner): A runner that is about to train.

    Raises:
        UserError: If a hook cannot act in this run, a stage has no step, or
            BatchNorm would be given a batch with one value in a channel.
    """
    runner.train_loop  # builds it
    for hook in runner.hooks:
        if isinstance(hook, (DeferredReweightingHook, TwoStageHook)):
            hook.before_run(runner)
    for stage in find_stages(runner):
        _check_steps(stage)
        _check_last_batch(runner, stage)


def _check_steps(stage: Stage) -> None:
    loader = stage.loader
    if len(loader):
        return
    images = len(loader.dataset)
    if images == 0:
        raise UserError(f'{stage.name} has no step: the data set of {stage.loader_key} is empty')
    raise UserError(
        f'{stage.name} has no step: {len(loader.sampler)} images for each '
        'process, fewer than '
        f'{stage.loader_key}.batch_size={loader.batch_size}, and '
        'drop_last=True drops them'
    )


def _check_last_batch(runner: Runner, stage: Stage) -> None:
    loader = stage.loader
    size, images = loader.batch_size, len(loader.sampler)
    if size is None or loader.drop_last or (size > 1 and images % size != 1):
        return
    if _has_single_values(runner, stage):
        raise UserError(
            f'{stage.name}: {images} images for each process at '
            f'{stage.loader_key}.batch_size={size} leave a batch of one, '
            'which BatchNorm cannot normalize: set drop_last=True or another '
            'batch_size'
        )


def _has_single_values(runner: Runner, stage: Stage) -> bool:
    """Whether an image gives a BatchNorm one value in a channel."""
    found = []

    def look(norm, args) -> None:
        found.append(args[0].numel() == args[0].size(1))

    hooks = [
        module.register_forward_pre_hook(look)
        for module in stage.module.modules()
        if isinstance(module, _BatchNorm)
    ]
    if not hooks:
        return False
    model = unwrapped(runner)
    states = random.getstate(), np.random.get_state()
    with torch.no_grad(), torch.random.fork_rng():
        (batch,) = DataLoader(
            torch.utils.data.Subset(stage.loader.dataset, [0]), collate_fn=stage.loader.collate_fn
        )
        model.eval()
        batch = model.data_preprocessor(batch)
        model(batch['inputs'], mode='tensor')
    random.setstate(states[0])
    np.random.set_state(states[1])
    for hook in hooks:
        hook.remove()
    return any(found)


def find_unreached(runner: Runner) -> list[str]:
    """Find what a config asks for and the run never comes to.

    Args:
        runner (Runner): A runner that is about to train.

    Returns:
        list[str]: A line for each, with its place in the config.
    """
    hooks, stages = _hooks(runner), find_stages(runner)
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    lines = []
    for stage in stages:
        for key, cfg, scheduler in _build_schedulers(runner, stage, 1.0):
            if scheduler.by_epoch and not by_epoch:
                lines.append(
                    f'{key} counts epochs, and '
                    'train_cfg=dict(by_epoch=False) has none: it has '
                    'no effect'
                )
            else:
                lines += [f'{key}.{line}' for line in _unreached_parts(cfg, scheduler, stage)]
    whole = stages[0]._replace(name='the run', epochs=sum(stage.epochs for stage in stages))
    for kind, name, stage in (
        ('DeferredReweightingHook', 'begin', stages[0]),
        ('EMAHook', 'begin_epoch', whole),
    ):
        key, hook = hooks.get(kind, ('', {}))
        if by_epoch and hook.get(name, 0) >= stage.epochs:
            lines.append(
                f'{key}.{name}={hook[name]} is never reached: '
                f'{stage.name} has {stage.epochs} epochs'
            )
    if 'DeferredReweightingHook' in hooks and stages[0].name == STAGE_NAMES['router']:
        lines.append(
            f'{hooks["DeferredReweightingHook"][0]} has no effect when only the router is trained'
        )
    if len(stages) == 2 and 'EarlyStoppingHook' in hooks:
        lines.append(
            f'{hooks["EarlyStoppingHook"][0]} stops the whole run: '
            'if it stops in stage 1, there is no stage 2'
        )
    loop = runner.train_loop
    length = loop.max_epochs if by_epoch else loop.max_iters
    if runner.val_loop is not None and loop.val_begin > length:
        lines.append(
            f'train_cfg.val_begin={loop.val_begin} is never reached: '
            f'the run has {length} and is never validated'
        )
    key, hook = hooks.get('CheckpointHook', ('', {}))
    if not by_epoch and hook.get('by_epoch', True) and hook:
        lines.append(
            f'{key} counts epochs, and train_cfg=dict('
            'by_epoch=False) has none: set its by_epoch=False'
        )
    return lines


def _unreached_parts(cfg: dict, scheduler, stage: Stage) -> Iterator[str]:
    """What of a scheduler lies beyond the end of its stage."""
    length = stage.epochs * (1 if scheduler.by_epoch else stage.steps)
    unit = stage.steps if cfg.get('convert_to_iter_based') else 1
    units = 'epochs' if scheduler.by_epoch or unit > 1 else 'steps'
    has = f'{stage.name} has {length // unit} {units}'
    begin, stop = scheduler.begin, min(scheduler.end, length)
    if begin >= length:
        yield f'begin={begin // unit} is never reached: {has}'
        return
    late = [
        milestone // unit
        for milestone in sorted(getattr(scheduler, 'milestones', ()))
        if begin + milestone >= stop
    ]
    if late:
        yield f'milestones={late} is never reached: {has}'
    ends = dict(
        T_max=getattr(scheduler, 'T_max', None),
        total_steps=getattr(scheduler, 'total_steps', None),
        periods=getattr(scheduler, 'cumulative_periods', [None])[-1],
        step_size=getattr(scheduler, 'step_size', None),
    )
    if hasattr(scheduler, 'total_iters'):
        ends['end'] = scheduler.total_iters + 1
    for name, value in ends.items():
        if value and begin + value > length:
            shown = begin + value if name == 'end' else value
            yield f'{name}={shown // unit} is never reached: {has}'
    if ends['T_max'] and begin + ends['T_max'] < stop:
        yield (
            f'T_max={ends["T_max"] // unit} ends before the schedule, so '
            f'the learning rate rises again: {has}'
        )


def _build_schedulers(runner: Runner, stage: Stage, rate: float) -> list[tuple[str, dict, object]]:
    """The schedulers of a stage on an optimizer that is for show, each with
    its place in the config and its config."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], rate, momentum=0.9)
    built = []
    for i, cfg in enumerate(as_list(stage.schedulers)):
        by_epoch = cfg.get('by_epoch', True)
        loop = runner.train_loop
        settings = dict(
            dict(end=loop.max_epochs if by_epoch else loop.max_iters), **copy.deepcopy(cfg)
        )
        key = stage.schedule_key
        if not isinstance(stage.schedulers, dict):
            key += f'.{i}'
        built.append(
            (
                key,
                cfg,
                PARAM_SCHEDULERS.build(
                    settings, default_args=dict(optimizer=optimizer, epoch_length=len(stage.loader))
                ),
            )
        )
    return built


def play(schedulers: list, epochs: int, steps: int) -> Iterator[int]:
    """Step schedulers as a training does.

    Args:
        schedulers (list): MMEngine's, just built.
        epochs (int): The number of epochs.
        steps (int): The number of steps in an epoch.

    Yields:
        int: The number of an epoch, from 0, as it begins.
    """
    by_step = [s for s in schedulers if not s.by_epoch]
    by_epoch = [s for s in schedulers if s.by_epoch]
    with warnings.catch_warnings():
        # that no optimizer has stepped
        warnings.simplefilter('ignore', UserWarning)
        for epoch in range(epochs):
            yield epoch
            for _ in range(steps if by_step else 0):
                for scheduler in by_step:
                    scheduler.step()
            for scheduler in by_epoch:
                scheduler.step()


def describe_schedule(runner: Runner) -> str:
    """Show the schedule of a run as a table.

    Args:
        runner (Runner): A runner that is about to train, with its optimizer.

    Returns:
        str: A line for each stage. Milestones, and what else begins after an
        epoch, are numbers of epochs before it, as in the config.
    """
    rows = []
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    for stage in find_stages(runner):
        rows.append(
            [
                stage.name,
                _show_epochs(stage) if by_epoch else '-',
                f'{stage.steps}',
                *_show_rates(runner, stage),
                _show_reweighting(runner, stage),
                _show_validation(runner),
                _show_checkpoints(runner),
            ]
        )
    return render_table(
        build_table(
            'Schedule',
            [
                'stage',
                'epochs',
                'steps of an epoch' if by_epoch else 'steps',
                'learning rate',
                'schedulers',
                're-weighting',
                'validation',
                'checkpoints',
            ],
            rows,
        )
    )


def _show_epochs(stage: Stage) -> str:
    first, last = stage.begin + 1, stage.begin + stage.epochs
    return f'{first}' if first == last else f'{first}-{last}'


def _show_rates(runner: Runner, stage: Stage) -> tuple[str, str]:
    """First, highest and last learning rate, and what changes it when."""
    built = _build_schedulers(runner, stage, _rate(runner, stage))
    schedulers = [scheduler for _, _, scheduler in built]
    rates = [_rate(runner, stage)]
    if schedulers and stage.epochs * stage.steps <= _MAX_STEPS:
        group = schedulers[0].optimizer.param_groups[0]
        rates = [group['lr'] for _ in play(schedulers, stage.epochs, stage.steps)]
    shown = [f'{rate:.3g}' for rate in (rates[0], max(rates), rates[-1])]
    return (
        ', '.join(dict.fromkeys(shown)),
        '; '.join(_show_scheduler(cfg, scheduler, stage) for _, cfg, scheduler in built) or '-',
    )


def _show_scheduler(cfg: dict, scheduler, stage: Stage) -> str:
    unit = stage.steps if cfg.get('convert_to_iter_based') else 1
    if hasattr(scheduler, 'milestones'):
        parts = sorted(scheduler.milestones.elements())
        parts = ', '.join(str((scheduler.begin + part) // unit) for part in parts)
        return f'{type_name(cfg)} at {parts}'
    if hasattr(scheduler, 'step_size'):
        return f'{type_name(cfg)} every {scheduler.step_size // unit}'
    length = stage.epochs * (1 if scheduler.by_epoch else stage.steps)
    end = min(scheduler.end, length) // unit
    begin = f'{scheduler.begin // unit} to ' if scheduler.begin else 'to '
    return f'{type_name(cfg)} {begin}{end}'


def _rate(runner: Runner, stage: Stage) -> float:
    """The learning rate before any schedule."""
    if stage.begin:
        return _two_stage_hook(runner).learning_rate(runner, stage.loader)
    groups = runner.optim_wrapper.param_groups
    return max(group.get('initial_lr', group['lr']) for group in groups)


def _show_reweighting(runner: Runner, stage: Stage) -> str:
    _, hook = _hooks(runner).get('DeferredReweightingHook', ('', None))
    if hook is None or stage.name == STAGE_NAMES['router']:
        return '-'
    begin = hook['begin']
    return f'after {begin}' if begin < stage.epochs else 'never'


def _show_validation(runner: Runner) -> str:
    loop = runner.train_loop
    if runner.val_loop is None:
        return '-'
    begin = f' from {loop.val_begin}' if loop.val_begin > 1 else ''
    return f'every {loop.val_interval}{begin}'


def _show_checkpoints(runner: Runner) -> str:
    shown = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            if hook.interval > 0:
                shown.append(f'every {hook.interval}' + ('' if hook.by_epoch else ' steps'))
            elif hook.save_last:
                shown.append('the last')
    return ', '.join(shown) or '-'
