"""Train onto disks of many sizes that run full, make room, and resume.

    sudo python tests/stress/full_disk.py [--sizes 16]

Mounts tmpfs, so that it needs root and Linux. Each run must end with one line
that names the file, leave nothing half-written, and, with room and
``--resume``, end as a run on a large disk, to the last bit.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from launches import Table, difference, final_state, train, write_config


def mount(folder: Path, kib: int, *options: str) -> None:
    settings = ','.join([f'size={kib}k', *options])
    subprocess.run(['mount', '-t', 'tmpfs', '-o', settings, 'tmpfs', folder], check=True)


def problem_of(config: Path, work_dir: Path, kib: int, folder: Path, expected: dict) -> str | None:
    """Fill one disk; what is wrong, or None."""
    launch = train(config, 1, work_dir, folder / 'full.log')
    if launch.process.returncode == 0:
        return 'the disk did not run full'
    if 'Traceback' in launch.text:
        return f'a trace: {launch.error}'
    if 'No space left' not in launch.error:
        return f'said: {launch.error}'
    if list(work_dir.glob('.*tmp')):
        return 'a temporary file is left'
    mount(work_dir, 64 * 1024, 'remount')
    resumed = train(config, 1, work_dir, folder / 'resumed.log', '--resume')
    if resumed.process.returncode:
        return f'resume failed: {resumed.error}'
    where = difference(expected, final_state(work_dir))
    return where and f'differs: {where}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--sizes', type=int, default=16)
    args = parser.parse_args()
    table = Table(12)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder)
        whole = folder / 'whole'
        train(config, 1, whole, folder / 'whole.log')
        expected = final_state(whole)
        used = sum(path.stat().st_size for path in whole.rglob('*'))
        # from hardly a config to one checkpoint less than there must be
        for i in range(args.sizes):
            kib = 16 + used * i // args.sizes // 1024
            work_dir = folder / f'disk_{i}'
            work_dir.mkdir()
            mount(work_dir, kib)
            try:
                problem = problem_of(config, work_dir, kib, folder, expected)
                table.add(f'{kib} KiB', problem=problem)
            finally:
                subprocess.run(['umount', '-l', work_dir], check=True)
    return table.end()


if __name__ == '__main__':
    sys.exit(main())
