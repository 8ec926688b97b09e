"""What the benchmarks share: turns, arguments, tables and files."""

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.utils.dl_utils import collect_env
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ride_mm.compat.atomic_backend import write_file
from ride_mm.engine.config import add_cfg_options, positive
from ride_mm.utils.errors import UserError, user_message

# Steps before the first turn, and the fewest of a turn.
WARM_UP, LEAST = 5, 3


class Turns:
    """Measures an endless training from within, whenever it is its turn.

    Args:
        pipe (Connection): Brings the turns, as pairs of what is to be
            measured and of seconds, and takes what was found.
        device (str): 'cpu' or 'cuda'.
        skip (int): Steps at the beginning of a turn that are not counted, for
            batches that were loaded while others had theirs. Defaults to 0.
    """

    def __init__(self, pipe: Connection, device: str, skip: int = 0) -> None:
        self.info: dict = {}
        self.wanted: str | None = None
        self._pipe, self._device, self._skip = pipe, device, skip
        self._seconds, self._images = 0.0, []
        self._left_out = WARM_UP

    def after_step(self, images: int) -> None:
        """To be called after each step.

        Args:
            images (int): Images of the step.

        Raises:
            SystemExit: When the benchmark is over.
        """
        if self._left_out:
            self._left_out -= 1
            if not self._left_out:
                self._begin()
            return
        self._images.append(images)
        if len(self._images) >= LEAST and time.perf_counter() >= self._start + self._seconds:
            self._end()

    def _begin(self) -> None:
        synchronize(self._device)
        if self._device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        self._images = []
        self._start = time.perf_counter()

    def _end(self) -> None:
        synchronize(self._device)
        seconds = time.perf_counter() - self._start
        turn = dict(
            seconds=seconds,
            images=sum(self._images),
            memory_bytes=peak_memory(self._device),
            **self.info,
        )
        if self._device == 'cuda':
            torch.cuda.empty_cache()  # the others need the memory
        self._pipe.send(turn)
        request = self._pipe.recv()
        if request is None:
            raise SystemExit
        self.wanted, self._seconds = request
        self._left_out = 1 + self._skip


def synchronize(device: str) -> None:
    """Wait for the GPU, whose work goes on when a call has returned."""
    if device == 'cuda':
        torch.cuda.synchronize()


def peak_memory(device: str) -> int:
    """Bytes: of the GPU since the turn began, of the process on the CPU."""
    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(r'VmHWM:\s+(\d+) kB', status)[1])


class Worker:
    """A process that is measured.

    Args:
        name (str): For messages.
        target (Callable): ``target(pipe, *args)``; sends a reply when it is
            warm, and one to each request.
        args (tuple): Its other arguments.
        threads (int, optional): Its threads. Defaults to None, which means
            PyTorch's default.
        log (Path): Takes what it prints.
    """

    def __init__(
        self, name: str, target: Callable, args: tuple, threads: int | None, log: Path
    ) -> None:
        context = multiprocessing.get_context('spawn')
        self._name, self._log = name, log
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(target=_run, args=(pipe, log, threads, target, args))
        self._process.start()
        pipe.close()
        self._receive()

    def ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            reply = self._pipe.recv()
        except EOFError:
            self._process.join()
            reply = RuntimeError(
                ''.join(self._log.read_text(errors='replace').splitlines(True)[-15:])
            )
        if isinstance(reply, Exception):
            raise type(reply)(f'{self._name}: {reply}')
        return reply

    def close(self) -> None:
        try:
            self._pipe.send(None)
        except OSError:
            pass
        self._process.join(10)
        self._process.terminate()


def _run(pipe: Connection, log: Path, threads: int | None, target: Callable, args: tuple) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if threads:
        torch.set_num_threads(threads)
    # Data loaders start their workers as everywhere else.
    multiprocessing.set_start_method(None, force=True)
    try:
        target(pipe, *args)
    except UserError as error:
        pipe.send(UserError(user_message(error)))
    except Exception:
        pipe.send(RuntimeError(traceback.format_exc()))


def take_turns(turns: dict[Hashable, Callable[[], Any]], rounds: int) -> dict[Hashable, list]:
    """Measure A B C, A B C, ...: what disturbs one round disturbs all.

    Args:
        turns (dict): What measures each one once.
        rounds (int): How often.

    Returns:
        dict: The results of each, one for every round.
    """
    results = {key: [] for key in turns}
    order = [key for _ in range(rounds) for key in turns]
    for key in track(order, 'measuring', console=Console(stderr=True), transient=True):
        results[key].append(turns[key]())
    return results


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, smallest and largest: ``207 (201 to 212)``."""
    texts = [f'{value:,.{digits}f}' for value in (median(values), min(values), max(values))]
    return '{} ({} to {})'.format(*texts) if len(values) > 1 else texts[0]


def rates(turns: Sequence[dict]) -> list[float]:
    """Images per second of each turn."""
    return [turn['images'] / turn['seconds'] for turn in turns]


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Ratio round by round, free of what changes between rounds, such as the
    clock of the processor."""
    return [a / b for a, b in zip(values, others)]


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
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--rounds',
        type=positive,
        default=5,
        metavar='N',
        help='how often each is measured (default: 5)',
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=seconds,
        metavar='S',
        help=f'how long each time (default: {seconds:g})',
    )
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='default: cuda where there is a GPU',
    )
    parser.add_argument(
        '--threads', type=positive, metavar='N', help="threads on the CPU (default: PyTorch's)"
    )
    parser.add_argument(
        '--official',
        metavar='PATH',
        help='measure a clone of github.com/frank-xwang/RIDE-LongTailRecognition as well',
    )
    parser.add_argument('--json', metavar='FILE', help='write every timing to a new file')
    add_cfg_options(parser, 'override settings of the config', default={})
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Find mistakes in them, and choose the device.

    Raises:
        UserError: If there is no such device, or the file exists.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: there is no GPU here')
    if args.device == 'cpu':
        # MMEngine takes a GPU wherever it sees one.
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    if args.json and os.path.exists(args.json):
        raise UserError(
            f'--json {args.json} exists and is not overwritten: name another file or remove it'
        )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; in a pipe or file as Markdown, for the docs."""
    is_terminal = sys.stdout.isatty()
    table = Table(
        *columns,
        title=title,
        title_justify='left',
        box=box.ROUNDED if is_terminal else box.MARKDOWN,
    )
    for row in rows:
        table.add_row(*row)
    Console(width=None if is_terminal else 1000).print(table)


def finish(args: argparse.Namespace, **findings: Any) -> None:
    """Print the machine, and write the file of ``--json``."""
    machine = dict(
        collect_env(),
        processor=_processor(),
        cores=os.cpu_count(),
        threads=args.threads or torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
    )
    for key in ('numpy_random_seed', 'PyTorch compiling details'):
        machine.pop(key, None)
    print(
        f'{machine.get("GPU 0", machine["processor"])}, '
        f'{machine["threads"]} threads, {machine["instructions"]}, '
        f'torch {torch.__version__}'
    )
    if args.json:
        found = dict(machine=machine, options=vars(args), **findings)
        write_file(args.json, json.dumps(found, indent=1) + '\n')


def _processor() -> str:
    path = Path('/proc/cpuinfo')
    found = path.exists() and re.search('model name\\s*: (.*)', path.read_text())
    return found[1] if found else 'unknown processor'
