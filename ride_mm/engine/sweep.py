"""Many trainings: every config with every seed, side by side."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from ride_mm.compat.atomic_backend import write_file
from ride_mm.utils.errors import UserError, name_some

from .config import find_hook, follow_training_set
from .config_changes import DATA_ACCESS, config_changes
from .dumped_config import read_dumped_config
from .scalars import read_curves

# Memory to allow for a training on the CPU, with its data and its workers.
_MEMORY = 2 * 2**30
# What may change between runs in one folder: where the data lies, and what is
# made of the predictions.
_NO_MATTER = re.compile(DATA_ACCESS.pattern + r'|(val|test)_evaluator(\..*)?')


@dataclass(frozen=True)
class Run:
    """One training of a sweep, and the test of its last checkpoint.

    Attributes:
        name (str): The name that the runs of one config share.
        config (Path): The config of these runs.
        folder (Path): The work_dir of this run.
        seed (int): Its seed.
        options (tuple[str]): What the run overrides, as ``key=value``.
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
    def log(self) -> Path:
        """Path: What the training and the test print."""
        return self.folder / 'log.txt'

    @property
    def predictions(self) -> Path:
        """Path: What the model predicts for the test set."""
        return self.folder / 'predictions.npz'

    @property
    def result(self) -> Path:
        """Path: The figures of the run; there when it is complete."""
        return self.folder.parents[1] / f'{self.name}_seed{self.seed}.json'

    def last_words(self) -> str:
        """The last lines of the log, indented."""
        lines = self.log.read_text(errors='replace').splitlines()
        return ''.join(f'\n    {line}' for line in lines[-5:])


def prepare_runs(
    name: str,
    cfg: Config,
    folder: Path,
    seeds: Sequence[int],
    command: str,
    tools: Path,
    resample: bool = False,
) -> list[Run]:
    """Write the config of a sweep, and list its runs.

    Args:
        name (str): The name of the runs.
        cfg (Config): What is trained.
        folder (Path): The folder of the sweep; the runs are in
            ``folder/name/seed_0`` and so on.
        seeds (Sequence[int]): The seeds.
        command (str): The command of the sweep, for its figures.
        tools (Path): The folder of ``train.py`` and ``test.py``.
        resample (bool): Whether each run has a training set of its own, see
            :func:`sample_training_set`. Defaults to False.

    Returns:
        list[Run]: The runs, those that are complete among them.

    Raises:
        UserError: If there are runs of other settings in the folder, or the
            config has no checkpoints.
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
        changes = config_changes(read_dumped_config(path), cfg, ignored=_NO_MATTER)
        if changes:
            named = [f'{key}={value!r:.60}' for key, value in changes.items()]
            raise UserError(
                f'{path.parent} holds runs with settings other than '
                f'{name_some(named)}: repeat those settings, or choose '
                'another --work-dir'
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, cfg.pretty_text)
    return [
        Run(
            name,
            path,
            path.parent / f'seed_{seed}',
            seed,
            tuple(f'{key}={seed}' for key in keys),
            command,
            tools,
        )
        for seed in seeds
    ]


def sample_training_set(cfg: Config) -> str:
    """Replace the training set of a config by one sampled by a seed.

    CIFAR10LT, CIFAR100LT and DigitsLT draw long-tailed subsets by
    themselves; their ``max_count`` becomes 3/5 of the images of a class, the
    paper's 300 of CIFAR-100's 500, unless the config sets it: with all of
    them the largest class would be the same in every set. Of other training
    sets :class:`~ride_mm.datasets.Bootstrap` draws replicates.

    Args:
        cfg (Config): The config, changed in place.

    Returns:
        str: The key of the seed.
    """
    key, dataset = 'train_dataloader.dataset', cfg.train_dataloader.dataset
    whole = dataset
    while 'dataset' in dataset:
        key, dataset = f'{key}.dataset', dataset.dataset
    available = getattr(DATASETS.get(dataset.type), 'max_count', None)
    if available is None:
        cfg.train_dataloader.dataset = dict(type='Bootstrap', dataset=whole, seed=0)
        return 'train_dataloader.dataset.seed'
    dataset.setdefault('max_count', available * 3 // 5)
    follow_training_set(cfg)
    dataset.subset_seed = 0
    return f'{key}.subset_seed'


def shared_starts(cfg: Config) -> list[str]:
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
        'model.teacher.checkpoint': teacher.get('checkpoint'),
    }
    return [f'{key}={value}' for key, value in found.items() if value]


# ---------------------------------------------------------------- one after


def make(run: Run, environment: dict[str, str] | None = None) -> None:
    """Train and test, going on where an earlier call was interrupted.

    Args:
        run (Run): The run; its figures are in ``run.result`` then.
        environment (dict, optional): Environment variables to set. Defaults
            to None.

    Raises:
        UserError: If a command fails.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    common = ['--work-dir', run.folder, '--cfg-options', *run.options]
    with run.log.open('ab') as log:

        def call(tool: str, *arguments) -> None:
            command = [sys.executable, run.tools / tool, run.config, *arguments, *common]
            code = subprocess.run(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, **(environment or {})),
            ).returncode
            if code:
                raise UserError(f'{run.log} ends with:{run.last_words()}')

        call('train.py', '--resume')
        pointer = run.folder / 'last_checkpoint'
        call('test.py', pointer.read_text().strip(), '--out', run.predictions)
    write_file(run.result, json.dumps(result_of(run), indent=1) + '\n')


