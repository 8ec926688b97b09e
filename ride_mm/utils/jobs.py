"""Several long commands at once, each on its share of the machine."""
import os
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import torch

from .errors import UserError

# Memory to allow for a training on the CPU, with its data and its workers.
_MEMORY = 2 * 2**30
_PAUSE = 0.2

Environment = Dict[str, str]


class Job:
    """Some commands, one after the other.

    Attributes:
        log (Path): The file that all they print is appended to.
    """

    log: Path

    def commands(self) -> Iterator[List[str]]:
        """Yield each command when the one before has succeeded.

        What is done between them, and after the last one, belongs to the
        job: it fails with a :class:`UserError`.
        """
        raise NotImplementedError


def share_machine(jobs: Optional[int], most: int) -> List[Environment]:
    """Divide GPUs and cores between jobs.

    Args:
        jobs (int, optional): The number of jobs at once. None means one for
            each GPU or, without any, one for each core, as far as there are
            2 GiB of memory for each.
        most (int): How many jobs there are at most.

    Returns:
        list[dict[str, str]]: For each job at once the environment variables
        that keep it to its share.
    """
    gpus, cores = _visible_gpus(), torch.get_num_threads()
    if jobs is None:
        jobs = len(gpus) or min(cores, _memory() // _MEMORY)
    jobs = max(1, min(jobs, most))
    threads = str(max(1, cores // jobs))
    if not gpus:
        return [dict(OMP_NUM_THREADS=threads) for _ in range(jobs)]
    return [
        dict(
            OMP_NUM_THREADS=threads, CUDA_VISIBLE_DEVICES=gpus[i % len(gpus)])
        for i in range(jobs)
    ]


def _visible_gpus() -> List[str]:
    """The GPUs, named as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = named.split(',') if named else map(str, range(10**3))
    return [name for name, _ in zip(names, range(torch.cuda.device_count()))]


def _memory() -> int:
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def run_jobs(
        jobs: Sequence[Job],
        shares: Sequence[Environment],
        pass_fds: Sequence[int] = (),
        report: Optional[Callable[[List[Job]], None]] = None) -> List[Job]:
    """Run jobs, as many at once as there are shares of the machine.

    One that fails does not keep the others from being run. All that are at
    work are ended with this function, as by Ctrl-C.

    Args:
        jobs (Sequence[Job]): The jobs, in the order they are begun in.
        shares (Sequence[dict[str, str]]): See :func:`share_machine`.
        pass_fds (Sequence[int]): Files that stay open in the commands.
            Defaults to ().
        report (Callable, optional): Called with the jobs that have ended
            since the last call, several times a second. Defaults to None.

    Returns:
        list[Job]: Those that failed.
    """
    waiting, free = deque(jobs), deque(shares)
    active: List[_Active] = []
    failed = []
    try:
        while waiting or active:
            while waiting and free:
                active.append(
                    _Active(waiting.popleft(), free.popleft(), pass_fds))
            ended = [each for each in active if each.go_on()]
            for each in ended:
                active.remove(each)
                free.append(each.share)
                if each.failed:
                    failed.append(each.job)
            if report is not None:
                report([each.job for each in ended])
            time.sleep(_PAUSE)
    finally:
        for each in active:
            each.end()
    return failed


class _Active:
    """A job at work."""

    def __init__(self, job: Job, share: Environment,
                 pass_fds: Sequence[int]) -> None:
        self.job = job
        self.share = share
        self.failed = False
        self._pass_fds = pass_fds
        self._commands = job.commands()
        self._process: Optional[subprocess.Popen] = None

    def go_on(self) -> bool:
        """Start what is next if nothing is at work; whether all is done."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return False
            self.failed = code != 0
        if not self.failed:
            self._start_next()
        return self.failed or self._process is None

    def _start_next(self) -> None:
        self._process = None
        with open(self.job.log, 'ab') as log:
            try:
                command = next(self._commands, None)
            except UserError as error:
                log.write(f'error: {error}\n'.encode())
                self.failed = True
                return
            if command is not None:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ, **self.share),
                    pass_fds=self._pass_fds)

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
