"""Measure multiply-accumulates and parameters of a network, part by part.

The parts are the trunk, tail and classifier of each expert, and the router; for
other image classifiers of MMPretrain, backbone, neck and head. With the shares
of images by number of experts used, also the expected compute of an image.
"""

import argparse
from collections.abc import Sequence

from ride_mm.analysis import report_compute
from ride_mm.analysis.routing.architecture import draw_architecture
from ride_mm.engine.config import add_cfg_options
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/analysis/get_flops.py configs/ride_r32_cifar100_lt.py
  python tools/test.py configs/ride_r32_cifar100_lt.py CHECKPOINT \\
      --out work_dirs/predictions.npz
  python tools/analysis/get_flops.py configs/ride_r32_cifar100_lt.py \\
      --predictions work_dirs/predictions.npz --json work_dirs/flops.json

Multiply-accumulates (MACs) of convolutions and matrix products are counted,
which papers call FLOPs. The RIDE paper adds two per BatchNorm output: with
--batch-norm and --usage 40.99,9.47,49.54 the first config gives its 77.84 M.
"""


def percentages(text: str) -> list[float]:
    return [float(share) for share in text.split(',')]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar=('H', 'W'),
        help='height and width of an image (default: the training size of the config)',
    )
    usage = parser.add_mutually_exclusive_group()
    usage.add_argument(
        '--usage',
        type=percentages,
        metavar='P1,P2,...',
        help='percent of the images that use exactly 1, 2, ... experts',
    )
    usage.add_argument(
        '--predictions',
        metavar='FILE',
        help='take --usage from the output of tools/test.py --out (.npz)',
    )
    parser.add_argument(
        '--batch-norm',
        action='store_true',
        help='count 2 MACs per BatchNorm output, as the paper does (default: none, because '
        'BatchNorm can be fused into the preceding convolution)',
    )
    add_cfg_options(parser, 'override settings of the config, such as model.num_experts=4')
    parser.add_argument('--json', metavar='FILE', help='JSON file to write the figures to')
    parser.add_argument(
        '--plot', metavar='FILE', help='plot of the compute by experts used (.png, .svg, .pdf)'
    )
    parser.add_argument(
        '--diagram', metavar='FILE', help='drawing of the network (.png, .svg, .pdf)'
    )
    args = parser.parse_args(argv)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape {args.shape}: expected H or H W, both at least 1')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # One number is both height and width.
    shape = args.shape and (args.shape[0], args.shape[-1])
    report_compute(
        args.config,
        shape,
        args.usage,
        args.predictions,
        args.batch_norm,
        args.cfg_options,
        args.json,
        args.plot,
    )
    if args.diagram:
        draw_architecture(args.config, args.diagram, shape, args.cfg_options)


if __name__ == '__main__':
    run_tool(main)
