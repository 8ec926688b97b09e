"""Arguments that the benchmarks share, and how they show what they found."""
import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from typing import Any, Dict, Iterable, Sequence

import torch
from machine import describe, one_line
from rich import box
from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TextColumn,
                           TimeElapsedColumn, TimeRemainingColumn)
from rich.table import Table

from ride_mm.engine.config import add_cfg_options, positive
from ride_mm.utils.atomic_backend import write_file
from ride_mm.utils.errors import UserError

# Wide enough for any table where the output is a pipe or a file.
_PLAIN_WIDTH = 1000


def common_arguments() -> argparse.ArgumentParser:
    """Make the parser of what all benchmarks accept, as a parent."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='write machine, options and every timing to a new file')
    add_cfg_options(
        parser,
        'override settings of the config, as in tools/train.py',
        default={})
    return parser


def device_arguments() -> argparse.ArgumentParser:
    """Make the parser of those that run a model, as a parent."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to compute (default: cuda where there is a GPU)')
    parser.add_argument(
        '--threads',
        type=positive,
        metavar='N',
        help="threads of a contender on the CPU (default: PyTorch's)")
    return parser


def rounds_arguments(seconds: float = 5) -> argparse.ArgumentParser:
    """Make the parser of those that compare in rounds, as a parent.

    Args:
        seconds (float): Default of ``--seconds``. Defaults to 5.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--rounds',
        type=positive,
        default=5,
        metavar='N',
        help='how often each contender is measured (default: 5)')
    parser.add_argument(
        '--seconds',
        type=float,
        default=seconds,
        metavar='S',
        help=f'how long it is measured each time (default: {seconds:g})')
    parser.add_argument(
        '--official',
        metavar='PATH',
        help='a clone of github.com/frank-xwang/RIDE-LongTailRecognition to '
        'measure as well')
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Find mistakes in the common arguments, and choose the device.

    Raises:
        UserError: If there is no such device, or the JSON file exists.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: there is no GPU here.')
    if args.device == 'cpu':
        # mmengine takes a GPU wherever it sees one
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    if args.json is not None:
        if os.path.exists(args.json):
            raise UserError(f'--json {args.json} exists and is not '
                            'overwritten: name another file or remove it.')
        os.makedirs(os.path.dirname(os.path.abspath(args.json)), exist_ok=True)


def progress_bar() -> Progress:
    """A progress bar on stderr that is gone when the table comes."""
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True)


def print_table(title: str,
                columns: Sequence[str],
                rows: Sequence[Sequence[str]],
                text_columns: int = 1) -> None:
    """Print a table; in a pipe or file as Markdown, for the docs.

    Args:
        title (str): What it shows.
        columns (Sequence[str]): The heads.
        rows (Sequence[Sequence[str]]): The cells, already formatted.
        text_columns (int): How many columns are text, before those of
            numbers. Defaults to 1.
    """
    console = _console()
    table = Table(
        title=title,
        title_justify='left',
        box=box.ROUNDED if console.is_terminal else box.MARKDOWN)
    for i, column in enumerate(columns):
        table.add_column(
            column, justify='left' if i < text_columns else 'right')
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_lines(title: str, lines: Iterable[str]) -> None:
    """Print a list, unless it is empty."""
    text = ''.join(f'\n  {line}' for line in lines)
    if text:
        _console().print(f'{title}:{text}', markup=False, highlight=False)


def show_official(infos: Iterable[dict]) -> None:
    """Say how the official code was run.

    Args:
        infos (Iterable[dict]): Of all contenders; those of official ones
            have ``config``, ``data`` and ``patches``.
    """
    found = [info for info in infos if 'patches' in info]
    for text in dict.fromkeys(f"{info['config']}, {info['data']}"
                              for info in found):
        print_lines('official code', [text])
    patches = dict.fromkeys(patch for info in found
                            for patch in info['patches'])
    print_lines('patched in it at run time',
                [f'{patch.name}: {patch.why}' for patch in patches])


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


def finish(benchmark: str, args: argparse.Namespace,
           findings: Dict[str, Any]) -> None:
    """Print what it was measured on, and write the JSON file.

    Args:
        benchmark (str): Its name.
        args (argparse.Namespace): The arguments of the benchmark.
        findings (dict): What was found, with every timing.
    """
    machine = describe(args.device, args.threads)
    print_lines('machine', [one_line(machine)])
    if args.json is None:
        return
    options = {
        key: _without_folders(value)
        for key, value in vars(args).items() if key != 'json'
    }
    report = dict(
        benchmark=benchmark, machine=machine, options=options, **findings)
    text = json.dumps(report, indent=1, default=asdict)
    # a line for each list of numbers, not for each number
    text = re.sub(r'\[[^][{}]*\]', lambda found: ' '.join(found[0].split()),
                  text)
    write_file(args.json, text + '\n')
    print(args.json)


def _without_folders(value: Any) -> Any:
    """Absolute paths say nothing on another machine."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and os.path.isabs(value):
        return os.path.basename(value)
    return value