def result_of(run: Run) -> dict:
    """Collect the figures of a complete run.

    Returns:
        dict: ``figures`` holds the metrics of the last epoch ('final') and,
        of two stages, those at the end of the first ('stage_1'); ``log`` the
        losses and metrics of every epoch.

    Raises:
        UserError: If nothing was validated.
    """
    cfg, curves = read_dumped_config(run.config), read_curves(run.folder)
    records = [dict(epoch=epoch, **metrics) for epoch, metrics in curves.metrics.items()]
    if not records:
        raise UserError(
            f'{run.folder}: there was no validation, whose '
            'metrics are the figures of a run: the config needs '
            'val_dataloader, val_cfg and val_evaluator'
        )
    figures = dict(final=records[-1])
    begin = (find_hook(cfg, 'TwoStageHook') or {}).get('begin', 0)
    experts = [record for record in records if record['epoch'] <= begin]
    if experts:
        figures = dict(stage_1=experts[-1], **figures)
    return dict(
        name=run.name,
        seed=run.seed,
        epochs=cfg.train_cfg.max_epochs,
        command=run.command,
        pieces=[dict(machine=_machine(), torch=torch.__version__)],
        training_seconds=round(curves.seconds),
        figures=figures,
        log=dict(
            train=[dict(epoch=epoch, **losses) for epoch, losses in curves.losses.items()],
            val=records,
        ),
    )


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU with {torch.backends.cpu.get_cpu_capability()}'


# -------------------------------------------------------------- side by side


def share_machine(jobs: int | None, most: int) -> list[dict[str, str]]:
    """Divide GPUs and cores between runs.

    Args:
        jobs (int, optional): The number of runs at once. None means one for
            each GPU or, without any, one for each core, as far as there are
            2 GiB of memory for each.
        most (int): How many runs there are at most.

    Returns:
        list[dict[str, str]]: For each run at once the environment variables
        that keep it to its share.
    """
    gpus, cores = _visible_gpus(), torch.get_num_threads()
    if jobs is None:
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        jobs = len(gpus) or min(cores, memory // _MEMORY)
    jobs = max(1, min(jobs, most))
    threads = str(max(1, cores // jobs))
    if not gpus:
        return [dict(OMP_NUM_THREADS=threads) for _ in range(jobs)]
    return [
        dict(OMP_NUM_THREADS=threads, CUDA_VISIBLE_DEVICES=gpus[i % len(gpus)]) for i in range(jobs)
    ]


def _visible_gpus() -> list[str]:
    """The GPUs, named as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = named.split(',') if named else map(str, range(10**3))
    return [name for name, _ in zip(names, range(torch.cuda.device_count()))]


def make_here(runs: Sequence[Run], jobs: int | None = None) -> Iterator[tuple[Run, Future]]:
    """Make runs on this machine.

    Args:
        runs (Sequence[Run]): The runs.
        jobs (int, optional): How many at once, see :func:`share_machine`.
            Defaults to None.

    Yields:
        tuple[Run, Future]: Each run when it has ended, and how.
    """
    shares: SimpleQueue = SimpleQueue()
    environments = share_machine(jobs, len(runs))
    for environment in environments:
        shares.put(environment)

    def make_with_share(run: Run) -> None:
        environment = shares.get()
        try:
            make(run, environment)
        finally:
            shares.put(environment)

    with ThreadPoolExecutor(len(environments)) as pool:
        futures = {pool.submit(make_with_share, run): run for run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future
        finally:
            # Ctrl-C reaches the trainings as well, which end by themselves.
            pool.shutdown(wait=False, cancel_futures=True)


def make_on_cluster(
    runs: Sequence[Run], folder: Path, parameters: dict[str, object], cluster: str = 'slurm'
) -> Iterator[tuple[Run, object]]:
    """Make runs as jobs of a cluster, by submitit.

    Args:
        runs (Sequence[Run]): The runs.
        folder (Path): Where submitit keeps its files.
        parameters (dict): Those of ``submitit.AutoExecutor``, such as
            ``slurm_partition``, ``gpus_per_node`` or ``timeout_min``.
        cluster (str): 'slurm', or 'local' for processes of this machine.
            Defaults to 'slurm'.

    Yields:
        tuple[Run, submitit.Job]: Each run when it has ended, and its job.

    Raises:
        UserError: If submitit is missing, or refuses the parameters.
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
    runs: Sequence[Run],
    make_runs: Callable[[Sequence[Run]], Iterator[tuple]],
    report: Callable[[Run, str | None], None],
) -> None:
    """Make the runs that are missing.

    Args:
        runs (Sequence[Run]): All runs.
        make_runs (Callable): :func:`make_here`, or :func:`make_on_cluster`.
        report (Callable): Called with each run that has ended, and with what
            went wrong, or None.

    Raises:
        UserError: If some fail, when the others are made.
    """
    missing = [run for run in runs if not run.result.exists()]
    failed = []
    for run, outcome in make_runs(missing) if missing else ():
        error = outcome.exception()
        report(run, None if error is None else str(error))
        failed += [] if error is None else [str(error)]
    if failed:
        raise UserError(
            f'{len(failed)} of {len(runs)} runs failed; run the same command '
            'again to retry them.\n' + '\n'.join(failed)
        )
