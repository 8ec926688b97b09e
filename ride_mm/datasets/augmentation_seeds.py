"""Augmentation seeds that do not depend on workers, ranks or resuming.

mmengine seeds each worker once, with the run's seed and the worker's number:
without persistent workers every epoch repeats the augmentations of the first
one, and a resumed run differs from an uninterrupted one. Here, the n-th image
of an epoch (over all ranks) has its own seed, derived from (seed, epoch, n).
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader


class Draw(int):
    """A dataset index with the seed of its augmentation.

    Args:
        index (int): The index.
        seed (int): The seed, in [0, 2^32).
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.seed)


def seed_everything(seed: int) -> None:
    """Seed the random generators that transforms use."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


class SeededDataset:
    """Dataset that seeds the random generators with each :class:`Draw`.

    Args:
        dataset (Dataset): Any dataset. Its other attributes are read and set
            through this one, as hooks do that change the pipeline.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        # While unpickling, attributes are looked up before there is a dataset.
        if name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == 'dataset':
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Draw):
            seed_everything(index.seed)
        return self.dataset[int(index)]


class SeededBatchSampler:
    """Batch sampler that yields draws instead of indices.

    Args:
        batch_sampler (BatchSampler): Yields lists of indices; other
            attributes are forwarded to it.
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
        # Samplers give the n-th image to rank n % world_size: with seeds for all
        # ranks, an image has the same seed on any number of them.
        rank, world_size = get_dist_info()
        # The 1 separates this stream from that of the samplers.
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        for batch in self.batch_sampler:
            seeds = rng.integers(2**32, size=(len(batch), world_size))
            yield [Draw(index, seed) for index, seed in zip(batch, seeds[:, rank].tolist())]


def seed_draws(dataloader: DataLoader, seed: int) -> SeededBatchSampler:
    """Make a data loader seed each draw; one that already does is unchanged.

    Args:
        dataloader (DataLoader): A loader that has not been iterated over.
        seed (int): Seed of the run.

    Returns:
        SeededBatchSampler: Its batch sampler; set ``epoch`` before each
        epoch.
    """
    sampler = dataloader.batch_sampler
    if not isinstance(sampler, SeededBatchSampler):
        sampler = SeededBatchSampler(sampler, seed)
        # A DataLoader forbids assigning these attributes, because running workers
        # would not notice; there are none yet.
        vars(dataloader).update(dataset=SeededDataset(dataloader.dataset), batch_sampler=sampler)
    return sampler
