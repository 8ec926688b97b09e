"""Check and describe what a run will train, before its first step."""

import copy
import random
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.hooks import CheckpointHook
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.engine.hooks import SwitchRecipeHook
from torch.nn.modules.batchnorm import _BatchNorm

from ride_mm.evaluation.tables import build_table, render_table
from ride_mm.utils.errors import UserError

from .config import as_list, hook_places, type_name
from .hooks.class_counts_hook import unwrapped
from .hooks.deferred_reweighting_hook import DeferredReweightingHook
from .hooks.two_stage_hook import TwoStageHook

STAGE_NAMES = dict(experts='stage 1 (experts)', router='stage 2 (router)', classifier='classifiers')
# Longer trainings are not simulated to show their learning rates.
_MAX_STEPS = 500_000


class PlannedStage(NamedTuple):
    """A part of a run with its own images and schedule.

    Args:
        name (str): The name, for messages.
        module (nn.Module): The part of the model that is trained.
        loader (DataLoader): The images.
        loader_key (str): The config key of the loader.
        begin (int): The first epoch, counted from 0.
        epochs (int): The number of epochs; 1 if the run counts steps only.
        steps (int): The number of steps per epoch.
        schedulers (list[dict] | dict): Configs of the schedulers.
        schedule_key (str): The config key of the schedulers.
    """

    name: str
    module: torch.nn.Module
    loader: Any
    loader_key: str
    begin: int
    epochs: int
    steps: int
    schedulers: list[dict] | dict
    schedule_key: str


def stage_name(runner: Runner) -> str:
    """Name of the current stage, for messages."""
    return STAGE_NAMES.get(getattr(unwrapped(runner), 'stage', ''), 'training')


