import math
from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler


class EpochSampler(Sampler):
    """Base of samplers whose images follow from (seed, epoch) alone.

    They are the same after a resume, for any number of workers, and on every
    rank, which takes each ``world_size``-th of them. The last ones are filled
    up with the first ones where they do not divide evenly.

    Args:
        epoch_size (int): Draws in an epoch, of all ranks.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks agree on.
    """

    def __init__(self, epoch_size: int, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.epoch_size = epoch_size

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
        return iter(indices[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        """The number of images of this rank in an epoch."""
        return math.ceil(self.epoch_size / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws.

        Args:
            epoch (int): The epoch, from 0.
        """
        self.epoch = epoch
