"""Convert a checkpoint of ride_mm for the official RIDE code.

An untrained router is left out.
"""

import argparse
import json
from collections.abc import Sequence

import rich
from official_format import about, read_ours, to_official
from outputs import check_outputs, checkpoint_bytes, facts_table

from ride_mm.utils.errors import run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/converters/ride_mm_to_official.py \\
      work_dirs/ride_r32_cifar100_lt/epoch_205.pth saved/r32/model.pth

The official test.py also reads config.json beside the checkpoint: copy the most
similar one of its configs/, and set the printed "arch" and "n_gpu": 1.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='checkpoint of ride_mm')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument('--overwrite', action='store_true', help='overwrite an existing file')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_outputs([args.dst], args.overwrite)
    with about(args.src):
        network, state = to_official(read_ours(args.src))
        settings = network.official_settings()
    checkpoint = network.official_checkpoint(state)
    rich.print(facts_table(args.src, network.facts()))
    write_file(args.dst, checkpoint_bytes(checkpoint))
    print(f'wrote {args.dst}; the official config needs {json.dumps(settings, indent=2)}')


if __name__ == '__main__':
    run_tool(main)
