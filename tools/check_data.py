"""Show what is in the data of a training, and what is wrong with it."""
import argparse
import json
import os.path as osp
import sys
from functools import partial
from typing import Callable, Dict, Optional, Sequence

from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich.console import Console
from rich.progress import track

from ride_mm.datasets.check import check_splits
from ride_mm.engine import launch
from ride_mm.engine.config import add_cfg_options, load_config
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.atomic_backend import write_file
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/check_data.py my_images.py
  python tools/check_data.py data/my_images --json found.json

A folder holds train/, and val/ or test/, with a sub-folder for each class; or
the class folders themselves. All images are read. Exit code: 0 if nothing has
to be mended, 1 if something has, 2 if the data cannot be looked at.
"""
SPLITS = ('train', 'val', 'test')
NAMED = 5


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='a config, or a folder of images')
    parser.add_argument(
        '--json', metavar='FILE', help='write all that was found, .json')
    add_cfg_options(parser, 'override settings of the config')
    return parser.parse_args(argv)


def of_folder(root: str) -> Dict[str, Callable[[], object]]:
    """What builds the data sets of a folder."""
    names = [name for name in SPLITS if osp.isdir(osp.join(root, name))]
    if not names:
        options = dict(type='LongTailList', data_prefix=root)
        return dict(train=partial(DATASETS.build, options))
    return {
        name: partial(
            DATASETS.build,
            dict(
                type='LongTailList',
                data_root=root,
                data_prefix=name,
                class_counts=None if name == 'train' else 'train'))
        for name in names
    }


def of_config(path: str,
              options: Optional[dict]) -> Dict[str, Callable[[], object]]:
    """What builds the data sets of a config; equal ones once."""
    cfg = load_config(path, options)
    found = {}
    for name in SPLITS:
        dataset = (cfg.get(f'{name}_dataloader') or {}).get('dataset')
        if dataset is not None and dataset not in found.values():
            found[name] = dataset
    if not found:
        raise UserError(f'{path} has no data sets')
    return {
        name: partial(DATASETS.build, dataset)
        for name, dataset in found.items()
    }


def show(found: dict) -> None:
    """Print tables of what is there and of what was found."""
    columns = ('images', 'classes', 'largest', 'smallest', 'many', 'medium',
               'few')
    console = Console(soft_wrap=True)
    console.print(
        build_table('Training images per class, and the groups by them',
                    ('split', *columns),
                    [(split['split'],
                      *(str(split.get(column, 0)) for column in columns))
                     for split in found['splits']]))  # yapf: disable
    for finding in found['findings']:
        kind = 'ERROR' if finding['error'] else 'note'
        print(f"{kind} ({finding['split']}): {finding['what']}.")
        for place in finding['places'][:NAMED]:
            print(f'    {place}')
        if len(finding['places']) > NAMED:
            print(f"    and {len(finding['places']) - NAMED} more")
        print(f"  What to do: {finding['advice']}.")
    if not found['findings']:
        print('Nothing to mend was found.')


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    if args.json:
        launch.check_output_file(args.json, ('.json', ), '--json')
    init_default_scope('mmpretrain')
    if osp.isdir(args.data):
        datasets = of_folder(args.data)
    else:
        datasets = of_config(args.data, args.cfg_options)
    found = check_splits(
        datasets,
        partial(
            track,
            description='Reading',
            console=Console(stderr=True),
            disable=not sys.stderr.isatty()))
    show(found)
    if args.json:
        write_file(args.json, json.dumps(found, indent=1) + '\n')
    if any(finding['error'] for finding in found['findings']):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
