"""Run one of MMPretrain's own tools on configs and checkpoints of ride_mm.

What `mim run mmpretrain NAME` does, without mim. ride_mm is imported first,
and where a newer package has broken a tool, it is mended for this run.
docs/mmpretrain_tools.md shows each tool.
"""

import argparse
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from unittest.mock import patch

import mmpretrain
import torch
import yaml
from mmengine.fileio.handlers import YamlHandler

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.utils.errors import UserError, nearest, run_tool

EXAMPLE = """example:
  python tools/mmpretrain_tool.py confusion_matrix \\
      configs/ride_r32_cifar100_lt.py CHECKPOINT --show-path confusion.png
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', help='the tool, such as analyze_logs')
    parser.add_argument('args', nargs=argparse.REMAINDER, help='its arguments (--help lists them)')
    return parser.parse_args(argv)


def find_tools() -> dict[str, Path]:
    """The tools that were installed with MMPretrain, by name."""
    folder = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
    return {path.stem: path for path in folder.rglob('*.py')}


def find_tool(name: str) -> Path:
    """Where a tool is.

    Raises:
        UserError: If MMPretrain has no such tool, or was installed without
            its tools.
    """
    tools = find_tools()
    if not tools:
        raise UserError(
            'mmpretrain was installed without its tools: install '
            'it from a wheel (`pip install mmpretrain`)'
        )
    if name not in tools:
        raise UserError(f'mmpretrain has no tool {name!r}.{nearest(name, tools)}')
    return tools[name]


def mend_adjust_bbox() -> AbstractContextManager:
    """matplotlib 3.11 asks for a renderer, which browse_dataset lacks."""
    from matplotlib import _tight_bbox

    adjust = _tight_bbox.adjust_bbox
    if 'renderer' not in signature(adjust).parameters:
        return nullcontext()
    return patch.object(
        _tight_bbox,
        'adjust_bbox',
        lambda figure, bbox: adjust(figure, bbox, figure.canvas.get_renderer()),
    )


def mend_tsne() -> AbstractContextManager:
    """scikit-learn 1.7 knows ``n_iter`` as ``max_iter`` alone."""
    from sklearn import manifold

    tsne = manifold.TSNE
    if 'max_iter' not in signature(tsne).parameters:
        return nullcontext()

    def make(n_iter: int | None = None, **options):
        if n_iter is not None:
            options['max_iter'] = n_iter
        return tsne(**options)

    return patch.object(manifold, 'TSNE', make)


def mend_torch_load() -> AbstractContextManager:
    """PyTorch 2.6 refuses what mmengine saves; ride_mm reads it safely."""
    load = torch.load

    def safe_load(path, map_location):
        with patch.object(torch, 'load', load):
            return load_checkpoint_file(path, map_location)

    return patch.object(torch, 'load', safe_load)


class PlainLoader(yaml.SafeLoader):
    """Reads the YAML that MMEngine writes, which has tuples, as data."""


PlainLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


@contextmanager
def plain_yaml(args: Sequence[str]) -> Iterator[None]:
    """Read .yaml files as data: MMEngine runs the code in them.

    Args:
        args (Sequence[str]): The arguments of the tool, for the message.

    Raises:
        UserError: If a file holds more than plain data.
    """

    def read(handler, file, **options):
        try:
            return yaml.load(file, Loader=PlainLoader)
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            names = [arg for arg in args if arg.endswith(('.yaml', '.yml'))]
            words = ' '.join(str(error).split())
            raise UserError(f'{", ".join(names)}: cannot be read as plain data: {words}') from error

    with patch.object(YamlHandler, 'load_from_fileobj', read):
        yield


MENDS = dict(browse_dataset=mend_adjust_bbox, vis_tsne=mend_tsne, publish_model=mend_torch_load)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    path = str(find_tool(args.name))
    mend = MENDS.get(args.name, nullcontext)
    with mend(), plain_yaml(args.args), patch.object(sys, 'argv', [path, *args.args]):
        runpy.run_path(path, run_name='__main__')


if __name__ == '__main__':
    run_tool(main)
