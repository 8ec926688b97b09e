"""Train a model: `python tools/train.py CONFIG`."""

import argparse
import os
from collections.abc import Sequence

from ride_mm.engine import launch
from ride_mm.engine.config import positive
from ride_mm.engine.schedule import check_warm_up, load_training
from ride_mm.utils.errors import run_tool


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Train a model', parents=[launch.common_arguments()]
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without a value, from the newest in the work_dir',
    )
    parser.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='train for N epochs in total: stages, warm-up, milestones, re-weighting, validation '
        'and checkpoints scale in proportion (default: as in the config)',
    )
    parser.add_argument(
        '--stage',
        choices=['experts', 'router'],
        help='train one stage only: the experts, or the router of the experts in load_from '
        '(default: both, as in the config)',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size of all processes',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='switch off persistent_workers in the dataloaders',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))

    cfg = load_training(args.config, args.cfg_options, args.epochs, args.stage)
    check_warm_up(cfg)
    launch.set_work_dir(cfg, args.work_dir, args.config)
    launch.set_resume(cfg, args.resume)
    launch.set_dataloader_defaults(
        cfg,
        pin_memory=False if args.no_pin_memory else None,
        persistent_workers=False if args.no_persistent_workers else None,
    )
    if args.no_validate:
        launch.disable_validation(cfg)
    if args.amp:
        launch.enable_amp(cfg)
    if args.auto_scale_lr:
        launch.enable_auto_scale_lr(cfg)
    launch.set_launcher(cfg, args.launcher)

    launch.train(cfg)


if __name__ == '__main__':
    run_tool(main)
