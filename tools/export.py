"""Export a trained model: ONNX graphs and a program that needs no PyTorch."""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec

from mmpretrain import get_model

from ride_mm.deploy.bundle import names_of, write_bundle
from ride_mm.engine.config import add_cfg_options, is_ride, load_config, positive
from ride_mm.engine.launch import find_checkpoint
from ride_mm.engine.occurrence import add_occurrence_options, class_prior
from ride_mm.utils.errors import UserError, run_tool

PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')
EXAMPLE = """example:
  python tools/export.py CONFIG CHECKPOINT work_dirs/bundle
  python work_dirs/bundle/predict.py PHOTOS --out photos.csv

The second command needs numpy, opencv-python and onnxruntime, nothing else of
this environment. The first one needs pip install 'ride_mm[export]'.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config of the model')
    parser.add_argument('checkpoint', help='its checkpoint, or the work_dir that holds it')
    parser.add_argument('out', help='folder to write, a new one')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=positive,
        metavar=('H', 'W'),
        help='height and width of the input (default: those of the test pipeline or, if it has '
        'none, of the first test image)',
    )
    parser.add_argument(
        '--torch-export', action='store_true', help='write the parts also as programs of PyTorch'
    )
    parser.add_argument(
        '--int8',
        nargs='?',
        type=positive,
        const=512,
        default=0,
        metavar='N',
        help='quantize the convolutions, by the activations on N training images (default: 512)',
    )
    add_occurrence_options(parser)
    add_cfg_options(parser, 'override settings of the config')
    return parser.parse_args(argv)


def check_packages() -> None:
    """Name the packages that are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"the export needs {', '.join(missing)}: pip install 'ride_mm[export]', or "
            f'pip install {" ".join(missing)}'
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_packages()
    cfg = load_config(args.config, args.cfg_options)
    if not is_ride(cfg):
        raise UserError(f'{args.config}: only the experts of a RIDEClassifier can be exported')
    cfg.model.teacher = None
    model = get_model(cfg, pretrained=find_checkpoint(args.checkpoint), device='cpu')
    names = names_of(model)
    model.test_cfg['prior'] = (
        class_prior(names, args.classes, args.prior, model.head.class_counts)
        or model.test_cfg['prior']
    )
    manifest = write_bundle(model, cfg, args.out, args.shape, args.torch_export, args.int8)
    graphs = ', '.join(part['file'] for part in manifest['parts'])
    if args.int8:
        int8 = manifest['int8']
        print(
            f'int8: of {int8["images"]} training images, {int8["same_class"]:.1%} keep their class '
            f'and {int8["same_experts"]:.1%} their number of experts'
        )
    print(f'{args.out}: {graphs} (opset {manifest["opset"]}), manifest.json, predict.py')


if __name__ == '__main__':
    run_tool(main)
