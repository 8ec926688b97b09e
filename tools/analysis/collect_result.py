"""Keep what a training run has measured as a small JSON file."""
import argparse
from typing import Optional, Sequence

from ride_mm.analysis import collect_result, write_result
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/train.py configs/ride_r32_cifar100_lt.py --work-dir work_dirs/r
  python tools/analysis/collect_result.py work_dirs/r
  python docs/make_results.py

Run it in the folder that holds configs/, with the configs as they were for
the training: what differs from them is listed as an option.
"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', help='the work_dir of tools/train.py')
    parser.add_argument(
        '--out-dir',
        default='results',
        help='folder for the file NAME_seedSEED.json (default: results)')
    parser.add_argument(
        '--name',
        help='name of the result (default: that of the config); runs that '
        'differ only in their seed share one')
    parser.add_argument(
        '--command',
        help='command that repeats the run (default: made from the config '
        'and the options of the run)')
    parser.add_argument('--commit', help='git commit that was trained with')
    parser.add_argument(
        '--machine', help='the machine in words (default: what the log tells)')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    result = collect_result(args.work_dir, args.name, args.command,
                            args.commit, args.machine)
    print(write_result(result, args.out_dir))


if __name__ == '__main__':
    run_tool(main)
