import math
from typing import Iterator, Optional, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ride_mm.utils.errors import UserError
from ..class_counts import get_labels


class LabelSampler(Sampler):
    """Base of the samplers that choose images by their label.

    The images of an epoch follow from (seed, epoch) alone: they are the same
    after a resume, for any number of workers, and on every rank, which takes
    each ``world_size``-th of them. The last ones are filled up with the first
    ones where they do not divide evenly.

    Args:
        dataset (Sized): A dataset or dataset wrapper that
            :func:`~ride_mm.datasets.class_counts.get_labels` knows.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks agree on.

    Raises:
        UserError: If the dataset is empty.
    """

    def __init__(self, dataset: Sized, seed: Optional[int] = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

        labels = get_labels(dataset)
        if len(labels) == 0:
            raise UserError(f'{type(self).__name__}: the dataset is empty')
        # Image indices class after class, for classes that have images.
        self.images = np.argsort(labels, kind='stable')
        _, self.starts, self.counts = np.unique(
            labels[self.images], return_index=True, return_counts=True)
        self.epoch_size = len(labels)

    def draw(self) -> np.ndarray:
        """Choose the images of the current epoch, for all ranks.

        Returns:
            np.ndarray: Image indices, shape (epoch_size, ).
        """
        raise NotImplementedError

    def rng(self, epoch: int) -> np.random.Generator:
        """Get the random generator of an epoch.

        Args:
            epoch (int): The epoch, from 0.

        Returns:
            np.random.Generator: A new generator.
        """
        return np.random.default_rng((self.seed, epoch))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the image indices of this rank."""
        indices = np.resize(self.draw(), len(self) * self.world_size)
        return iter(indices[self.rank::self.world_size].tolist())

    def __len__(self) -> int:
        """The number of images of this rank in an epoch."""
        return math.ceil(self.epoch_size / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws.

        Args:
            epoch (int): The epoch, from 0.
        """
        self.epoch = epoch
