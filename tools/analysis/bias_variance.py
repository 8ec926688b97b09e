"""Measure bias and variance of models trained on different training sets."""

import argparse
from collections.abc import Sequence

from ride_mm.analysis import compare_bias_variance
from ride_mm.analysis.style import check_format
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/sweep.py configs/baselines/ce_r32_cifar100_lt.py \\
      configs/ride_r32_cifar100_lt.py --resample --seeds 20
  python tools/analysis/bias_variance.py work_dirs/sweep/ce_r32_cifar100_lt \\
      work_dirs/sweep/ride_r32_cifar100_lt --plot bias_variance.png

See docs/bias_variance.md.
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', nargs='+', help='folder with the runs of a config')
    parser.add_argument('--plot', metavar='FILE', help='plot to write (.png, .svg, .pdf)')
    parser.add_argument('--json', metavar='FILE', help='file to write the figures to')
    args = parser.parse_args(argv)
    if args.plot:
        check_format(args.plot)
    compare_bias_variance(args.folder, args.plot, args.json)


if __name__ == '__main__':
    run_tool(main)
