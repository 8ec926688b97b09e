"""Share a trained model: a folder with weights and config, or the Hugging Face Hub."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmpretrain import get_model

from ride_mm.analysis.predictions import read_own_predictions
from ride_mm.deploy import hub
from ride_mm.engine.config import add_cfg_options, load_config
from ride_mm.engine.launch import find_checkpoint
from ride_mm.evaluation.dump import fingerprint
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/push.py CONFIG work_dirs/photos/epoch_9.pth shared/photos
  python tools/push.py CONFIG CHECKPOINT hf://USER/NAME --predictions predictions.npz

tools/pull.py reads what this writes.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config of the model')
    parser.add_argument('checkpoint', help='its checkpoint, or the work_dir that holds it')
    parser.add_argument('target', help='a new folder, or hf://USER/NAME (see hf auth login)')
    parser.add_argument(
        '--predictions',
        metavar='FILE',
        help='predictions of this checkpoint (tools/test.py --out), for the accuracy by class '
        'group in the model card',
    )
    parser.add_argument('--private', action='store_true', help='create a private repository')
    add_cfg_options(parser, 'override settings of the config')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    checkpoint = find_checkpoint(args.checkpoint)
    predictions = None
    if args.predictions:
        predictions = read_own_predictions(args.predictions)
        if predictions.run.get('weights') != fingerprint(checkpoint):
            raise UserError(f'{args.predictions} is not of {checkpoint}')
    cfg = load_config(args.config, args.cfg_options)
    cfg.model.teacher = None
    model = get_model(cfg, pretrained=checkpoint, device='cpu')
    repository = args.target.removeprefix(hub.HUB)
    if repository == args.target:
        hub.write_model(model, cfg, args.target, Path(args.target).name, predictions)
        print(args.target)
        return
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp, 'model')
        hub.write_model(model, cfg, folder, repository, predictions)
        print(hub.upload(folder, repository, args.private))


if __name__ == '__main__':
    run_tool(main)
