"""Write a report of a trained model as one self-contained HTML page."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ride_mm.analysis import write_report
from ride_mm.engine import launch
from ride_mm.engine.config import add_cfg_options
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/train.py configs/ride_r32_cifar100_lt.py --work-dir work_dirs/r
  python tools/test.py work_dirs/r/ride_r32_cifar100_lt.py \\
      work_dirs/r/epoch_205.pth --all-experts \\
      --out work_dirs/r/predictions.npz
  python tools/analysis/report.py work_dirs/r -o report.html \\
      --config configs/ride_r32_cifar100_lt.py
"""


def image_count(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError('expected a number of 0 or more')
    return int(text)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'run', help='the work_dir of a training that contains predictions, or a predictions file'
    )
    parser.add_argument(
        '-o',
        '--out',
        metavar='FILE',
        help='the page to write (.html; default: report.html in the work_dir, or beside the '
        'predictions)',
    )
    parser.add_argument(
        '--predictions',
        metavar='FILE',
        help='output of tools/test.py --all-experts --out (default: WORK_DIR/predictions.npz)',
    )
    parser.add_argument(
        '--images',
        type=image_count,
        default=12,
        metavar='N',
        help='how many of the hardest images to show (default: 12)',
    )
    parser.add_argument(
        '--config',
        metavar='FILE',
        help='the config of the test, needed to show the images and the settings; a config is '
        'Python code, and only this one is executed (default: no images)',
    )
    add_cfg_options(parser, 'override settings of the config')
    parser.add_argument(
        '--figures', metavar='DIR', help='folder to also write the plots to, as SVG and PNG'
    )
    parser.add_argument('--json', metavar='FILE', help='JSON file to write the figures to')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    run = Path(args.run)
    args.out = args.out or str((run if run.is_dir() else run.parent) / 'report.html')
    launch.check_output_file(args.out, ('.html',))
    if args.json:
        launch.check_output_file(args.json, ('.json',), '--json')
    command = ['python', 'tools/analysis/report.py']
    command += sys.argv[1:] if argv is None else argv
    notes = write_report(
        args.run,
        args.out,
        args.predictions,
        args.figures,
        args.json,
        args.images,
        shlex.join(command),
        args.config,
        args.cfg_options,
    )
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    for path in filter(None, (args.out, args.figures, args.json)):
        print(path)


if __name__ == '__main__':
    run_tool(main)
