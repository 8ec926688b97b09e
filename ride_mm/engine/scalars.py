"""Read the losses and metrics that a training has logged."""

import json
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import mean

from ride_mm.utils.errors import UserError


@dataclass(frozen=True)
class TrainingCurves:
    """Losses and metrics of a training by epoch, counted from 1.

    Attributes:
        losses (dict[int, dict[str, float]]): The mean losses ('loss',
            'loss_cls', ...) of each epoch.
        metrics (dict[int, dict[str, float]]): The metrics after an epoch.
        config (Path): The config with which the training was started or last
            resumed.
        seconds (float): Total time of the training steps, without validation.
    """

    losses: dict[int, dict[str, float]]
    metrics: dict[int, dict[str, float]]
    config: Path
    seconds: float = 0.0

    @property
    def router_begin(self) -> int | None:
        """int, optional: The number of epochs before the router is trained, 0
        if only the router is trained, None if it is not trained."""
        epochs = [e for e, loss in self.losses.items() if 'loss_router' in loss]
        return min(epochs) - 1 if epochs else None


def read_curves(work_dir: str | Path) -> TrainingCurves | None:
    """Read the losses and metrics of a training.

    Each start or resumption writes a file of its own. The files are merged by
    epoch; where epochs overlap, the latest file counts.

    Args:
        work_dir (str | Path): The work_dir of the run.

    Returns:
        TrainingCurves, optional: None if nothing was trained, or not by epochs.

    Raises:
        UserError: If a line other than the last is not JSON, or a line is not
            in MMEngine's format.
    """
    losses: dict[int, dict[str, float]] = {}
    metrics: dict[int, dict[str, float]] = {}
    steps: dict[int, tuple[int, float]] = {}
    config = None
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        records = _read_records(path)
        train = [record for record in records if 'iter' in record and 'epoch' in record]
        if not train:
            continue
        config = path.with_name('config.py')
        epoch_of = itemgetter('epoch')
        for epoch, group in groupby(sorted(train, key=epoch_of), epoch_of):
            part = list(group)
            names = [key for key in part[0] if key.startswith('loss')]
            losses[epoch] = {key: mean(record[key] for record in part) for key in names}
            steps[epoch] = part[-1]['iter'], mean(record.get('time', 0.0) for record in part)
        for record in records:
            if 'iter' not in record:
                metrics[record['step']] = {k: v for k, v in record.items() if '/' in k}
    if config is None:
        return None
    seconds, before = 0.0, 0
    for _, (last, time) in sorted(steps.items()):
        seconds += (last - before) * time
        before = last
    return TrainingCurves(
        dict(sorted(losses.items())), dict(sorted(metrics.items())), config, seconds
    )


def _read_records(path: Path) -> list[dict]:
    lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as e:
            # a killed run can leave half a line at the end
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
    steps = [record[key] for key in ('epoch', 'iter', 'step') if key in record]
    figures = [value for key, value in record.items() if '/' in key or key.startswith('loss')]
    return (
        ('iter' in record or 'step' in record)
        and all(type(step) is int for step in steps)
        # per-class metrics are lists
        and all(type(figure) in (int, float, list) for figure in figures)
    )
