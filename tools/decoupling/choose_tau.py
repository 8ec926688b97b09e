"""Choose tau of tau-normalization or logit adjustment on validation images."""

import argparse
from collections.abc import Sequence

import numpy as np

from ride_mm.analysis import decoupling
from ride_mm.datasets.class_counts import stated_counts
from ride_mm.datasets.class_groups import GROUPS
from ride_mm.engine import launch
from ride_mm.engine.posthoc import check_val_set, load_runner, write_checkpoint
from ride_mm.evaluation.tables import build_table, render_table
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/decoupling/choose_tau.py CONFIG CHECKPOINT tau-norm \\
      --out work_dirs/tau_norm.pth
  python tools/test.py CONFIG work_dirs/tau_norm.pth
  python tools/decoupling/choose_tau.py CONFIG CHECKPOINT logit-adjustment
  python tools/test.py CONFIG CHECKPOINT \\
      --cfg-options model.test_cfg.logit_adjustment=TAU

The images of val_dataloader are used, which must not be the test set; without
a validation set, use dict(type='HoldOut') for training and here.
"""
METHODS = ('tau-norm', 'logit-adjustment')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[launch.common_arguments()],
    )
    parser.add_argument('checkpoint', help='the checkpoint of stage 1')
    parser.add_argument('method', choices=METHODS, help='the method whose tau is chosen')
    parser.add_argument(
        '--taus',
        nargs='+',
        type=float,
        default=np.arange(0, 2.01, 0.1).round(1).tolist(),
        metavar='TAU',
        help='candidates (default: 0.0 0.1 ... 2.0)',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='checkpoint to write with the classifiers normalized (.pth)'
    )
    args = parser.parse_args(argv)
    if (args.method == 'tau-norm') != bool(args.out):
        parser.error('--out FILE is required for tau-norm, and only for tau-norm')
    return args


def figures_table(figures: dict[float, dict], best: float) -> str:
    """Render a row for each tau, with the best one marked."""
    names = [name for name in ('overall', 'balanced', *GROUPS) if name in figures[best]]
    rows = [
        [f'{tau:g}' + ' <' * (tau == best)] + [f'{values[name]:.2f}' for name in names]
        for tau, values in figures.items()
    ]
    return render_table(build_table('Accuracy by tau (%)', ['tau', *names], rows))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.out:
        launch.check_output_file(args.out, ('.pth',))
    runner = load_runner(args, check=check_val_set)
    loader = runner.val_dataloader
    counts = stated_counts(loader.dataset)
    if counts is None:
        raise UserError(
            "the validation set has no metainfo['class_counts']: use a dataset of ride_mm"
        )
    if args.method == 'tau-norm':
        predict, labels = decoupling.tau_normalization(runner.model, loader)
    else:
        predict, labels = decoupling.logit_adjustment(runner.model, loader, counts)
    tau, figures = decoupling.choose_tau(predict, labels.numpy(), counts, args.taus)
    print(figures_table(figures, tau))
    if args.out:
        decoupling.tau_normalize_(runner.model, tau)
        # The router was trained on other logits.
        write_checkpoint(runner.model, args.out, without=('head.router.',), tau=tau)
    else:
        print(f'--cfg-options model.test_cfg.logit_adjustment={tau:g}')


if __name__ == '__main__':
    run_tool(main)
