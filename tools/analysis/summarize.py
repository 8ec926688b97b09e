"""Summarize the predictions of a test run by class size and by expert."""

import argparse
from collections.abc import Sequence

from ride_mm.analysis import summarize_file
from ride_mm.engine.config import add_cfg_options
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/test.py configs/ride_r32_cifar100_lt.py CHECKPOINT \\
      --out work_dirs/predictions.npz
  python tools/analysis/summarize.py configs/ride_r32_cifar100_lt.py \\
      work_dirs/predictions.npz --json work_dirs/summary.json
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config of the test run')
    parser.add_argument('predictions', help='the file that tools/test.py --out wrote (.npz)')
    parser.add_argument('--out-dir', help='folder for the plots (default: that of the predictions)')
    parser.add_argument('--json', help='file to write the figures to')
    parser.add_argument(
        '--model-prior',
        choices=['uniform', 'training'],
        help='class frequencies that the model assumes: "training" after '
        'plain cross entropy, "uniform" after a loss that compensates for '
        'them; adds the accuracy on shifted test sets whose frequencies are '
        'known',
    )
    add_cfg_options(
        parser,
        'override settings of the config in addition to those of the test, '
        'such as test_dataloader.dataset.data_root=DIR',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    summarize_file(
        args.config, args.predictions, args.out_dir, args.json, args.model_prior, args.cfg_options
    )


if __name__ == '__main__':
    run_tool(main)
