"""Compare methods over their seeds and the test images."""

import argparse
from collections.abc import Sequence

from ride_mm.analysis import compare_files
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/test.py CONFIG CHECKPOINT --out ride_seed0.npz  # and so on
  python tools/analysis/compare.py \\
      CE=ce_seed0.npz CE=ce_seed1.npz CE=ce_seed2.npz \\
      RIDE=ride_seed0.npz RIDE=ride_seed1.npz RIDE=ride_seed2.npz \\
      --plot compare.png --json compare.json
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help='a file that tools/test.py --out wrote (.npz), or METHOD=FILE; '
        'runs of one method are its seeds, and the other methods are compared '
        'with the first (default: one method per config and options)',
    )
    parser.add_argument(
        '--resamples', type=int, default=2000, help='number of bootstrap resamples (default: 2000)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of the bootstrap (default: 0)'
    )
    parser.add_argument('--plot', metavar='FILE', help='plot to write (.png, .svg, .pdf)')
    parser.add_argument('--json', metavar='FILE', help='file to write the figures to (.json)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    compare_files(args.runs, args.resamples, args.seed, args.plot, args.json)


if __name__ == '__main__':
    run_tool(main)
