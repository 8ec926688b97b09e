"""Let a resumed run follow its config where the checkpoint differs.

MMEngine restores optimizer and schedulers as they were saved, including
learning rate, milestones and end, and ignores changes of the config.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from ride_mm.utils.errors import UserError

from .schedule_check import play

# Attributes that change from step to step, or follow from the others.
_STATE = (
    'last_step',
    '_global_step',
    '_last_value',
    'base_values',
    'total_iters',
    'cumulative_periods',
    'verbose',
)


class Stage(NamedTuple):
    """The stage that is resumed.

    Args:
        schedulers (list[dict] | dict): Configs of the schedulers.
        key (str): The config key of the schedulers.
        begin (int): The first epoch, counted from 0.
        first_step (int): The first step, counted from 0.
        steps (int): The number of steps per epoch.
    """

    schedulers: Any
    key: str
    begin: int
    first_step: int
    steps: int


class Schedule(NamedTuple):
    """Settings of an optimizer and its schedulers.

    Args:
        groups (list[dict]): Settings of each parameter group, before any
            scheduler.
        schedulers (list[dict]): Settings of each scheduler.
    """

    groups: list[dict[str, Any]]
    schedulers: list[dict[str, Any]]


def read_schedule(runner: Runner) -> Schedule | None:
    """Read the settings of the optimizer and schedulers of a runner.

    Args:
        runner (Runner): The runner.

    Returns:
        Schedule, optional: The settings, or None with several optimizers.
    """
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        return None
    states = [scheduler.state_dict() for scheduler in runner.param_schedulers or []]
    return Schedule(_settings_of_groups(runner), [_settings(state) for state in states])


def _settings_of_groups(runner: Runner) -> list[dict[str, Any]]:
    return [
        {
            key: group.get(f'initial_{key}', value)
            for key, value in group.items()
            if isinstance(value, (int, float, tuple, list))
            and key != 'params'
            and not key.startswith('initial_')
        }
        for group in runner.optim_wrapper.param_groups
    ]


def _settings(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: sorted(value.elements()) if isinstance(value, Counter) else copy.copy(value)
        for key, value in state.items()
        if key not in _STATE
    }


def follow_config(runner: Runner, wanted: Schedule, saved: list | None, stage: Stage) -> list[str]:
    """Set the learning rates of a resumed run as its config describes them.

    If the config has changed, the schedulers are rebuilt and stepped through
    the completed epochs, so that the rates from here on are those of a run with
    this config from the start. Otherwise nothing changes.

    Args:
        runner (Runner): The runner, resumed.
        wanted (Schedule): The settings before the checkpoint was loaded.
        saved (list, optional): States of the schedulers in the checkpoint.
        stage (Stage): The stage that is resumed.

    Returns:
        list[str]: The changes, with the old and the new value.

    Raises:
        UserError: If the checkpoint has another type of optimizer, or the rates
            also depend on past validations.
    """
    found = _settings_of_groups(runner)
    if set(map(frozenset, found)) != set(map(frozenset, wanted.groups)):
        raise UserError(
            '--resume: the checkpoint has an optimizer of another type than '
            'optim_wrapper.optimizer; start a new run with load_from instead'
        )
    changes = _changed_groups(found, wanted.groups)
    old = [_settings(state) for state in saved or []]
    changes += _changed_schedulers(old, wanted.schedulers, stage.key)
    if not changes:
        return []
    if any(getattr(each, 'need_val_args', False) for each in runner.param_schedulers or []):
        raise UserError(
            f'--resume: {"; ".join(changes)}, but {stage.key} depends on the past validations of '
            'the run, which cannot be repeated: keep the settings of the checkpoint'
        )
    for group, settings in zip(runner.optim_wrapper.param_groups, wanted.groups):
        for key, value in settings.items():
            group[key] = value
            if f'initial_{key}' in group:
                group[f'initial_{key}'] = value
    if stage.schedulers:
        runner.param_schedulers = runner.build_param_scheduler(copy.deepcopy(stage.schedulers))
        _catch_up(runner, stage)
    return changes


def _changed_groups(old: list[dict], new: list[dict]) -> list[str]:
    changed = {}
    for before, after in zip(old, new):
        for key, value in before.items():
            if key not in changed and not _is_close(value, after[key]):
                changed[key] = f'{key} {_change(value, after[key])}'
    return list(changed.values())


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_is_close, one, other))
    # scaling for another batch size rounds
    return math.isclose(one, other, rel_tol=1e-9)


def _change(*values: Any) -> str:
    return ' -> '.join(f'{v:g}' if isinstance(v, float) else f'{v}' for v in values)


def _changed_schedulers(old: list[dict], new: list[dict], key: str) -> Iterator[str]:
    if len(old) != len(new):
        yield f'{key}: {len(old)} schedulers -> {len(new)}'
        return
    for i, (before, after) in enumerate(zip(old, new)):
        if before.keys() != after.keys():
            yield f'{key}.{i} is another scheduler'
            continue
        for name, value in before.items():
            if value != after[name]:
                yield f'{key}.{i}.{name} {_change(value, after[name])}'


def _catch_up(runner: Runner, stage: Stage) -> None:
    """Step new schedulers to the current step of the run."""
    schedulers, loop = runner.param_schedulers, runner.train_loop
    epochs = loop.epoch - stage.begin if isinstance(loop, EpochBasedTrainLoop) else 0
    for _ in play(schedulers, epochs, stage.steps):
        pass
    # steps of an incomplete epoch, or of a run without epochs
    for _ in range(loop.iter - stage.first_step - epochs * stage.steps):
        for scheduler in schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
