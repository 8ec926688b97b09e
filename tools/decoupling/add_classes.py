"""Add classes to a trained model from a few images of each, without training."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config
from mmpretrain.registry import DATASETS, METRICS

from ride_mm.analysis import decoupling
from ride_mm.datasets import LongTailList
from ride_mm.datasets.class_counts import stated_counts
from ride_mm.engine import launch
from ride_mm.engine.config import innermost_dataset, is_ride, load_config, type_name
from ride_mm.engine.posthoc import (
    build_test_loader,
    checkpoint_parser,
    load_runner,
    write_checkpoint,
)
from ride_mm.evaluation.class_group_metric import ClassGroupMetric
from ride_mm.utils.errors import UserError, name_some, run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/decoupling/add_classes.py CONFIG CHECKPOINT new_photos \\
      --out work_dirs/grown.pth --out-config grown.py
  python tools/test.py grown.py work_dirs/grown.pth

new_photos has a folder of images for each new class. Experts, router and the
weights of the old classes are kept. CONFIG needs cosine classifiers, and its
test set has to be a LongTailList.
"""
_LOADERS = ('val_dataloader', 'test_dataloader')
_EVALUATORS = ('val_evaluator', 'test_evaluator')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = checkpoint_parser(__doc__, EXAMPLE)
    parser.add_argument('images', help='folder with one folder per new class')
    parser.add_argument(
        '--out-config', metavar='FILE', required=True, help='config to write with all classes (.py)'
    )
    parser.add_argument(
        '--scale',
        type=float,
        default=0.85,
        metavar='X',
        help='factor on the logits of the new classes: a larger one finds more of them, and '
        'mistakes more of the old ones for them (default: 0.85)',
    )
    args = parser.parse_args(argv)
    if not 0 < args.scale <= 2:
        parser.error(f'--scale {args.scale:g} must be above 0, at most 2')
    return args


def check_config(cfg: Config) -> None:
    """Check that classes can be added to the model and the datasets of a config.

    Raises:
        UserError: If they cannot.
    """
    if not is_ride(cfg):
        raise UserError(f'expected model.type="RIDEClassifier", found "{type_name(cfg.model)}"')
    test_cfg = cfg.model.get('test_cfg') or {}
    for option in ('logit_adjustment', 'prior'):
        if test_cfg.get(option):
            raise UserError(
                f'model.test_cfg.{option} has a term for each of the old classes, and none that '
                'suits a new one: leave it out'
            )
    for name in _LOADERS:
        dataset = innermost_dataset(cfg.get(name))
        if dataset and DATASETS.get(dataset.type) is not LongTailList:
            raise UserError(
                f'{name}.dataset is a {dataset.type}, whose classes are fixed, expected a '
                'LongTailList'
            )


def add_to_config(cfg: Config, classes: Sequence[str], counts: Sequence[int]) -> None:
    """Give model, validation and test set more classes.

    Args:
        cfg (Config): The config, changed in place. What it trains on is kept.
        classes (Sequence[str]): Names of all K classes.
        counts (Sequence[int]): Their training images, (K, ).
    """
    num_classes = len(classes)
    cfg.model.head.update(num_classes=num_classes, learn_scales=True)
    for name in _LOADERS:
        dataset = innermost_dataset(cfg.get(name))
        if dataset:
            dataset.update(
                classes=list(classes), class_counts=list(counts), num_classes=num_classes
            )
    for name in _EVALUATORS:
        found = cfg.get(name) or []
        for metric in found if isinstance(found, (list, tuple)) else [found]:
            if issubclass(METRICS.get(metric.type), ClassGroupMetric):
                metric.class_counts = list(counts)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    launch.check_output_file(args.out, ('.pth',))
    launch.check_output_file(args.out_config, ('.py',), '--out-config')
    runner = load_runner(args, check=check_config)
    model, meta = runner.model, runner.test_dataloader.dataset.metainfo
    loader = build_test_loader(runner, dict(type='LongTailList', data_root=args.images), files=True)
    new = loader.dataset.metainfo
    old = list(map(str, meta.get('classes') or range(model.head.num_classes)))
    known = [name for name in new['classes'] if name in old]
    if known:
        raise UserError(f'{args.images}: the model has the classes {name_some(known)} already')

    means = decoupling.nearest_class_means(model, loader, len(new['classes']), unit=True)
    had_sets = model.head.set_thresholds is not None
    decoupling.add_classes_(model, means, args.scale)
    classes = [*old, *new['classes']]
    counts = [*stated_counts(runner.test_dataloader.dataset), *new['class_counts']]
    cfg = load_config(args.config, args.cfg_options)
    add_to_config(cfg, classes, counts)
    write_checkpoint(
        model, args.out, without=('head.losses.',), dataset_meta=dict(classes=tuple(classes))
    )
    write_file(args.out_config, cfg.pretty_text)
    print(args.out_config)
    added = [f'{name} ({count})' for name, count in zip(new['classes'], new['class_counts'])]
    print(f'{len(classes)} classes. New, with their images: {name_some(added)}.')
    if had_sets:
        print('The prediction sets hold for the old classes and are removed: fit them again.')


if __name__ == '__main__':
    run_tool(main)
