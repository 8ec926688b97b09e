"""Measure data pipelines: images per second, by one worker and by all.

A worker reads and augments images and makes a batch of them; normalization,
which ours leaves to the training process and the authors' code to its
workers, is counted for both. With --official, their loader of the same
training set is measured in turn.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import harness
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain import get_model
from official import Official

from ride_mm.datasets.augmentation_seeds import seed_draws
from ride_mm.engine import launch
from ride_mm.utils.errors import run_tool

EXAMPLE = (
    'python benchmarks/data.py configs/ride_r32_cifar100_lt.py '
    '--official ../RIDE-LongTailRecognition'
)


def our_batches(
    cfg: Config, part: str, workers: int, preprocess: Callable[[dict, bool], dict]
) -> Iterator[int]:
    """Load batches without an end, and give the number of images of each."""
    options = dict(cfg[f'{part}_dataloader'], num_workers=workers)
    if not workers:
        options.update(persistent_workers=False)
        options.pop('prefetch_factor', None)
    loader = Runner.build_dataloader(options, seed=0)
    if part == 'train':
        seed_draws(loader, 0)
    return harness.endless(loader, lambda batch: len(preprocess(batch, part == 'train')['inputs']))


def main(argv: Sequence[str] | None = None) -> None:
    args = harness.make_parser(__doc__, EXAMPLE, seconds=2).parse_args(argv)
    harness.check_arguments(args)
    cfg = harness.load(args.config, args.cfg_options)
    launch.set_dataloader_defaults(cfg)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    preprocess = get_model(cfg, device='cpu').data_preprocessor
    code = Official(args.official, cfg, 'cpu') if args.official else None
    turns = {}
    for part in ('train', 'val'):
        for workers in sorted({0, cfg.train_dataloader.num_workers}):
            pipelines = dict(ours=our_batches(cfg, part, workers, preprocess))
            if code:
                pipelines['official'] = code.batches(part, workers)
            for name, batches in pipelines.items():
                turns[part, workers, name] = partial(
                    harness.measure, batches, args.seconds, 2 * workers
                )
    found = harness.take_turns(turns, args.rounds)
    rows = []
    for (part, workers, name), values in found.items():
        rate = harness.rates(values)
        reference = harness.rates(found.get((part, workers, 'official'), values))
        ratio = harness.ratios(rate, reference)
        rows.append(
            [part, str(max(1, workers)), name, harness.spread(rate), harness.spread(ratio, 2)]
        )
    harness.finish(
        args,
        f'Images, {Path(args.config).stem}',
        ['part', 'workers', 'pipeline', 'images/s', 'x official'],
        rows,
        patches=code.patches if code else {},
        turns={' '.join(map(str, key)): value for key, value in found.items()},
    )


if __name__ == '__main__':
    run_tool(main)
