"""Look at a model: a web page that shows which experts an image was given to."""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ride_mm.analysis.taxonomy import read_taxonomy
from ride_mm.deploy.demo import BundleSource, TorchSource, build_page
from ride_mm.engine.config import add_cfg_options, is_ride, load_config
from ride_mm.engine.launch import find_checkpoint
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/demo.py CONFIG CHECKPOINT
  python tools/demo.py BUNDLE --taxonomy taxonomy.csv --confidence 0.8

BUNDLE is a folder of tools/export.py. The page needs pip install 'ride_mm[demo]';
it sends nothing to anybody.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='the config of a model, or a bundle')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint, or the work_dir of it')
    parser.add_argument(
        '--taxonomy', metavar='FILE', help='answer also at a rank of this table (.csv)'
    )
    parser.add_argument(
        '--confidence',
        type=float,
        default=0.8,
        metavar='P',
        help='probability that an answer at a rank needs (default: 0.8)',
    )
    parser.add_argument('--host', default='127.0.0.1', help='address (default: this machine only)')
    parser.add_argument('--port', type=int, help='port (default: the first free one from 7860)')
    add_cfg_options(parser, 'override settings of the config')
    return parser.parse_args(argv)


def load_source(args: argparse.Namespace) -> TorchSource | BundleSource:
    """Load the model or the bundle that the arguments name."""
    if args.checkpoint is None:
        if not Path(args.model, 'manifest.json').is_file():
            raise UserError(
                f'{args.model}: expected a bundle of tools/export.py, or a config and a checkpoint'
            )
        if find_spec('onnxruntime') is None:
            raise UserError('a bundle needs onnxruntime: pip install onnxruntime')
        return BundleSource(args.model)
    cfg = load_config(args.model, args.cfg_options)
    if not is_ride(cfg):
        raise UserError(f'{args.model}: the demo shows the experts of a RIDEClassifier')
    cfg.model.teacher = None
    return TorchSource(cfg, find_checkpoint(args.checkpoint))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if find_spec('gradio') is None:
        raise UserError("the demo needs gradio: pip install 'ride_mm[demo]', or pip install gradio")
    source = load_source(args)
    taxonomy = read_taxonomy(args.taxonomy, source.classes) if args.taxonomy else None
    page = build_page(source, Path(args.model.split('::')[-1]).stem, taxonomy, args.confidence)
    page.launch(server_name=args.host, server_port=args.port)


if __name__ == '__main__':
    run_tool(main)
