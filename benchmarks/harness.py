"""What the benchmarks share: measuring in turns, arguments, tables and files."""

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.utils.dl_utils import collect_env
from rich import box
from rich.console import Console
from rich.progress import track
from torch.utils.benchmark import timer

from ride_mm.engine.config import add_cfg_options, is_ride, positive
from ride_mm.engine.schedule import load_training
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.errors import UserError
from ride_mm.utils.files import write_file

# Steps before the first turn, and the smallest number of steps in a turn.
WARM_UP, LEAST = 5, 3

# ---------------------------------------------------------------- measuring


def measure(steps: Iterator[int], seconds: float, skip: int = 0) -> dict[str, float]:
    """Take steps for some seconds.

    Args:
        steps (Iterator[int]): Takes a step at a time, and gives its number of
            images.
        seconds (float): How long.
        skip (int): Uncounted steps at the beginning, on top of one, for batches
            that were loaded between the turns. Defaults to 0.

    Returns:
        dict: ``seconds``, ``images`` and ``memory_bytes``, the peak memory: of
        the GPU during the turn or, on the CPU, of the process since its start.
    """
    on_gpu = torch.cuda.is_available()
    for _ in range(1 + skip):
        next(steps)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    images = []
    begin = timer()  # waits for the GPU
    while len(images) < LEAST or time.perf_counter() < begin + seconds:
        images.append(next(steps))
    seconds = timer() - begin
    if on_gpu:
        memory = torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()  # the other processes need the memory
    else:
        status = Path('/proc/self/status').read_text()
        memory = 1024 * int(re.search(r'VmHWM:\s+(\d+) kB', status)[1])
    return dict(seconds=seconds, images=sum(images), memory_bytes=memory)


def endless(loader: Iterable, images_of: Callable[[Any], int]) -> Iterator[int]:
    """Load batches without an end, and give the number of images of each.

    Args:
        loader (Iterable): The data loader.
        images_of (Callable): Finishes a batch, and counts its images.
    """
    while True:
        yield from map(images_of, loader)


class Process:
    """A process that trains, for what must not share one.

    Args:
        target (Callable): Returns iterators of steps, by name, and facts about
            them, which its first steps may add to.
        args (tuple): The arguments of ``target``.
        log (Path): Takes the output of the process.

    Attributes:
        facts (dict): The facts, after ``WARM_UP`` steps of the first iterator.
    """

    def __init__(self, target: Callable, args: tuple, log: Path) -> None:
        context = multiprocessing.get_context('spawn')
        self._pool = ProcessPoolExecutor(1, context, initializer=_redirect, initargs=(log,))
        self._log = log
        self.facts = self._call(_warm_up, target, args)

    def _call(self, *call: Any) -> Any:
        try:
            return self._pool.submit(*call).result()
        except BrokenProcessPool:
            last = self._log.read_text(errors='replace').splitlines()[-15:]
            raise RuntimeError('\n'.join(['a process died after this output:', *last])) from None

    def measure(self, name: str, *args: Any) -> dict[str, float]:
        """Call :func:`measure` for the steps of that name."""
        return self._call(_measure, name, *args)

    def close(self) -> None:
        self._pool.shutdown()


_steps: dict[str, Iterator[int]] = {}


