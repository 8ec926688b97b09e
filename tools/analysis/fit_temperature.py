"""Fit a softmax temperature on held-out images."""

import argparse
from collections.abc import Sequence

from ride_mm.analysis import fit_temperature
from ride_mm.analysis.calibration.validation import validation_outputs
from ride_mm.engine import launch
from ride_mm.engine.posthoc import checkpoint_parser, write_checkpoint
from ride_mm.evaluation import calibration, score_quality
from ride_mm.evaluation.calibration import TITLES
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/analysis/fit_temperature.py CONFIG CHECKPOINT \\
      --out work_dirs/calibrated.pth
  python tools/test.py CONFIG work_dirs/calibrated.pth

The images of val_dataloader are used, which must not be the test set; without
a validation set, use dict(type='HoldOut') for training and here. The new
checkpoint predicts the same classes.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = checkpoint_parser(__doc__, EXAMPLE)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    launch.check_output_file(args.out, ('.pth',))
    model, logits, labels, groups = validation_outputs(args)
    temperature = fit_temperature(logits, labels)

    rows = []
    for label, divisor in (('before', 1.0), (f'temperature {temperature:.4f}', temperature)):
        quality = score_quality((logits / divisor).softmax(1), labels)
        figures = calibration(quality, labels.numpy(), groups)
        rows.append([label, *(f'{figures[name]:.4f}' for name in TITLES)])
    title = f'Calibration on {len(labels)} held-out images'
    print_tables(build_table(title, ['', *TITLES.values()], rows))
    model.head.set_temperature(temperature)
    write_checkpoint(model, args.out, temperature=temperature)


if __name__ == '__main__':
    run_tool(main)
