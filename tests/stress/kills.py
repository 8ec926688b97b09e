"""Kill trainings at every kind of point, resume them, and compare.

    python tests/stress/kills.py [--ranks 1 2] [--points 'switch' ...]

Each run is started as a user starts it, killed by SIGKILL at one point,
resumed with ``--resume``, and must end with the weights, the optimizer and the
schedules of a run that was not killed, to the last bit. With two ranks the
victim is each in turn: both ranks, rank 1 alone, the launcher.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kill_points import POINTS
from launches import EPOCHS, Table, difference, final_state, seconds_until_idle, train, write_config

VICTIMS = {1: ['all'], 2: ['all', '1', 'launcher']}
# Only rank 0 writes files: rank 1 never comes by these points.
OF_RANK_0 = (
    'half of a checkpoint',
    'checkpoint unnamed',
    'no pointer',
    'half of a pointer',
    'old one not removed',
    'checkpoint of stage 2',
)
# With RouterCacheHook, too, stage 2 is resumed.
WITH_CACHE = ('switch', 'router cache', 'step of stage 2')


def cases(ranks: int, cache: bool, points: list[str]) -> Iterator[tuple]:
    """Every point and every victim that comes by it."""
    for point in points:
        if point not in WITH_CACHE if cache else point == 'router cache':
            continue
        for victim in VICTIMS[ranks]:
            if victim != '1' or point not in OF_RANK_0:
                yield ranks, point, victim


def problem_of(case: tuple, config: Path, folder: Path, expected: dict) -> str | None:
    """Kill and resume one run; what is wrong with the end, or None."""
    ranks, point, victim = case
    work_dir = folder / 'run'
    shutil.rmtree(work_dir, ignore_errors=True)
    killed = train(
        config,
        ranks,
        work_dir,
        folder / 'killed.log',
        environment=dict(KILL_POINT=point, KILL_RANKS=victim),
    )
    if killed.process.returncode == 0:
        return 'was not killed'
    if seconds_until_idle(work_dir) is None:
        return 'ranks live on for a minute'
    log = folder / 'resumed.log'
    resumed = train(config, ranks, work_dir, log, '--resume')
    if resumed.process.returncode:
        return f'resume failed: {resumed.error}'
    state = final_state(work_dir)
    if state is None:
        return f'no epoch_{EPOCHS}.pth'
    left = sorted(path.name for path in work_dir.glob('*.pth'))
    if left != [f'epoch_{EPOCHS - 1}.pth', f'epoch_{EPOCHS}.pth']:
        return f'left behind: {", ".join(left)}'
    if list(work_dir.glob('.*tmp')):
        return 'a temporary file is left'
    where = difference(expected, state)
    return where and f'differs: {where}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--ranks', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--points', nargs='+', default=list(POINTS), choices=list(POINTS))
    args = parser.parse_args()
    table = Table(5, 26, 8, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for ranks in args.ranks:
            for cache in (False, True):
                config = write_config(folder, cache)
                whole = folder / f'whole_{ranks}_{cache}'
                train(config, ranks, whole, folder / 'whole.log')
                expected = final_state(whole)
                assert expected, (folder / 'whole.log').read_text()[-2000:]
                for case in cases(ranks, cache, args.points):
                    problem = problem_of(case, config, folder, expected)
                    table.add(*case, 'cached' if cache else '', problem=problem)
    return table.end()


if __name__ == '__main__':
    sys.exit(main())
