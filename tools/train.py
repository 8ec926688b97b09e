"""Train a model: `python tools/train.py CONFIG`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from ride_mm.analysis import RoutingSimulator
from ride_mm.analysis.predictions import read_predictions
from ride_mm.analysis.routing.tradeoff import points_table
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine import launch
from ride_mm.engine.config import is_ride, positive
from ride_mm.engine.schedule import check_schedulers, load_training
from ride_mm.evaluation.tables import print_tables
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/train.py configs/ride_r32_cifar100_lt.py --amp --test
  python tools/train.py configs/ride_r32_cifar100_lt.py --resume
  bash tools/dist_train.sh configs/ride_r50_imagenet_lt.py 8 --epochs 41
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Train a model',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[launch.common_arguments()],
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
    parser.add_argument(
        '--test',
        action='store_true',
        help='then test the last checkpoint, with all experts; WORK_DIR/predictions.npz is for '
        'tools/analysis, such as report.py WORK_DIR',
    )
    return parser.parse_args(argv)


def test_last_checkpoint(cfg: Config, predictions: Path, verbose: bool) -> None:
    """Run ``tools/test.py`` as a process of its own, outside of the launcher."""
    folder = predictions.parent
    checkpoint = launch.find_checkpoint(str(folder))
    config = folder / Path(cfg.filename).name
    command = [sys.executable, Path(__file__).with_name('test.py'), config, checkpoint]
    command += ['--work-dir', folder, '--out', predictions]
    if is_ride(cfg):
        command.append('--all-experts')
    if verbose:
        command.append('--verbose')
    ranks = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    environment = {key: value for key, value in os.environ.items() if key not in ranks}
    code = subprocess.run([*map(str, command)], env=environment).returncode
    if code:
        sys.exit(code)
    print_routed(predictions)


def print_routed(path: Path) -> None:
    """Print accuracy and compute with all experts and with the router, if there is one."""
    predictions = read_predictions(path)
    routers = predictions.router_logits
    if routers is None or predictions.run['class_counts'] is None:
        return
    groups = ClassGroups(predictions.run['class_counts'], predictions.run['thresholds'])
    simulator = RoutingSimulator(predictions, groups)
    thresholds = {'all experts': 0.0, 'routed': 0.5}
    points = {name: simulator.at([p] * len(routers)) for name, p in thresholds.items()}
    print_tables(points_table(points))
    if (routers[0] <= 0).all():
        print(
            'The router stops every image after expert 1. If few training images need another '
            'expert, it has little to learn from: see tools/analysis/tradeoff.py on thresholds.'
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))

    cfg = load_training(args.config, args.cfg_options, args.epochs, args.stage)
    check_schedulers(cfg)
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
    predictions = Path(cfg.work_dir, 'predictions.npz')
    if args.test:
        launch.check_output_file(str(predictions), ('.npz',), '--test: the file')

    launch.train(cfg, args.verbose)
    if args.test and is_main_process():
        test_last_checkpoint(cfg, predictions, args.verbose)


if __name__ == '__main__':
    run_tool(main)
