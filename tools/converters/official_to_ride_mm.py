"""Convert a checkpoint of the official RIDE code.

The network is inferred from the weights alone: nothing in the file is imported
or executed, and every weight is used exactly once.
"""

import argparse
import os
from collections.abc import Sequence

import rich
from official_config import config_text
from official_format import about, read_official, to_ours
from outputs import check_outputs, checkpoint_bytes, facts_table

from ride_mm.utils.errors import run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/converters/official_to_ride_mm.py checkpoint-epoch5.pth \\
      work_dirs/official/r32.pth --config-out work_dirs/official/r32.py
  python tools/test.py work_dirs/official/r32.py work_dirs/official/r32.pth
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='checkpoint of the official code')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--config-out',
        metavar='CONFIG',
        help='also write a config for tools/test.py and tools/train.py',
    )
    parser.add_argument('--overwrite', action='store_true', help='overwrite existing files')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    outputs = [args.dst] + ([args.config_out] if args.config_out else [])
    check_outputs(outputs, args.overwrite)
    with about(args.src):
        found = read_official(args.src)
        network, state = to_ours(found.state)
    name = os.path.basename(args.src)
    contents = {args.dst: checkpoint_bytes(dict(meta=dict(converted_from=name), state_dict=state))}
    if args.config_out:
        title = f'{network.title}, converted from {name!r}.'
        text = config_text(network, args.dst, args.config_out, title)
        contents[args.config_out] = text.encode()
    facts = network.facts()
    if found.epoch is not None:
        facts.append(('saved after epoch', str(found.epoch)))
    facts.append(('weights', f'{len(found.state)}, each used once'))
    facts += [('note', note) for note in found.notes]
    rich.print(facts_table(args.src, facts))
    for path, content in contents.items():
        write_file(path, content)
    print('wrote ' + ' and '.join(outputs))


if __name__ == '__main__':
    run_tool(main)
