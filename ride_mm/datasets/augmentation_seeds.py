"""Randomness of augmentations that does not depend on who draws it.

mmengine seeds a worker once, from the run's seed and the worker's number:
without persistent workers every epoch repeats the augmentations of the
first, and a resumed run sees others than an uninterrupted one. Here every
draw, the n-th image of an epoch over all ranks, has a seed of its own made
from (seed, epoch, n).
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader


class Draw(int):
    """An index into a data set that carries the seed of its augmentation.

    Args:
        index (int): The index.
        seed (int): The seed, 0 <= seed < 2^32.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.seed)


def seed_everything(seed: int) -> None:
    """Seed the generators that transforms draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


class SeededDataset:
    """A data set that seeds itself by the :class:`Draw` it is asked for.

    Args:
        dataset (Dataset): Any data set; all else is handed on to it.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        # Unpickling asks for attributes before there is a data set.
        if name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Draw):
            seed_everything(index.seed)
        return self.dataset[int(index)]


class SeededBatchSampler:
    """Turns the indices of a batch sampler into draws.

    Args:
        batch_sampler (BatchSampler): Yields lists of indices; all else is
            handed on to it.
        seed (int): Seed of the run.
    """

    def __init__(self, batch_sampler: Any, seed: int) -> None:
        self.batch_sampler = batch_sampler
        self.seed = seed
        self.epoch = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch_sampler, name)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[Draw]]:
        # Samplers hand the n-th image to rank n % world_size: drawing for
        # all ranks gives an image the same seed on any number of them.
        rank, world_size = get_dist_info()
        # The 1 keeps this stream apart from that of the samplers.
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        for batch in self.batch_sampler:
            seeds = rng.integers(2**32, size=(len(batch), world_size))
            yield [Draw(index, seed) for index, seed in zip(batch, seeds[:, rank].tolist())]


def seed_draws(dataloader: DataLoader, seed: int) -> SeededBatchSampler:
    """Make a data loader seed every draw.

    Args:
        dataloader (DataLoader): A loader that has not been iterated over;
            one that is seeded already is left as it is.
        seed (int): Seed of the run.

    Returns:
        SeededBatchSampler: Its ``epoch`` is to be set before each epoch.
    """
    if not isinstance(dataloader.batch_sampler, SeededBatchSampler):
        # A DataLoader refuses assignment to these, which would come too late
        # only for workers that are running; there are none yet.
        vars(dataloader).update(
            dataset=SeededDataset(dataloader.dataset),
            batch_sampler=SeededBatchSampler(dataloader.batch_sampler, seed),
        )
    return dataloader.batch_sampler
