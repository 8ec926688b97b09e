"""Train and test configs with several seeds, and show the means over seeds."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from ride_mm.analysis.comparison.seeds import seeds_table
from ride_mm.engine import launch
from ride_mm.engine.config import add_cfg_options, key_value, positive, warn
from ride_mm.engine.config_changes import DATA_ACCESS
from ride_mm.engine.schedule import load_training
from ride_mm.engine.sweep import complete, make_here, make_on_cluster, prepare_runs, shared_starts
from ride_mm.utils.config_names import config_file
from ride_mm.utils.errors import UserError, run_tool

TOOLS = Path(__file__).resolve().parent
EXAMPLE = """example:
  python tools/sweep.py configs/baselines/ce_r32_cifar100_lt.py \\
      configs/ride_r32_cifar100_lt.py --seeds 3 --epochs 40

Repeat the command to continue: complete runs are skipped, interrupted ones are
resumed. A larger --seeds adds runs to the existing ones. Each run writes its
log, its last checkpoint and predictions.npz to WORK_DIR/NAME/seed_0, and its
figures to WORK_DIR/NAME_seed0.json.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='+', help='the configs to train')
    parser.add_argument(
        '--seeds',
        type=positive,
        default=3,
        metavar='N',
        help='runs of each config, with seeds 0 to N - 1 (default: 3)',
    )
    parser.add_argument('--epochs', type=positive, metavar='N', help='as in tools/train.py')
    parser.add_argument('--stage', choices=['experts', 'router'], help='as in tools/train.py')
    parser.add_argument('--amp', action='store_true', help='as in tools/train.py')
    parser.add_argument(
        '--resample',
        action='store_true',
        help='sample a separate training set for each run, for tools/analysis/bias_variance.py',
    )
    parser.add_argument(
        '--jobs',
        type=positive,
        metavar='N',
        help='parallel runs (default: one per GPU or, without GPUs, one per core and 2 GiB of '
        'memory)',
    )
    parser.add_argument(
        '--slurm',
        nargs='+',
        type=key_value,
        metavar='KEY=VALUE',
        help='submit each run as a Slurm job, with these submitit parameters, '
        'such as slurm_partition=gpu gpus_per_node=1 timeout_min=600',
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/sweep',
        metavar='DIR',
        help='folder of all runs (default: %(default)s)',
    )
    add_cfg_options(parser, 'override settings of all configs')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    folder, runs, command = Path(args.work_dir), [], command_of(args)
    for path in args.config:
        name = Path(config_file(path)).stem
        if any(run.name == name for run in runs):
            raise UserError(f'two configs are named {name} and would share a folder: rename one')
        cfg = load_training(path, args.cfg_options, args.epochs, args.stage)
        if args.amp:
            launch.enable_amp(cfg)
        if args.resample:
            for start in shared_starts(cfg):
                warn(
                    f'all runs of {path} share {start}: they are independent only if it was '
                    'not trained on these images'
                )
        runs += prepare_runs(name, cfg, folder, range(args.seeds), command, TOOLS, args.resample)
    make = partial(make_here, jobs=args.jobs)
    if args.slurm:
        pairs = dict(pair.split('=', 1) for pair in args.slurm)
        parameters = {key: int(text) if text.isdigit() else text for key, text in pairs.items()}
        make = partial(make_on_cluster, folder=folder / 'slurm', parameters=parameters)
    console = Console(width=None if sys.stdout.isatty() else 1000)
    with console.status(_state(runs)) as status:
        for run, error in complete(runs, make):
            console.print(f'{run.folder} {"failed" if error else "is done"}')
            status.update(_state(runs))
    console.print(seeds_table([run.result for run in runs]))


def command_of(args: argparse.Namespace) -> str:
    """The command without options that do not affect the figures."""
    words = ['python', 'tools/sweep.py', *args.config]
    for name in ('seeds', 'epochs', 'stage'):
        value = getattr(args, name)
        words += [f'--{name}', str(value)] if value else []
    words += [f'--{name}' for name in ('amp', 'resample') if getattr(args, name)]
    options = [
        f'{key}={value}'
        for key, value in (args.cfg_options or {}).items()
        if not DATA_ACCESS.fullmatch(key)
    ]
    words += ['--cfg-options', *options] if options else []
    return shlex.join(words)


def _state(runs) -> str:
    done = sum(run.result.exists() for run in runs)
    return f'{done} of {len(runs)} runs are complete'


if __name__ == '__main__':
    run_tool(main)
