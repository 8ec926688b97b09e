"""Measure bias and variance on independently sampled training sets."""
import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from ride_mm.analysis import (ResampledRuns, compare_bias_variance,
                              prepare_config, shared_starts)
from ride_mm.analysis.plots.style import check_format
from ride_mm.engine.config import add_cfg_options, positive
from ride_mm.utils.errors import UserError, run_tool

TOOLS = Path(__file__).resolve().parents[1]
RUNS, FAST_RUNS = 20, 5
EXAMPLE = """example:
  python tools/analysis/bias_variance.py \\
      configs/baselines/ce_r32_cifar100_lt.py \\
      configs/ride_r32_cifar100_lt.py \\
      --fast --json work_dirs/bias_variance/figures.json

Runs that are there already are not made again, and a training that was
interrupted goes on: repeat the command. The test set is the whole one of the
config; a model with experts is judged as its test_cfg says. See
docs/bias_variance.md.
"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', nargs='+', help='the configs to compare with each other')
    parser.add_argument(
        '--runs',
        type=positive,
        metavar='N',
        help='training sets, and models of each config '
        f'(default: {RUNS}, as in the paper; with --fast {FAST_RUNS})')
    parser.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='epochs of a training, of its first stage where there are two; '
        'its schedule is scaled (default: as the config says)')
    parser.add_argument(
        '--fast',
        action='store_true',
        help=f'{FAST_RUNS} runs and a tenth of the epochs, where --runs and '
        '--epochs do not say otherwise')
    parser.add_argument(
        '--jobs',
        type=positive,
        metavar='N',
        help='trainings at once (default: one for each GPU or, without any, '
        'for each core)')
    parser.add_argument(
        '--work-dir',
        default='work_dirs/bias_variance',
        metavar='DIR',
        help='folder of all runs (default: %(default)s)')
    add_cfg_options(
        parser,
        'override settings of all configs, such as '
        'train_dataloader.dataset.max_count=200')
    parser.add_argument(
        '--plot',
        metavar='FILE',
        help='picture to write, .png, .svg or .pdf '
        '(default: bias_variance.png in the folder of all runs)')
    parser.add_argument(
        '--json', metavar='FILE', help='file to write the figures to')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    if args.plot:
        check_format(args.plot)
    names = [Path(path).stem for path in args.config]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{names.count(name)} configs are named {name}, '
                            'and so would be their folders: rename one.')
    num_runs = args.runs or (FAST_RUNS if args.fast else RUNS)
    all_runs = []
    for path in args.config:
        cfg, seed_key = prepare_config(path, args.cfg_options, args.epochs,
                                       args.fast)
        for start in shared_starts(cfg):
            print(
                f'warning: all runs of {path} share {start}: they are '
                'independent only if it knows nothing of these images.',
                file=sys.stderr)
        all_runs.append(
            ResampledRuns(path, cfg, seed_key, args.work_dir, num_runs))
    compare_bias_variance(all_runs, TOOLS, args.jobs, args.plot, args.json)


if __name__ == '__main__':
    run_tool(main)
