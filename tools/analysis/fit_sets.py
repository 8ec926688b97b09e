"""Fit sets of labels that hold the true one with a stated probability."""

import argparse
from collections.abc import Sequence

import numpy as np

from ride_mm.analysis import set_thresholds, sets_of
from ride_mm.analysis.calibration.validation import validation_outputs
from ride_mm.engine import launch
from ride_mm.engine.posthoc import checkpoint_parser, write_checkpoint
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/analysis/fit_sets.py CONFIG CHECKPOINT --coverage 0.9 \\
      --out work_dirs/sets.pth
  python tools/test.py CONFIG work_dirs/sets.pth --out work_dirs/sets.npz
  python tools/analysis/summarize.py CONFIG work_dirs/sets.npz

The images of val_dataloader are used, which must not be the test set; without
a validation set, use dict(type='HoldOut') for training and here. The new
checkpoint predicts the same classes, and gives each image a set.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = checkpoint_parser(__doc__, EXAMPLE)
    parser.add_argument(
        '--coverage',
        type=float,
        default=0.9,
        metavar='P',
        help='probability that the set of a new image holds its label, in each class group '
        '(default: 0.9)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    launch.check_output_file(args.out, ('.pth',))
    model, logits, labels, groups = validation_outputs(args)
    scores = model.head.scores(logits).numpy()
    thresholds = set_thresholds(scores, labels.numpy(), groups, args.coverage)
    sizes = sets_of(scores, thresholds).sum(1)
    rows = [
        [
            groups.titles[name],
            str(np.count_nonzero(images)),
            f'{thresholds[groups.masks[name]][0]:.4f}' if name in groups.masks else '',
            f'{sizes[images].mean():.2f}',
        ]
        for name, images in groups.of_images(labels.numpy()).items()
    ]
    title = f'Sets that hold the label with a probability of {args.coverage:g}'
    print_tables(build_table(title, ['', 'images', 'smallest score', 'labels in a set'], rows))
    model.head.set_prediction_sets(thresholds.tolist(), model.set_settings)
    write_checkpoint(model, args.out, coverage=args.coverage)


if __name__ == '__main__':
    run_tool(main)
