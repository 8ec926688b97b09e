"""Test a checkpoint: `python tools/test.py CONFIG CHECKPOINT`."""

import argparse
from collections.abc import Sequence

import mmcv.cnn
import mmengine
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults

from ride_mm.engine import launch
from ride_mm.engine.occurrence import add_occurrence_options, class_prior
from ride_mm.engine.posthoc import use_val_set
from ride_mm.engine.screen import progress_bar
from ride_mm.evaluation import DumpPredictions, describe_run
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/test.py configs/ride_r32_cifar100_lt.py \\
      work_dirs/ride_r32_cifar100_lt/epoch_205.pth --all-experts \\
      --out work_dirs/predictions.npz
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Test a checkpoint',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[launch.common_arguments()],
    )
    parser.add_argument('checkpoint', help='the checkpoint, or the work_dir that holds it')
    parser.add_argument('--out', metavar='FILE', help='write the results to a new file')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what to write: the metrics (.json, .yaml, .pkl) or the prediction for every '
        "image (default): .npz for tools/analysis, .pkl for MMPretrain's tools",
    )
    parser.add_argument(
        '--split',
        choices=['val', 'test'],
        default='test',
        help='test on the images of val_dataloader, which have to be others than those of '
        'train_dataloader and test_dataloader, or of test_dataloader (default)',
    )
    add_occurrence_options(parser)
    parser.add_argument(
        '--all-experts',
        action='store_true',
        help='run all experts on every image and keep the outputs of each expert and router, for '
        'tools/analysis',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_model and tta_pipeline, or by default the "
        'image and its mirror image',
    )
    parser.add_argument(
        '--fuse-conv-bn',
        action='store_true',
        help='fuse BatchNorm into the preceding convolutions: faster, equal up to rounding',
    )
    parser.add_argument('--show-dir', metavar='DIR', help='folder for images with predictions')
    parser.add_argument('--show', action='store_true', help='show images with predictions')
    parser.add_argument(
        '--interval', type=int, default=1, metavar='N', help='show every N-th image (default: 1)'
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long to show an image (default: 2)',
    )
    args = parser.parse_args(argv)
    if args.out_item and not args.out:
        parser.error('--out-item needs --out FILE')
    return args


def set_prior(args: argparse.Namespace, runner: launch.TestRunner) -> None:
    """Apply ``--classes`` and ``--prior``."""
    if args.classes is None and args.prior is None:
        return
    meta, model = runner.test_evaluator.dataset_meta or {}, runner.model
    while hasattr(model, 'module'):  # distributed, test-time augmentation
        model = model.module
    if not hasattr(model, 'test_cfg') or 'prior' not in model.test_cfg:
        raise UserError('--classes and --prior need model.type="RIDEClassifier"')
    names = list(map(str, meta.get('classes') or range(model.head.num_classes)))
    counts = meta.get('class_counts')
    model.test_cfg['prior'] = class_prior(names, args.classes, args.prior, counts)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    dump_metrics = args.out_item == 'metrics'

    cfg = launch.load_test(args)
    if args.split == 'val':
        use_val_set(cfg)
    if args.out:
        suffixes = ('.json', '.yaml', '.pkl') if dump_metrics else ('.npz', '.pkl')
        launch.check_output_file(args.out, suffixes)
    launch.set_dataloader_defaults(cfg, pin_memory=False if args.no_pin_memory else None)
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        launch.enable_visualization(
            cfg,
            show=args.show,
            out_dir=args.show_dir,
            interval=args.interval,
            wait_time=args.wait_time,
        )
    if args.all_experts:
        launch.enable_all_experts(cfg)
    if args.tta:
        launch.enable_tta(cfg)
    launch.set_launcher(cfg, args.launcher)

    runner = launch.build_runner(cfg, launch.TestRunner, args.verbose)
    if args.fuse_conv_bn:
        runner.load_or_resume()
        mmcv.cnn.fuse_conv_bn(runner.model)
    set_prior(args, runner)
    if args.out and not dump_metrics:
        if args.out.endswith('.pkl'):
            dump = DumpResults(args.out)
        else:
            runner.load_or_resume()  # prediction sets come with the weights
            run = describe_run(runner, args.config, args.cfg_options, cfg.load_from, args.split)
            dump = DumpPredictions(args.out, run)
        runner.test_evaluator.metrics.append(dump)
    with progress_bar(runner):
        metrics = runner.test()
    if args.out and dump_metrics and is_main_process():
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    run_tool(main)
