"""What a training has logged, epoch by epoch."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from ride_mm.utils.errors import UserError


@dataclass(frozen=True)
class TrainingCurves:
    """The course of a training.

    Attributes:
        losses (dict[int, dict[str, float]]): The mean losses ('loss',
            'loss_cls', ...) of an epoch, counted from 1.
        metrics (dict[int, dict[str, float]]): The metrics after an epoch.
        config (Path): The config, as it was when the training, or its last
            resumption, began.
        seconds (float): Time of all training steps, without validation.
    """

    losses: dict[int, dict[str, float]]
    metrics: dict[int, dict[str, float]]
    config: Path
    seconds: float = 0.0

    @property
    def router_begin(self) -> int | None:
        """int, optional: The last epoch before the router's, 0 if it is all
        that was trained, None if it was not trained."""
        epochs = [e for e, loss in self.losses.items() if 'loss_router' in loss]
        return min(epochs) - 1 if epochs else None


def scalar_files(work_dir: str | Path) -> list[Path]:
    """What was logged, a file for each start or resumption, oldest first."""
    return sorted(Path(work_dir).glob('*/vis_data/scalars.json'))


def read_scalars(path: Path) -> tuple[dict[int, list[dict]], dict[int, dict]]:
    """Read what was logged between a start, or resumption, and the next one.

    Args:
        path (Path): A ``vis_data/scalars.json``.

    Returns:
        tuple[dict[int, list[dict]], dict[int, dict]]: The training's records
        of each epoch, and the metrics after an epoch; both empty where
        nothing was trained, or not by epochs.

    Raises:
        UserError: If a line but the last one is not JSON, or a line is not
            what MMEngine logs.
    """
    train, val = defaultdict(list), {}
    for record in _read_records(path):
        if 'iter' not in record:
            val[record['step']] = {key: value for key, value in record.items() if '/' in key}
        elif 'epoch' in record:
            train[record['epoch']].append(record)
    return (dict(train), val) if train else ({}, {})


def _read_records(path: Path) -> list[dict]:
    lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as e:
            # a run that is killed can leave half a line at the end
            if number < len(lines):
                raise UserError(f'{path}, line {number}: {e}') from e
            continue
        if not isinstance(record, dict) or not _is_record(record):
            raise UserError(
                f'{path}, line {number}: expected named figures and a step, found {line[:60]!r}'
            )
        records.append(record)
    return records


def _is_record(record: dict) -> bool:
    """Whether all that is read of a record are numbers."""
    steps = [record[key] for key in ('epoch', 'iter', 'step') if key in record]
    figures = [value for key, value in record.items() if '/' in key or key.startswith('loss')]
    return (
        ('iter' in record or 'step' in record)
        and all(type(step) is int for step in steps)
        and all(
            # a metric may give a list, by class
            type(figure) in (int, float, list)
            for figure in figures
        )
    )


def mean_losses(records: list[dict]) -> dict[str, float]:
    """The mean of each loss over the records of an epoch, by its name."""
    names = [key for key in records[0] if key.startswith('loss')]
    return {key: mean(record[key] for record in records) for key in names}


def read_curves(work_dir: str | Path) -> TrainingCurves | None:
    """Read the course of a training.

    A run that was interrupted has a file for each time it was resumed. They
    are merged by epoch; what was logged later counts.

    Args:
        work_dir (str | Path): The folder of the run.

    Returns:
        TrainingCurves, optional: None if nothing was trained there, or not
        by epochs.
    """
    losses, metrics, config, steps = {}, {}, None, {}
    for path in scalar_files(work_dir):
        train, val = read_scalars(path)
        if not train:
            continue
        losses.update((epoch, mean_losses(records)) for epoch, records in train.items())
        metrics.update(val)
        steps.update(
            (epoch, (records[-1]['iter'], mean(record.get('time', 0.0) for record in records)))
            for epoch, records in train.items()
        )
        config = path.with_name('config.py')
    if config is None:
        return None
    ends = [0, *(last for _, (last, _) in sorted(steps.items()))]
    seconds = sum(
        (last - before) * time for before, (_, (last, time)) in zip(ends, sorted(steps.items()))
    )
    return TrainingCurves(
        dict(sorted(losses.items())), dict(sorted(metrics.items())), config, seconds
    )
