"""Measure data pipelines: images per second, by one worker and by all.

A worker reads and augments images and makes a batch of them; normalization,
which ours leaves to the training process and the authors' code to its
workers, is counted for both. With --official, their loader of the same
training set is measured in turn.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import harness
import torch
from mmengine.runner import Runner
from mmpretrain import get_model
from official import Official, check_clone
from torch.utils.data import DataLoader
from train_step import load

from ride_mm.datasets.augmentation_seeds import seed_draws
from ride_mm.engine import launch
from ride_mm.utils.errors import run_tool

EXAMPLE = (
    'python benchmarks/data.py configs/ride_r32_cifar100_lt.py '
    '--official ../RIDE-LongTailRecognition'
)


def endless(loader: DataLoader, normalize: Callable[[Any], Any]) -> Iterator[int]:
    """Take batches for ever, and say how many images each had."""
    while True:
        for batch in loader:
            batch = normalize(batch)
            yield len(batch['inputs'] if isinstance(batch, dict) else batch[0])


def turn(batches: Iterator[int], skip: int, seconds: float) -> dict:
    """Take batches for some seconds.

    Args:
        batches (Iterator[int]): See :func:`endless`.
        skip (int): Batches at the beginning that are not counted, which may
            have been loaded before.
        seconds (float): How long.

    Returns:
        dict: ``seconds`` and ``images``.
    """
    for _ in range(1 + skip):
        next(batches)
    images = []
    begin = time.perf_counter()
    while len(images) < 2 or time.perf_counter() < begin + seconds:
        images.append(next(batches))
    return dict(seconds=time.perf_counter() - begin, images=sum(images))


def our_loader(cfg, part: str, workers: int) -> DataLoader:
    """The data loader that trains or validates."""
    options = dict(cfg[f'{part}_dataloader'], num_workers=workers)
    if not workers:
        options.update(persistent_workers=False)
        options.pop('prefetch_factor', None)
    loader = Runner.build_dataloader(options, seed=0)
    if part == 'train':
        seed_draws(loader, 0)
    return loader


def main(argv: Sequence[str] | None = None) -> None:
    args = harness.make_parser(__doc__, EXAMPLE, seconds=2).parse_args(argv)
    harness.check_arguments(args)
    cfg = load(args.config, args.cfg_options)
    launch.set_dataloader_defaults(cfg)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    preprocessor = get_model(cfg, device='cpu').data_preprocessor
    workers = cfg.train_dataloader.num_workers
    turns, patches = {}, {}

    def add(name, part, number, loader, normalize):
        batches = endless(loader, normalize)
        turns[part, number, name] = lambda: turn(batches, 2 * number, args.seconds)

    for number in sorted({0, workers}):
        for part in ('train', 'val'):
            add(
                'ours',
                part,
                number,
                our_loader(cfg, part, number),
                lambda batch, part=part: preprocessor(batch, part == 'train'),
            )
    if args.official:
        check_clone(args.official)
        code = Official(args.official, 'cpu')
        patches = code.patches
        for number in sorted({0, workers}):
            train = code.loader(cfg, num_workers=number)
            val = DataLoader(train.val_dataset, **train.init_kwargs)
            for part, loader in (('train', train), ('val', val)):
                add('official', part, number, loader, lambda batch: batch)
    found = harness.take_turns(turns, args.rounds)
    rows = []
    for (part, number, name), values in sorted(found.items()):
        others = found.get((part, number, 'official'), values)
        rows.append(
            [
                part,
                str(max(1, number)),
                name,
                harness.spread(harness.rates(values)),
                harness.spread(harness.ratios(harness.rates(values), harness.rates(others)), 2),
            ]
        )
    harness.print_table(
        f'Images, {Path(args.config).stem}: median (smallest to largest round)',
        ['part', 'workers', 'pipeline', 'images/s', 'x official'],
        rows,
    )
    harness.finish(
        args,
        patches=patches,
        turns={' '.join(map(str, key)): value for key, value in found.items()},
    )


if __name__ == '__main__':
    run_tool(main)
