from collections.abc import Sized

import numpy as np

from .epoch_sampler import EpochSampler


class ReshuffledSampler(EpochSampler):
    """Goes through a small data set as often as an epoch's length asks for.

    Each pass is shuffled anew, the last one may be cut short.

    Args:
        dataset (Sized): The data set.
        epoch_size (int): Draws in an epoch, of all ranks.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks agree on.
    """

    def __init__(self, dataset: Sized, epoch_size: int, seed: int | None = None) -> None:
        super().__init__(epoch_size, seed)
        self.dataset = dataset

    def draw(self) -> np.ndarray:
        """Choose the images of the current epoch, for all ranks.

        Returns:
            np.ndarray: Image indices, shape (epoch_size, ).
        """
        rng, size = self.rng(self.epoch), len(self.dataset)
        passes = -(-self.epoch_size // size)
        shuffled = [rng.permutation(size) for _ in range(passes)]
        return np.concatenate(shuffled)[: self.epoch_size]
