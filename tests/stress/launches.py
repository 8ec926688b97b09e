"""Short trainings as a user starts them, for the scripts of this folder."""

import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 5
_LIMIT_S = 900

# Three epochs of the experts, two of the router, on digits as scanned.
_CONFIG = """
_base_ = {base!r}
custom_imports = dict(
    imports=['ride_mm', 'kill_points'], allow_failed_imports=False)
model = dict(
    backbone=dict(depth=20), neck=dict(expert=dict(depth=20)))
train_dataloader = dict(batch_size=48, num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = dict(num_workers=0)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5, by_epoch=True, end=2),
    dict(type='MultiStepLR', milestones=[1, 2], gamma=0.1, by_epoch=True)]
train_cfg = dict(max_epochs=5, val_interval=1)
default_hooks = dict(
    reweighting=dict(begin=2),
    two_stage=dict(begin=3, train_dataloader=dict(batch_size=64)),
    checkpoint=dict(interval=1, max_keep_ckpts=2),
    {cache})
custom_hooks = [dict(type='KillPointHook')]
"""


def write_config(folder: Path, cache: bool = False) -> Path:
    """Write the config of a short training and return its path."""
    path = Path(folder) / ('cached.py' if cache else 'plain.py')
    path.write_text(
        _CONFIG.format(
            base=str(ROOT / 'configs/ride_r32_digits_lt.py'),
            cache='router_cache=dict(type="RouterCacheHook")' if cache else '',
        )
    )
    return path


def free_port() -> int:
    """A port that no outgoing connection is given by chance."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue


class Launch:
    """One command of a user, in a process group of its own.

    Args:
        script (str): A script of tools/, by name.
        args (list): Its arguments.
        log (Path): Where its output goes.
        environment (dict, optional): More variables. Defaults to None.
    """

    def __init__(
        self, script: str, args: list, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        program = 'bash' if script.endswith('.sh') else sys.executable
        self.log = Path(log)
        paths = [str(ROOT), str(Path(__file__).parent)]
        with open(self.log, 'w') as file:
            self.process = subprocess.Popen(
                [program, str(ROOT / 'tools' / script), *map(str, args)],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    'PYTHONPATH': os.pathsep.join(paths),
                    'OMP_NUM_THREADS': '1',
                    'PORT': str(free_port()),
                    **(environment or {}),
                },
            )

    def wait(self) -> int:
        return self.process.wait(_LIMIT_S)

    @property
    def text(self) -> str:
        return self.log.read_text(errors='replace')

    @property
    def error(self) -> str:
        """The exit code, and the first line that tells of an error."""
        lines = self.text.strip().splitlines() or ['no output']
        told = [line for line in lines if re.match(r'\w*[eE]rror: ', line)]
        return f'{self.process.returncode}, {(told or lines[-1:])[0]}'


def run(script: str, args: list, log: Path, environment: dict[str, str] | None = None) -> Launch:
    """Run a command to its end."""
    launch = Launch(script, args, log, environment)
    launch.wait()
    return launch


def train(
    config: Path,
    ranks: int,
    work_dir: Path,
    log: Path,
    *options: str,
    environment: dict[str, str] | None = None,
) -> Launch:
    """Train to the end: in this process alone, or with dist_train.sh."""
    options = ['--work-dir', work_dir, *options]
    if ranks == 1:
        return run('train.py', [config, *options], log, environment)
    return run('dist_train.sh', [config, ranks, *options], log, environment)


def processes_on(work_dir: Path) -> list[int]:
    """Processes whose command names a work_dir."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            command = path.read_bytes().split(b'\0')
        except OSError:
            continue
        if str(work_dir).encode() in command:
            found.append(int(path.parent.name))
    return found


def seconds_until_idle(work_dir: Path, limit: float = 60) -> float | None:
    """Wait for the processes of a run; None if they outlive the limit."""
    start = time.time()
    while processes_on(work_dir):
        if time.time() - start > limit:
            return None
        time.sleep(0.2)
    return time.time() - start


def final_state(work_dir: Path) -> dict | None:
    """Weights, optimizer and schedules at the end, or None."""
    path = Path(work_dir) / f'epoch_{EPOCHS}.pth'
    if not path.is_file():
        return None
    checkpoint = torch.load(path, map_location='cpu', weights_only=False)
    return {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}


def difference(one, other, where: str = '') -> str | None:
    """Where two nested states first differ by a bit, or None."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f'{where}: other keys'
        pairs = [(str(key), one[key], other[key]) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return f'{where}: other length'
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(one, other))]
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return None if torch.equal(one, other) else where
    else:
        return None if one == other else f'{where}: {one!r}, {other!r}'
    for key, a, b in pairs:
        found = difference(a, b, f'{where}.{key}' if where else key)
        if found:
            return found
    return None


class Table:
    """Prints a row for each case as it ends, and counts the bad ones."""

    def __init__(self, *widths: int) -> None:
        self.widths = widths
        self.rows = self.bad = 0
        self._start = time.time()

    def add(self, *cells, problem: str | None = None) -> None:
        """Print a case: as it should be if there is no problem."""
        self.rows += 1
        self.bad += problem is not None
        columns = '  '.join(f'{str(cell):<{width}}' for cell, width in zip(cells, self.widths))
        print(f'{columns}  {problem or "ok"}', flush=True)

    def end(self) -> int:
        """Print the sum and return the exit code."""
        print(
            f'{self.rows - self.bad} of {self.rows} as they should be, in '
            f'{time.time() - self._start:.0f} s'
        )
        return int(self.bad > 0)
