"""Train several configs with several seeds, in parallel."""

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError, name_some
from ride_mm.utils.files import write_file

from .config import find_hook, follow_training_set
from .config_changes import DATA_ACCESS, config_changes
from .dumped_config import read_dumped_config
from .scalars import read_curves

# Memory per training on the CPU, including data and workers.
_MEMORY = 2 * 2**30
# Keys that may differ between the runs of a folder.
_IGNORED = re.compile(DATA_ACCESS.pattern + r'|(val|test)_evaluator(\..*)?')


@dataclass(frozen=True)
class Run:
    """One training of a sweep, and the test of its last checkpoint.

    Attributes:
        name (str): Name shared by all runs of a config.
        config (Path): The config of these runs.
        folder (Path): The work_dir of this run.
        seed (int): The seed of this run.
        options (tuple[str]): Overridden settings, as ``key=value``.
        command (str): The command of the sweep.
        tools (Path): The folder of ``train.py`` and ``test.py``.
    """

    name: str
    config: Path
    folder: Path
    seed: int
    options: tuple[str, ...]
    command: str
    tools: Path

    @property
    def result(self) -> Path:
        """Path: The figures of the run; written when it is complete."""
        return self.folder.parents[1] / f'{self.name}_seed{self.seed}.json'


def prepare_runs(
    name: str,
    cfg: Config,
    folder: Path,
    seeds: Sequence[int],
    command: str,
    tools: Path,
    resample: bool = False,
) -> list[Run]:
    """Write the config shared by some runs, and list the runs.

    Args:
        name (str): The name of the runs.
        cfg (Config): The config.
        folder (Path): The folder of the sweep; the work_dirs are
            ``folder/name/seed_0`` and so on.
        seeds (Sequence[int]): The seeds.
        command (str): The command of the sweep, stored with the figures.
        tools (Path): The folder of ``train.py`` and ``test.py``.
        resample (bool): Whether to sample a training set for each run, see
            :func:`sample_training_set`. Defaults to False.

    Returns:
        list[Run]: All runs, including complete ones.

    Raises:
        UserError: If the folder holds runs with other settings, or the config
            saves no checkpoints.
    """
    checkpoint = find_hook(cfg, 'CheckpointHook')
    if checkpoint is None:
        raise UserError(
            f'{name}: default_hooks needs a CheckpointHook: its last checkpoint is tested'
        )
    checkpoint['max_keep_ckpts'] = 1
    keys = ['randomness.seed']
    if resample:
        keys.append(sample_training_set(cfg))
    path = folder / name / 'config.py'
    if path.exists():
        changes = config_changes(read_dumped_config(path), cfg, ignored=_IGNORED)
        if changes:
            named = [f'{key}={value!r:.60}' for key, value in changes.items()]
            raise UserError(
                f'{path.parent} holds runs with settings other than {name_some(named)}: repeat '
                'those settings, or choose another --work-dir'
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, cfg.pretty_text)
    runs = []
    for seed in seeds:
        options = tuple(f'{key}={seed}' for key in keys)
        runs.append(Run(name, path, path.parent / f'seed_{seed}', seed, options, command, tools))
    return runs


