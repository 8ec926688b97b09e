"""Train and test in several processes, as written in the README.

    python tests/stress/processes.py [--checks 'eight processes' ...]

Gloo processes on the CPU of this machine; two nodes are two launchers.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from launches import (
    ROOT,
    Launch,
    Table,
    difference,
    final_state,
    free_port,
    processes_on,
    run,
    seconds_until_idle,
    train,
    write_config,
)

DIGITS = ROOT / 'configs/ride_r32_digits_lt.py'
ACCURACY = re.compile(r'long_tail/overall: ([\d.]+)')


def eight_processes(folder: Path) -> str | None:
    """The whole digits recipe, `bash tools/dist_train.sh CONFIG 8`."""
    launch = train(DIGITS, 8, folder / 'eight', folder / 'eight.log')
    if launch.process.returncode:
        return launch.error
    accuracy = float(ACCURACY.findall(launch.text)[-1])
    # ten classes
    return None if accuracy > 50 else f'accuracy {accuracy}'


def two_nodes(folder: Path) -> str | None:
    """Two nodes of two processes end as one node of four."""
    config = write_config(folder)
    train(config, 4, folder / 'one_node', folder / 'one_node.log')
    port = str(free_port())
    nodes = [
        Launch(
            'dist_train.sh',
            [config, 2, '--work-dir', folder / 'two_nodes'],
            folder / f'node_{rank}.log',
            dict(NNODES='2', NODE_RANK=str(rank), MASTER_ADDR='127.0.0.1', PORT=port),
        )
        for rank in (0, 1)
    ]
    for node in nodes:
        if node.wait():
            return node.error
    return difference(final_state(folder / 'one_node'), final_state(folder / 'two_nodes'))


def logged_accuracy(folder: Path) -> str | None:
    """The accuracy in the log is that of the file, with 1 and 2 ranks."""
    config, work_dir = write_config(folder), folder / 'logged'
    launch = train(config, 2, work_dir, folder / 'logged.log')
    logged = ACCURACY.findall(launch.text)
    # stage 1's last and stage 2's last, which are kept
    for epoch in (4, 5):
        for ranks in (1, 2):
            test = run(
                'dist_test.sh',
                [config, work_dir / f'epoch_{epoch}.pth', ranks, '--work-dir', folder / 'test'],
                folder / 'test.log',
            )
            tested = ACCURACY.findall(test.text)[-1:]
            if tested != logged[epoch - 1 : epoch]:
                return f'epoch {epoch}: {logged[epoch - 1]}, {tested}'
    return None


def other_ranks(folder: Path) -> str | None:
    """Another number of ranks on resume is said, and the rate follows."""
    config, work_dir = write_config(folder), folder / 'other'
    kill = dict(KILL_POINT='validation', KILL_RANKS='all')
    train(config, 1, work_dir, folder / 'killed.log', environment=kill)
    launch = train(config, 2, work_dir, folder / 'other.log', '--resume', '--auto-scale-lr')
    if launch.process.returncode:
        return launch.error
    if '48' not in launch.text or '96' not in launch.text:
        return 'the other number of images per step is not said'
    return None if final_state(work_dir) else 'did not end'


def launcher_killed(folder: Path) -> str | None:
    """The ranks end within seconds after their launcher is killed."""
    work_dir = folder / 'orphans'
    launch = Launch('dist_train.sh', [DIGITS, 2, '--work-dir', work_dir], folder / 'orphans.log')
    while 'Epoch(train)' not in launch.text:
        if launch.process.poll() is not None:
            return launch.error
        time.sleep(0.2)
    os.kill(launch.process.pid, signal.SIGKILL)
    launch.wait()
    assert processes_on(work_dir)
    seconds = seconds_until_idle(work_dir, limit=30)
    return 'they live on for 30 s' if seconds is None else None


CHECKS = {
    'logged accuracy': logged_accuracy,
    'another number of ranks': other_ranks,
    'two nodes of two': two_nodes,
    'launcher killed': launcher_killed,
    'eight processes': eight_processes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--checks', nargs='+', default=list(CHECKS), choices=list(CHECKS))
    args = parser.parse_args()
    table = Table(24)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.checks:
            table.add(name, problem=CHECKS[name](Path(folder)))
    return table.end()


if __name__ == '__main__':
    sys.exit(main())
