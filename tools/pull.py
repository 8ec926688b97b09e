"""Get a model that tools/push.py shared, and check it."""

import argparse
from collections.abc import Sequence

from ride_mm.deploy import hub
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/pull.py hf://USER/NAME photos_model
  python tools/test.py photos_model/config.py photos_model/model.safetensors
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', help='hf://USER/NAME, hf://USER/NAME@REVISION, or a folder')
    parser.add_argument('folder', help='folder to write, a new one')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    hub.fetch(args.source, args.folder)
    print(f'{args.folder}: {hub.WEIGHTS}, {hub.CONFIG} (a program: read it), {hub.CARD}')


if __name__ == '__main__':
    run_tool(main)
