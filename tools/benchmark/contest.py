"""Contenders in processes of their own, measured in turn: A B A B."""
import multiprocessing
import os
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, Hashable, List, Optional

import numpy as np
import torch

from ride_mm.utils.errors import UserError, user_message

_LOG_LINES = 15
# seconds a contender has to end by itself
_PATIENCE = 10


class Finished(Exception):
    """Raised in a contender's process when the benchmark is over."""


class Referee:
    """What a contender knows of the benchmark.

    Args:
        pipe (Connection): The line to it.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def exchange(self, reply: Any) -> Any:
        """Send a reply and wait for what is asked next.

        The first reply says that the contender is ready.

        Raises:
            Finished: If nothing more will be asked.
        """
        self._pipe.send(('reply', reply))
        try:
            request = self._pipe.recv()
        except EOFError:
            request = None
        if request is None:
            raise Finished
        return request


class Contender:
    """A contender, seen from the benchmark.

    Args:
        context: Of :mod:`multiprocessing`, for the process.
        name (str): For messages.
        log (Path): The file that takes what it prints.
        threads (int, optional): Its threads; None means PyTorch's default.
        function (Callable): ``function(referee, **options)``, run in a
            process of its own.
        options (dict): Options of the function.
    """

    def __init__(self, context, name: str, log: Path, threads: Optional[int],
                 function: Callable, options: dict) -> None:
        self.name = name
        self._log = log
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(
            target=_run, args=(pipe, log, threads, function, options))
        self._process.start()
        pipe.close()
        #: What it said when it was ready.
        self.info = self._receive()

    def ask(self, request: Any) -> Any:
        """Send a request and wait for the reply.

        Raises:
            UserError: If the contender met a mistake of the user.
            RuntimeError: If it failed.
        """
        self._pipe.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            self._process.join(_PATIENCE)
            lines = self._log.read_text(errors='replace').splitlines()
            kind, value = 'error', '\n'.join(
                [*lines[-_LOG_LINES:], f'exit {self._process.exitcode}'])
        if kind == 'user_error':
            raise UserError(f'{self.name}: {value}')
        if kind == 'error':
            raise RuntimeError(f'{self.name} failed.\n{value}')
        return value

    def close(self) -> None:
        """End the process."""
        try:
            self._pipe.send(None)
        except OSError:
            pass
        self._process.join(_PATIENCE)
        self._process.terminate()
        self._process.join()
        self._pipe.close()


def _run(pipe: Connection, log: Path, threads: Optional[int],
         function: Callable, options: dict) -> None:
    """A contender's process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if threads:
        torch.set_num_threads(threads)
    # data loaders are to start their workers as everywhere else
    multiprocessing.set_start_method(None, force=True)
    try:
        function(Referee(pipe), **options)
    except Finished:
        pass
    except UserError as error:
        pipe.send(('user_error', user_message(error)))
    except Exception:
        pipe.send(('error', traceback.format_exc()))


class Arena:
    """Starts contenders, and ends them all when it is left.

    Args:
        device (str): "cpu" or "cuda".
        threads (int, optional): Threads of each contender. Defaults to None,
            which means PyTorch's default.
    """

    def __init__(self, device: str, threads: Optional[int] = None) -> None:
        # A process that has looked for GPUs cannot be forked.
        method = 'spawn' if device == 'cuda' else 'forkserver'
        self._context = multiprocessing.get_context(method)
        if method == 'forkserver':
            self._context.set_forkserver_preload(['ride_mm'])
        self._threads = threads
        self._contenders: List[Contender] = []
        self._folder = tempfile.TemporaryDirectory(
            prefix='ride_mm_benchmark_', ignore_cleanup_errors=True)

    @property
    def folder(self) -> Path:
        """Path: A folder that lasts as long as the benchmark."""
        return Path(self._folder.name)

    def start(self, name: str, function: Callable, **options) -> Contender:
        """Start a contender and wait until it is ready.

        Args:
            name (str): For messages.
            function (Callable): ``function(referee, **options)``.
            **options: Options of the function.
        """
        log = self.folder / f'{len(self._contenders)}.log'
        contender = Contender(self._context, name, log, self._threads,
                              function, options)
        self._contenders.append(contender)
        return contender

    def __enter__(self) -> 'Arena':
        return self

    def __exit__(self, *_) -> None:
        for contender in self._contenders:
            contender.close()
        self._folder.cleanup()


def take_turns(
        turns: Dict[Hashable, Callable[[], Any]],
        rounds: int,
        after_turn: Callable[[], None] = lambda: None) -> Dict[Hashable, list]:
    """Measure A B C, A B C, ...: what disturbs one round disturbs all.

    Args:
        turns (dict): What measures each contender once.
        rounds (int): How often.
        after_turn (Callable): Called after every turn. Defaults to doing
            nothing.

    Returns:
        dict: The results of each contender, one for every round.
    """
    results = {key: [] for key in turns}
    for _ in range(rounds):
        for key, turn in turns.items():
            results[key].append(turn())
            after_turn()
    return results


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of several rounds."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 0) -> str:
        """For tables: ``207 (201 to 212)``."""
        median, low, high = (f'{value:,.{digits}f}'
                             for value in (self.median, self.low, self.high))
        return median if low == high else f'{median} ({low} to {high})'


def spread(values: List[float]) -> Spread:
    """Median, smallest and largest of the rounds."""
    return Spread(float(np.median(values)), min(values), max(values))


def ratio(values: List[float], reference: List[float]) -> Spread:
    """Spread of the ratio of two contenders, round by round.

    A ratio within a round is free of what changes between rounds, such as
    the clock of the processor.

    Args:
        values (list[float]): Figures of a contender, one per round.
        reference (list[float]): Those of the other one.
    """
    return spread([a / b for a, b in zip(values, reference)])