def find_stages(runner: Runner) -> list[PlannedStage]:
    """Find the stages of a run.

    Args:
        runner (Runner): A runner that is about to train.

    Returns:
        list[PlannedStage]: One stage, or two with a ``TwoStageHook``.
    """
    loop, model = runner.train_loop, unwrapped(runner)
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    module, name = model, getattr(model, 'stage', '')
    if name in ('router', 'classifier'):
        module = model.head.router if name == 'router' else model.head.classifiers
    first = PlannedStage(
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
    key, two_stage = hooks['TwoStageHook'][0], _two_stage_hook(runner)
    loader = two_stage.build_dataloader(runner, first.loader.dataset)
    second = PlannedStage(
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
    """Config key and config of each hook, by the name of its class."""
    return {type_name(hook): (key, hook) for key, hook in hook_places(runner.cfg).items()}


def _two_stage_hook(runner: Runner) -> TwoStageHook:
    return next(hook for hook in runner.hooks if isinstance(hook, TwoStageHook))


def check_run(runner: Runner) -> None:
    """Refuse a run with a stage that cannot be trained.

    Args:
        runner (Runner): A runner that is about to train.

    Raises:
        UserError: If a hook cannot act in this run, a stage has no step, or a
            BatchNorm layer would get a batch with one value per channel.
    """
    runner.train_loop  # builds it
    for hook in runner.hooks:
        if isinstance(hook, (DeferredReweightingHook, TwoStageHook)):
            hook.before_run(runner)
        if isinstance(hook, SwitchRecipeHook):
            _check_recipes(runner, hook)
    for stage in find_stages(runner):
        _check_batches(runner, stage)


def _check_recipes(runner: Runner, hook: SwitchRecipeHook) -> None:
    model = unwrapped(runner)
    if any(hasattr(part, 'loss_module') for part in (model, getattr(model, 'head', None))):
        return
    for epoch, recipe in hook.schedule.items():
        if 'loss' in recipe:
            raise UserError(
                f'SwitchRecipeHook cannot change the loss, as in epoch {epoch}: '
                f'{type(model).__name__} has no loss_module'
            )


def _check_batches(runner: Runner, stage: PlannedStage) -> None:
    loader, key = stage.loader, stage.loader_key
    size, images = loader.batch_size, len(loader.sampler)
    if not len(loader):
        problem = f'the dataset of {key} is empty'
        if len(loader.dataset):
            problem = (
                f'{images} images for each process, fewer than {key}.batch_size={size}, and '
                'drop_last=True drops them'
            )
        raise UserError(f'{stage.name} has no step: {problem}')
    if size is None or loader.drop_last or (size > 1 and images % size != 1):
        return
    if _has_single_values(runner, stage):
        raise UserError(
            f'{stage.name}: {images} images for each process at {key}.batch_size={size} leave a '
            'batch of one, which BatchNorm cannot normalize: set drop_last=True or another '
            'batch_size'
        )


def _has_single_values(runner: Runner, stage: PlannedStage) -> bool:
    """Whether a single image gives a BatchNorm layer one value per channel."""
    found = []

    def look(norm, args) -> None:
        found.append(args[0].numel() == args[0].size(1))

    norms = [module for module in stage.module.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return False
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    model = unwrapped(runner).eval()
    states = random.getstate(), np.random.get_state()
    with torch.no_grad(), torch.random.fork_rng():
        batch = model.data_preprocessor(stage.loader.collate_fn([stage.loader.dataset[0]]))
        model(batch['inputs'], mode='tensor')
    random.setstate(states[0])
    np.random.set_state(states[1])
    for hook in hooks:
        hook.remove()
    return any(found)


def find_unreached(runner: Runner) -> list[str]:
    """Find settings of a config that the run never reaches.

    Args:
        runner (Runner): A runner that is about to train.

    Returns:
        list[str]: A message for each, with its place in the config.
    """
    hooks, stages, loop = _hooks(runner), find_stages(runner), runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    no_epochs = 'counts epochs, and train_cfg=dict(by_epoch=False) has none'
    lines = []
    for stage in stages:
        for key, cfg, scheduler in _build_schedulers(runner, stage, 1.0):
            if scheduler.by_epoch and not by_epoch:
                lines.append(f'{key} {no_epochs}: it has no effect')
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
                f'{key}.{name}={hook[name]} is never reached: {stage.name} has {stage.epochs} '
                'epochs'
            )
    key, hook = hooks.get('SwitchRecipeHook', ('', {}))
    for index, recipe in enumerate(hook.get('schedule', ())):
        if by_epoch and recipe['action_epoch'] > whole.epochs:
            lines.append(
                f'{key}.schedule.{index}.action_epoch={recipe["action_epoch"]} is never reached: '
                f'the run has {whole.epochs} epochs'
            )
    if 'DeferredReweightingHook' in hooks and stages[0].name == STAGE_NAMES['router']:
        key, _ = hooks['DeferredReweightingHook']
        lines.append(f'{key} has no effect when only the router is trained')
    if 'EarlyStoppingHook' in hooks and len(stages) == 2:
        key, _ = hooks['EarlyStoppingHook']
        lines.append(f'{key} stops the whole run: if it stops in stage 1, there is no stage 2')
    length = loop.max_epochs if by_epoch else loop.max_iters
    if runner.val_loop is not None and loop.val_begin > length:
        lines.append(
            f'train_cfg.val_begin={loop.val_begin} is never reached: the run has {length} and is '
            'never validated'
        )
    key, hook = hooks.get('CheckpointHook', ('', {}))
    if hook and not by_epoch and hook.get('by_epoch', True):
        lines.append(f'{key} {no_epochs}: set its by_epoch=False')
    return lines


def _unreached_parts(cfg: dict, scheduler: Any, stage: PlannedStage) -> Iterator[str]:
    """Settings of a scheduler that lie beyond the end of its stage."""
    length = stage.epochs * (1 if scheduler.by_epoch else stage.steps)
    unit = stage.steps if cfg.get('convert_to_iter_based') else 1
    units = 'epochs' if scheduler.by_epoch or unit > 1 else 'steps'
    has = f'{stage.name} has {length // unit} {units}'
    begin, stop = scheduler.begin, min(scheduler.end, length)
    if begin >= length:
        yield f'begin={begin // unit} is never reached: {has}'
        return
    milestones = sorted(getattr(scheduler, 'milestones', ()))
    late = [milestone // unit for milestone in milestones if begin + milestone >= stop]
    if late:
        yield f'milestones={late} is never reached: {has}'
    ends = {name: getattr(scheduler, name, 0) for name in ('T_max', 'total_steps', 'step_size')}
    ends['periods'] = getattr(scheduler, 'cumulative_periods', [0])[-1]
    for name, value in ends.items():
        if value and begin + value > length:
            yield f'{name}={value // unit} is never reached: {has}'
    end = begin + getattr(scheduler, 'total_iters', -1) + 1
    if end > length:
        yield f'end={end // unit} is never reached: {has}'
    if ends['T_max'] and begin + ends['T_max'] < stop:
        yield (
            f'T_max={ends["T_max"] // unit} ends before the schedule, so the learning rate rises '
            f'again: {has}'
        )


def _build_schedulers(
    runner: Runner, stage: PlannedStage, rate: float
) -> list[tuple[str, dict, Any]]:
    """Config key, config and scheduler, on a dummy optimizer, of each scheduler
    of a stage."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], rate, momentum=0.9)
    defaults = dict(optimizer=optimizer, epoch_length=len(stage.loader))
    loop = runner.train_loop
    built = []
    for i, cfg in enumerate(as_list(stage.schedulers)):
        settings = copy.deepcopy(dict(cfg))
        settings.setdefault('end', loop.max_epochs if cfg.get('by_epoch', True) else loop.max_iters)
        key = stage.schedule_key
        if not isinstance(stage.schedulers, dict):
            key += f'.{i}'
        built.append((key, cfg, PARAM_SCHEDULERS.build(settings, default_args=defaults)))
    return built


def play(schedulers: list, epochs: int, steps: int) -> Iterator[int]:
    """Step schedulers as in a training.

    Args:
        schedulers (list): MMEngine's schedulers, just built.
        epochs (int): The number of epochs.
        steps (int): The number of steps per epoch.

    Yields:
        int: The number of each epoch, from 0, as it begins.
    """
    by_step = [s for s in schedulers if not s.by_epoch]
    by_epoch = [s for s in schedulers if s.by_epoch]
    with warnings.catch_warnings():
        # torch warns that the optimizer has not stepped
        warnings.simplefilter('ignore', UserWarning)
        for epoch in range(epochs):
            yield epoch
            for _ in range(steps if by_step else 0):
                for scheduler in by_step:
                    scheduler.step()
            for scheduler in by_epoch:
                scheduler.step()


def describe_schedule(runner: Runner) -> str:
    """Format the schedule of a run as a table.

    Args:
        runner (Runner): A runner that is about to train, with its optimizer.

    Returns:
        str: A table with a row per stage. As in the config, milestones and
        begins are numbers of completed epochs.
    """
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    validation = '-'
    if runner.val_loop is not None:
        begin = f' from {loop.val_begin}' if loop.val_begin > 1 else ''
        validation = f'every {loop.val_interval}{begin}'
    saved = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.interval > 0:
            saved.append(f'every {hook.interval}' + ('' if hook.by_epoch else ' steps'))
        elif isinstance(hook, CheckpointHook) and hook.save_last:
            saved.append('the last')
    _, reweighting = _hooks(runner).get('DeferredReweightingHook', ('', {}))
    rows = []
    for stage in find_stages(runner):
        epochs = dict.fromkeys(map(str, (stage.begin + 1, stage.begin + stage.epochs)))
        reweighted = '-'
        if reweighting and stage.name != STAGE_NAMES['router']:
            begin = reweighting['begin']
            reweighted = f'after {begin}' if begin < stage.epochs else 'never'
        rows.append(
            [
                stage.name,
                '-'.join(epochs) if by_epoch else '-',
                f'{stage.steps}',
                *_show_rates(runner, stage),
                reweighted,
                validation,
                ', '.join(saved) or '-',
            ]
        )
    head = ['stage', 'epochs', 'steps of an epoch' if by_epoch else 'steps', 'learning rate']
    head += ['schedulers', 're-weighting', 'validation', 'checkpoints']
    return render_table(build_table('Schedule', head, rows))


def _show_rates(runner: Runner, stage: PlannedStage) -> tuple[str, str]:
    """First, highest and last learning rate, and the schedulers."""
    if stage.begin:
        rate = _two_stage_hook(runner).learning_rate(runner, stage.loader)
    else:
        groups = runner.optim_wrapper.param_groups
        rate = max(group.get('initial_lr', group['lr']) for group in groups)
    built = _build_schedulers(runner, stage, rate)
    schedulers = [scheduler for _, _, scheduler in built]
    rates = [rate]
    if schedulers and stage.epochs * stage.steps <= _MAX_STEPS:
        group = schedulers[0].optimizer.param_groups[0]
        rates = [group['lr'] for _ in play(schedulers, stage.epochs, stage.steps)]
    shown = [f'{rate:.3g}' for rate in (rates[0], max(rates), rates[-1])]
    names = [f'{type_name(cfg)} {_show_span(cfg, each, stage)}' for _, cfg, each in built]
    return ', '.join(dict.fromkeys(shown)), '; '.join(names) or '-'


def _show_span(cfg: dict, scheduler: Any, stage: PlannedStage) -> str:
    """When a scheduler changes the learning rate."""
    unit = stage.steps if cfg.get('convert_to_iter_based') else 1
    if hasattr(scheduler, 'milestones'):
        milestones = sorted(scheduler.milestones.elements())
        return 'at ' + ', '.join(str((scheduler.begin + part) // unit) for part in milestones)
    if hasattr(scheduler, 'step_size'):
        return f'every {scheduler.step_size // unit}'
    length = stage.epochs * (1 if scheduler.by_epoch else stage.steps)
    begin = f'{scheduler.begin // unit} ' if scheduler.begin else ''
    return f'{begin}to {min(scheduler.end, length) // unit}'