def sample_training_set(cfg: Config) -> str:
    """Replace the training set of a config by one sampled by a seed.

    CIFAR10LT, CIFAR100LT and DigitsLT sample long-tailed subsets themselves.
    Unless the config sets it, their ``max_count`` becomes 3/5 of the images
    per class (300 of CIFAR-100's 500, as in the paper): with all images, the
    largest class would be the same in every set. Other training sets are
    wrapped in ``Bootstrap``.

    Args:
        cfg (Config): The config, changed in place.

    Returns:
        str: The config key of the seed.
    """
    key, dataset = 'train_dataloader.dataset', cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        key, dataset = f'{key}.dataset', dataset.dataset
    available = getattr(DATASETS.get(dataset.type), 'max_count', None)
    if available is None:
        whole = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = dict(type='Bootstrap', dataset=whole, seed=0)
        return 'train_dataloader.dataset.seed'
    dataset.setdefault('max_count', available * 3 // 5)
    follow_training_set(cfg)
    dataset.subset_seed = 0
    return f'{key}.subset_seed'


def shared_starts(cfg: Config) -> list[str]:
    """List the checkpoints that all runs start from or distill from.

    Runs are not independent if such a checkpoint was trained on another sample
    of the same data.

    Args:
        cfg (Config): The config.

    Returns:
        list[str]: Each as ``key=value``.
    """
    teacher = cfg.get('model', {}).get('teacher') or {}
    found = {
        'load_from': cfg.get('load_from'),
        'model.teacher.checkpoint': teacher.get('checkpoint'),
    }
    return [f'{key}={value}' for key, value in found.items() if value]


def make(run: Run, environment: dict[str, str] | None = None) -> None:
    """Train and test, resuming an interrupted run, and write ``run.result``.

    Args:
        run (Run): The run.
        environment (dict, optional): Environment variables to set. Defaults
            to None.

    Raises:
        UserError: If a command fails.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / 'log.txt'

    def call(tool: str, *arguments) -> None:
        command = [sys.executable, run.tools / tool, run.config, *arguments]
        command += ['--work-dir', run.folder, '--cfg-options', *run.options]
        with log.open('ab') as output:
            code = subprocess.run(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
            ).returncode
        if code:
            last = log.read_text(errors='replace').splitlines()[-5:]
            raise UserError('\n    '.join([f'{log} ends with:', *last]))

    call('train.py', '--resume')
    checkpoint = (run.folder / 'last_checkpoint').read_text().strip()
    predictions = run.folder / 'predictions.npz'
    predictions.unlink(missing_ok=True)  # of a run that was interrupted after its test
    call('test.py', checkpoint, '--out', predictions)
    write_file(run.result, json.dumps(result_of(run), indent=1) + '\n')


def result_of(run: Run) -> dict:
    """Collect the figures of a complete run.

    Returns:
        dict: ``figures`` holds the metrics of the last epoch ('final') and, in
        a two-stage training, those at the end of stage 1 ('stage_1'); ``log``
        holds the losses and metrics of every epoch.

    Raises:
        UserError: If the run was never validated.
    """
    cfg, curves = read_dumped_config(run.config), read_curves(run.folder)
    if curves is None or not curves.metrics:
        raise UserError(
            f'{run.folder}: there was no validation, whose metrics are the figures of a run: the '
            'config needs val_dataloader, val_cfg and val_evaluator'
        )
    records = [dict(epoch=epoch, **metrics) for epoch, metrics in curves.metrics.items()]
    begin = (find_hook(cfg, 'TwoStageHook') or {}).get('begin', 0)
    stage_1 = [record for record in records if record['epoch'] <= begin]
    machine = f'CPU with {torch.backends.cpu.get_cpu_capability()}'
    if torch.cuda.is_available():
        machine = torch.cuda.get_device_name()
    return dict(
        name=run.name,
        seed=run.seed,
        epochs=cfg.train_cfg.max_epochs,
        command=run.command,
        pieces=[dict(machine=machine, torch=torch.__version__)],
        training_seconds=round(curves.seconds),
        figures=dict(dict(stage_1=stage_1[-1]) if stage_1 else {}, final=records[-1]),
        log=dict(
            train=[dict(epoch=epoch, **losses) for epoch, losses in curves.losses.items()],
            val=records,
        ),
    )


def _memory() -> float:
    """Bytes of memory; infinite on Windows, where Python cannot tell."""
    if not hasattr(os, 'sysconf'):
        return math.inf
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def share_machine(jobs: int | None, most: int) -> list[dict[str, str]]:
    """Divide GPUs and cores among parallel runs.

    Args:
        jobs (int, optional): The number of parallel runs. None means one per
            GPU or, without GPUs, one per core and 2 GiB of memory.
        most (int): An upper bound on the number of parallel runs.

    Returns:
        list[dict[str, str]]: Environment variables for each parallel run.
    """
    cores = torch.get_num_threads()
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    count = torch.cuda.device_count()
    gpus = named.split(',')[:count] if named else [str(i) for i in range(count)]
    if jobs is None:
        jobs = len(gpus) or int(min(cores, _memory() / _MEMORY))
    jobs = max(1, min(jobs, most))
    shares = [dict(OMP_NUM_THREADS=str(max(1, cores // jobs))) for _ in range(jobs)]
    if gpus:
        for i, share in enumerate(shares):
            share['CUDA_VISIBLE_DEVICES'] = gpus[i % len(gpus)]
    return shares


def make_here(runs: Sequence[Run], jobs: int | None = None) -> Iterator[tuple[Run, Future]]:
    """Make runs on this machine.

    Args:
        runs (Sequence[Run]): The runs.
        jobs (int, optional): The number of parallel runs, see
            :func:`share_machine`. Defaults to None.

    Yields:
        tuple[Run, Future]: Each run as it ends, and its outcome.
    """
    shares, thread = share_machine(jobs, len(runs)), threading.local()

    def take_share() -> None:
        thread.environment = shares.pop()

    def make_with_share(run: Run) -> None:
        make(run, thread.environment)

    with ThreadPoolExecutor(len(shares), initializer=take_share) as pool:
        futures = {pool.submit(make_with_share, run): run for run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future
        finally:
            # Ctrl-C also reaches the trainings, which end by themselves.
            pool.shutdown(wait=False, cancel_futures=True)


def make_on_cluster(
    runs: Sequence[Run], folder: Path, parameters: dict[str, object], cluster: str = 'slurm'
) -> Iterator[tuple[Run, object]]:
    """Make runs as cluster jobs, using submitit.

    Args:
        runs (Sequence[Run]): The runs.
        folder (Path): The folder of submitit's files.
        parameters (dict): Parameters of ``submitit.AutoExecutor``, such as
            ``slurm_partition``, ``gpus_per_node`` or ``timeout_min``.
        cluster (str): 'slurm', or 'local' for processes on this machine.
            Defaults to 'slurm'.

    Yields:
        tuple[Run, submitit.Job]: Each run as it ends, and its job.

    Raises:
        UserError: If submitit is missing, or rejects the parameters.
    """
    try:
        import submitit
    except ImportError:
        raise UserError('--slurm needs submitit: pip install submitit') from None
    try:
        executor = submitit.AutoExecutor(str(folder), cluster=cluster)
        executor.update_parameters(**parameters)
    except (RuntimeError, NameError, TypeError, AssertionError) as error:
        raise UserError(f'--slurm: {error}') from None
    jobs = dict(zip(executor.map_array(make, runs), runs))
    for job in submitit.helpers.as_completed(list(jobs)):
        yield jobs[job], job


def complete(
    runs: Sequence[Run], make_runs: Callable[[Sequence[Run]], Iterator[tuple]]
) -> Iterator[tuple[Run, str | None]]:
    """Make the runs that have no result yet.

    Args:
        runs (Sequence[Run]): All runs.
        make_runs (Callable): :func:`make_here` or :func:`make_on_cluster`.

    Yields:
        tuple[Run, str | None]: Each run as it ends, and its error message if it
        failed.

    Raises:
        UserError: If some runs fail, after all others are complete.
    """
    missing = [run for run in runs if not run.result.exists()]
    failed = []
    for run, outcome in make_runs(missing) if missing else ():
        error = outcome.exception()
        if error:
            failed.append(str(error))
        yield run, str(error) if error else None
    if failed:
        raise UserError(
            f'{len(failed)} of {len(runs)} runs failed; run the same command again to retry '
            'them.\n' + '\n'.join(failed)
        )
