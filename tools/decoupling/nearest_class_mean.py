"""Replace the weights of cosine classifiers by the mean feature of each class."""

import argparse
from collections.abc import Sequence

from ride_mm.analysis import decoupling
from ride_mm.engine import launch
from ride_mm.engine.posthoc import (
    build_test_loader,
    checkpoint_parser,
    load_runner,
    write_checkpoint,
)
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/decoupling/nearest_class_mean.py CONFIG CHECKPOINT \\
      --out work_dirs/ncm.pth
  python tools/test.py CONFIG work_dirs/ncm.pth

CONFIG needs model.head.classifier.type="CosineClassifier"; the classifiers of
the checkpoint may be of any type.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = checkpoint_parser(__doc__, EXAMPLE)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    launch.check_output_file(args.out, ('.pth',))
    runner = load_runner(args, own_classifiers=True)
    loader = build_test_loader(runner, runner.cfg.train_dataloader.dataset)
    means = decoupling.nearest_class_means(runner.model, loader)
    for classifier, mean in zip(runner.model.head.classifiers, means):
        classifier.weight.data.copy_(mean)
    # The router was trained on other logits.
    write_checkpoint(runner.model, args.out, without=('head.router.',))


if __name__ == '__main__':
    run_tool(main)