def _redirect(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Data loaders start their workers as they do everywhere else.
    multiprocessing.set_start_method(None, force=True)


def _warm_up(target: Callable, args: tuple) -> dict:
    steps, facts = target(*args)
    _steps.update(steps)
    first = next(iter(steps.values()))
    for _ in range(WARM_UP):
        next(first)
    return facts


def _measure(name: str, *args: Any) -> dict[str, float]:
    return measure(_steps[name], *args)


def take_turns(turns: dict[Hashable, Callable[[], Any]], rounds: int) -> dict[Hashable, list]:
    """Measure A B C, A B C, ...: what disturbs one round disturbs all.

    Args:
        turns (dict): What measures each contender once.
        rounds (int): The number of rounds.

    Returns:
        dict: The results of each contender, one per round.
    """
    results = {key: [] for key in turns}
    order = [key for _ in range(rounds) for key in turns]
    for key in track(order, 'measuring', console=Console(stderr=True), transient=True):
        results[key].append(turns[key]())
    return results


def rates(turns: Sequence[dict]) -> list[float]:
    """Images per second of each turn."""
    return [turn['images'] / turn['seconds'] for turn in turns]


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Ratio within each round, free of what changes between rounds, such as
    the clock of the processor."""
    return [a / b for a, b in zip(values, others)]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, minimum and maximum: ``207 (201 to 212)``."""
    texts = [f'{value:,.{digits}f}' for value in (median(values), min(values), max(values))]
    return '{} ({} to {})'.format(*texts) if len(values) > 1 else texts[0]


# ------------------------------------------------------------------ configs


def load(path: str, options: dict, stage: str = 'experts') -> Config:
    """Read a config of RIDE for one stage.

    Raises:
        UserError: If the model is another one, or has no such stage.
    """
    cfg = load_training(path, options, stage='router' if stage == 'router' else None)
    if not is_ride(cfg):
        raise UserError(f'{path}: the benchmarks are for model.type="RIDEClassifier"')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def full_width(cfg: Config) -> tuple[int, ...]:
    """Channels of an expert's stages that are not reduced: each stage of a
    ResNet has twice those of the one before."""
    expert = cfg.model.neck.expert
    return tuple(expert.in_channels * 2 ** (i + 1) for i in range(len(expert.out_channels)))


def set_single(cfg: Config) -> None:
    """Replace the model by one network of full width, trained with cross entropy."""
    neck, head = cfg.model.neck, cfg.model.head
    cfg.model.num_experts = 1
    neck.expert.out_channels = full_width(cfg)
    head.in_channels = full_width(cfg)[-1]
    head.classifier = ConfigDict(type='LinearClassifier')
    head.loss = ConfigDict(type='CrossEntropyLoss')
    head.diversity = head.router = cfg.model.test_cfg = None
    cfg.default_hooks.two_stage = None


# --------------------------------------------------- arguments and results


def make_parser(description: str, example: str, seconds: float) -> argparse.ArgumentParser:
    """Make a parser with the arguments that all benchmarks share.

    Args:
        description (str): What is measured.
        example (str): A command.
        seconds (float): Default of ``--seconds``.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f'example:\n  {example}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='the config file')
    add('--rounds', type=positive, default=5, metavar='N', help='number of turns (default: 5)')
    add(
        '--seconds',
        type=float,
        default=seconds,
        metavar='S',
        help='length of a turn (default: %(default)g)',
    )
    add(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='default: cuda if there is a GPU',
    )
    add('--threads', type=positive, metavar='N', help="threads on the CPU (default: PyTorch's)")
    add(
        '--official',
        metavar='PATH',
        help='also measure a clone of github.com/frank-xwang/RIDE-LongTailRecognition',
    )
    add('--json', metavar='FILE', help='write all timings to a new file')
    add_cfg_options(parser, 'override settings of the config', default={})
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Check the shared arguments, and set the device and the threads.

    Raises:
        UserError: If there is no such device, or the file exists.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: there is no GPU here')
    if args.json and os.path.exists(args.json):
        raise UserError(
            f'--json {args.json} exists and is not overwritten: name another file or remove it'
        )
    if args.device == 'cpu':
        # MMEngine uses a GPU wherever it sees one.
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    if args.threads:
        os.environ['OMP_NUM_THREADS'] = str(args.threads)  # of other processes
        torch.set_num_threads(args.threads)


def finish(
    args: argparse.Namespace, title: str, columns: list, rows: list, **findings: Any
) -> None:
    """Print the table, in a pipe or file as Markdown, and write the file of ``--json``."""
    table = build_table(f'{title}: median (minimum to maximum)', columns, rows)
    is_terminal = sys.stdout.isatty()
    table.box = box.ROUNDED if is_terminal else box.MARKDOWN
    Console(width=None if is_terminal else 1000).print(table)
    cpu = Path('/proc/cpuinfo')
    named = cpu.exists() and re.search('model name\\s*: (.*)', cpu.read_text())
    machine = dict(
        collect_env(),
        processor=named[1] if named else 'unknown processor',
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
    )
    for key in ('numpy_random_seed', 'PyTorch compiling details'):
        machine.pop(key, None)
    print(
        f'{machine.get("GPU 0", machine["processor"])}, {machine["threads"]} threads, '
        f'{machine["instructions"]}, torch {torch.__version__}'
    )
    if args.json:
        found = dict(machine=machine, options=vars(args), **findings)
        write_file(args.json, json.dumps(found, indent=1) + '\n')
