"""Trainings of a config on independently sampled training sets."""
import json
import re
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from rich.progress import (BarColumn, Progress, TextColumn, TimeElapsedColumn,
                           TimeRemainingColumn)

from ride_mm.datasets.class_counts import name_some
from ride_mm.engine import launch
from ride_mm.engine.config import follow_training_set, load_config
from ride_mm.engine.dumped_config import read_dumped_config
from ride_mm.engine.schedule import first_stage_epochs, scale_schedule
from ride_mm.utils.atomic_backend import write_file
from ride_mm.utils.errors import UserError
from ride_mm.utils.jobs import Job, run_jobs, share_machine
from .predictions import read_predictions
from .results import DATA_ACCESS, config_changes

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

_STEP = re.compile(rb'Epoch\(train\) +\[(\d+)\]\[ *(\d+)/(\d+)\]')
# What may change between runs: where the data lies, and what is made of the
# predictions.
_NO_MATTER = re.compile(DATA_ACCESS.pattern + r'|(val|test)_evaluator(\..*)?')
# Bytes at the end of a log that tell where a training is, or why it failed.
_TAIL = 8192


def prepare_config(path: Union[str, Path],
                   options: Optional[dict] = None,
                   epochs: Optional[int] = None,
                   fast: bool = False) -> Tuple[Config, str]:
    """Make the training set of a config one that is sampled.

    CIFAR10LT, CIFAR100LT and DigitsLT draw long-tailed subsets by
    themselves; their ``max_count`` becomes 3/5 of the images of a class, the
    paper's 300 of CIFAR-100's 500, unless the config sets it: with all of
    them the largest class would be the same in every set. Of other training
    sets :func:`~ride_mm.datasets.bootstrap.bootstrap` draws replicates.

    Args:
        path (str | Path): The config file.
        options (dict, optional): What to override in it, by dotted key.
            Defaults to None.
        epochs (int, optional): See
            :func:`~ride_mm.engine.schedule.scale_schedule`. Defaults to
            None, which means those of the config.
        fast (bool): Whether ``epochs`` that are None mean a tenth of those
            of the config. Defaults to False.

    Returns:
        tuple[Config, str]: The config, and the key of the seed that the
        training set is sampled by.

    Raises:
        UserError: If there is no such config, or no training set in it, or
            its schedule cannot be scaled.
    """
    cfg = load_config(str(path), options)
    if 'dataset' not in (cfg.get('train_dataloader') or {}):
        raise UserError(f'{path} has no `train_dataloader.dataset`: there is '
                        'nothing to train.')
    if fast and epochs is None:
        epochs = max(1, first_stage_epochs(cfg) // 10)
    if epochs is not None:
        scale_schedule(cfg, epochs)
    checkpoints = cfg.get('default_hooks', {}).get('checkpoint')
    if checkpoints:
        checkpoints.max_keep_ckpts = 1
    return cfg, _sample_training_set(cfg)


def _sample_training_set(cfg: Config) -> str:
    """Make the training set one with a seed, and return the key of that."""
    key, dataset = 'train_dataloader.dataset', cfg.train_dataloader.dataset
    whole = dataset
    while 'dataset' in dataset:
        key, dataset = f'{key}.dataset', dataset.dataset
    available = getattr(DATASETS.get(dataset.type), 'max_count', None)
    if available is None:
        cfg.train_dataloader.dataset = dict(
            type='Bootstrap', dataset=whole, seed=0)
        return 'train_dataloader.dataset.seed'
    dataset.setdefault('max_count', available * 3 // 5)
    follow_training_set(cfg)
    dataset.subset_seed = 0
    return f'{key}.subset_seed'


def shared_starts(cfg: Config) -> List[str]:
    """Find checkpoints that all runs begin with or learn from.

    Runs that share one that was trained on another sample of the same data
    are not independent.

    Args:
        cfg (Config): The config.

    Returns:
        list[str]: ``key=value`` of each.
    """
    teacher = cfg.get('model', {}).get('teacher') or {}
    found = {
        'load_from': cfg.get('load_from'),
        'model.teacher.checkpoint': teacher.get('checkpoint')
    }
    return [f'{key}={value}' for key, value in found.items() if value]


class Run(Job):
    """One training, and what its model predicts for the test set.

    Args:
        config (Path): The config of all runs.
        folder (Path): The folder of this run.
        options (dict): What this run overrides, by dotted key.
        tools (Path): The folder of ``train.py`` and ``test.py``.
    """

    def __init__(self, config: Path, folder: Path, options: Dict[str, int],
                 tools: Path) -> None:
        self.config = config
        self.folder = folder
        self.options = [f'{key}={value}' for key, value in options.items()]
        self.tools = tools
        self.log = folder / 'log.txt'

    def commands(self) -> Iterator[List[str]]:
        """Train, test, and keep the predicted labels."""
        common = [
            '--work-dir',
            str(self.folder), '--cfg-options', *self.options
        ]
        yield [
            sys.executable,
            str(self.tools / 'train.py'),
            str(self.config), '--resume', '--no-validate', *common
        ]
        pointer = self.folder / 'last_checkpoint'
        if not pointer.is_file():
            raise UserError('the training left no checkpoint: default_hooks '
                            'of the config needs a CheckpointHook.')
        predictions = self.folder / 'predictions.pkl'
        predictions.unlink(missing_ok=True)  # of a test that was interrupted
        yield [
            sys.executable,
            str(self.tools / 'test.py'),
            str(self.config),
            pointer.read_text().strip(), '--out',
            str(predictions), *common
        ]
        write_labels(predictions, labels_file(self.folder))
        predictions.unlink()

    def done(self, max_epochs: int) -> float:
        """How much of the run the log tells to be done, from 0 to 0.99."""
        steps = _STEP.findall(_tail(self.log))
        if not steps:
            return 0.
        epoch, step, num_steps = map(int, steps[-1])
        # The rest is the test.
        return .99 * (epoch - 1 + step / num_steps) / max_epochs

    def last_words(self) -> str:
        """The last lines of the log, indented."""
        lines = _tail(self.log).decode(errors='replace').splitlines()
        return '\n'.join(f'    {line}' for line in lines[-5:])


def labels_file(folder: Path) -> Path:
    return folder / 'labels.json'


def write_labels(predictions: Path, path: Path) -> None:
    """Keep no more than the labels of a file of predictions."""
    content = read_predictions(predictions)
    write_file(
        path,
        json.dumps(
            dict(
                pred_label=content.pred_label.tolist(),
                gt_label=content.gt_label.tolist())))


def _tail(path: Path) -> bytes:
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


class ResampledRuns:
    """The runs of one config, each in a folder of its own.

    Args:
        path (str | Path): The config file.
        cfg (Config): What is trained, see :func:`prepare_config`.
        seed_key (str): The key of the seed of the training set.
        work_dir (str | Path): The folder of all configs.
        num_runs (int): The number of runs R. The n-th one, from 0, has the
            seed n for its training set and for its training.
    """

    def __init__(self, path: Union[str, Path], cfg: Config, seed_key: str,
                 work_dir: Union[str, Path], num_runs: int) -> None:
        self.path = Path(path)
        self.cfg = cfg
        self.seed_key = seed_key
        self.num_runs = num_runs
        self.folder = Path(work_dir) / self.name
        self.config = self.folder / 'config.py'
        self.lock = None

    @property
    def name(self) -> str:
        """str: The name of the config."""
        return self.path.stem

    @property
    def max_epochs(self) -> int:
        """int: The epochs of a run."""
        return self.cfg.train_cfg.max_epochs

    @property
    def folders(self) -> List[Path]:
        """list[Path]: The folder of each run."""
        return [self.folder / f'run_{i:02d}' for i in range(self.num_runs)]

    def claim(self) -> None:
        """Keep others out of the folder, and write the config into it.

        Raises:
            UserError: If others are at work there, or it holds runs of
                another config.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Held by the trainings too, which may outlive this process.
        self.lock = (self.folder / 'lock').open('w')
        try:
            if fcntl is not None:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{self.folder} is in use: this tool, or a training that it '
                'began, is at work there.') from None
        if any(
                launch.is_used(str(folder)) or labels_file(folder).exists()
                for folder in self.folder.glob('run_*')):
            self._check_config()
        write_file(self.config, self.cfg.pretty_text)

    def _check_config(self) -> None:
        wish = ('Repeat the settings that they were made with, or name '
                'another --work-dir.')
        if not self.config.is_file():
            raise UserError(f'{self.folder} holds runs, but not their '
                            f'config.py. {wish}')
        changes = config_changes(
            read_dumped_config(self.config), self.cfg, ignored=_NO_MATTER)
        if changes:
            named = [f'{key}={value!r:.60}' for key, value in changes.items()]
            raise UserError(f'{self.folder} holds runs of other settings than '
                            f'{name_some(named)}. {wish}')

    def missing(self, tools: Union[str, Path]) -> List[Run]:
        """List the runs that have not been made.

        Args:
            tools (str | Path): The folder of ``train.py`` and ``test.py``.

        Returns:
            list[Run]: The runs.
        """
        return [
            Run(self.config, folder, {
                self.seed_key: seed,
                'randomness.seed': seed
            }, Path(tools)) for seed, folder in enumerate(self.folders)
            if not labels_file(folder).exists()
        ]

    def read(self, num_images: int) -> Tuple[np.ndarray, np.ndarray]:
        """Read what all runs have predicted.

        Args:
            num_images (int): The number N of test images.

        Returns:
            tuple: Predicted labels with shape (R, N) and true labels with
            shape (N, ).

        Raises:
            UserError: If a file is not one of such labels.
        """
        labels = [
            _read_labels(labels_file(folder), num_images)
            for folder in self.folders
        ]
        for folder, (_, gt_label) in zip(self.folders, labels):
            if not np.array_equal(gt_label, labels[0][1]):
                raise UserError(f'{labels_file(folder)} is of other images '
                                f'than {labels_file(self.folders[0])}.')
        return np.stack([pred for pred, _ in labels]), labels[0][1]


def _read_labels(path: Path, num_images: int) -> Tuple[np.ndarray, np.ndarray]:
    try:
        content = json.loads(path.read_text())
        labels = tuple(
            np.array(content[key], dtype=np.int64)
            for key in ('pred_label', 'gt_label'))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is damaged ({error!r}): remove it, and its '
                        'run is tested again.') from error
    for values in labels:
        if values.shape != (num_images, ):
            raise UserError(f'{path} holds labels of shape {values.shape}, '
                            f'but there are {num_images} test images: remove '
                            'it, and its run is tested again.')
    return labels


def train_missing(all_runs: Sequence[ResampledRuns],
                  tools: Union[str, Path],
                  jobs: Optional[int] = None) -> None:
    """Make all runs that have not been made, and show how far they are.

    Args:
        all_runs (Sequence[ResampledRuns]): The runs of each config, claimed.
        tools (str | Path): The folder of ``train.py`` and ``test.py``.
        jobs (int, optional): Trainings at once. Defaults to None, which
            means as many as the machine holds.

    Raises:
        UserError: If some fail, when the others are made.
    """
    epochs = {
        run: runs.max_epochs
        for runs in all_runs
        for run in runs.missing(tools)
    }
    if not epochs:
        return
    for run in epochs:
        run.folder.mkdir(exist_ok=True)
    total = sum(runs.num_runs for runs in all_runs)
    shares = share_machine(jobs, most=len(epochs))
    with _progress(len(shares)) as progress:
        task = progress.add_task('', total=total)
        ended = []

        def report(new: List[Run]) -> None:
            ended.extend(new)
            for run in new:
                progress.console.print(f'{run.folder} {_outcome(run)}')
            begun = sum(
                run.done(max_epochs) for run, max_epochs in epochs.items()
                if run not in ended and run.log.exists())
            progress.update(
                task, completed=total - len(epochs) + len(ended) + begun)

        failed = run_jobs(
            list(epochs), shares, [runs.lock.fileno() for runs in all_runs],
            report)
    if failed:
        raise UserError(
            f'{len(failed)} of {total} runs failed. The others are kept, and '
            'the same command tries these once more.\n' +
            '\n'.join(f'  {run.log} ends with:\n{run.last_words()}'
                      for run in failed))


def _progress(num_shares: int) -> Progress:
    return Progress(
        TextColumn('{task.completed:.2f} of {task.total:.0f} runs, '
                   f'{num_shares} at once'),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn('left:'),
        TimeRemainingColumn(),
        # A training is slow: its log tells a new step every few seconds.
        speed_estimate_period=3600)


def _outcome(run: Run) -> str:
    path = labels_file(run.folder)
    if not path.exists():
        return f'failed, see {run.log}'
    content = json.loads(path.read_text())
    hits = np.equal(content['pred_label'], content['gt_label'])
    return f'is done: accuracy {100 * hits.mean():.2f}%'
