import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ride_mm.utils.errors import UserError

from ..class_counts import get_labels


class EpochSampler(Sampler):
    """Base of samplers whose draws depend on (seed, epoch) only.

    The draws are the same after a resume and for any number of workers. They
    are distributed over the ranks in turn; if they do not divide evenly, the
    first ones are repeated at the end.

    Args:
        epoch_size (int): Draws per epoch, over all ranks.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks share.
    """

    def __init__(self, epoch_size: int, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.epoch_size = epoch_size

    def draw(self) -> np.ndarray:
        """Choose the images of the current epoch, for all ranks.

        Returns:
            np.ndarray: Image indices, (epoch_size, ).
        """
        raise NotImplementedError

    def rng(self, epoch: int) -> np.random.Generator:
        """Create the random generator of an epoch, counted from 0."""
        return np.random.default_rng((self.seed, epoch))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the image indices of this rank."""
        indices = np.resize(self.draw(), len(self) * self.world_size)
        return iter(indices[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        """The number of draws of this rank per epoch."""
        return math.ceil(self.epoch_size / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, counted from 0."""
        self.epoch = epoch


class LabelSampler(EpochSampler):
    """Base of samplers that choose images by their label.

    An epoch has as many draws as the dataset has images.

    Args:
        dataset (Sized): A dataset or dataset wrapper, see
            :func:`~ride_mm.datasets.class_counts.get_labels`.
        seed (int, optional): See :class:`EpochSampler`. Defaults to None.

    Raises:
        UserError: If the dataset is empty.
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        labels = get_labels(dataset)
        if len(labels) == 0:
            raise UserError(f'{type(self).__name__}: the dataset is empty')
        super().__init__(len(labels), seed)
        self.dataset = dataset
        # Image indices sorted by class; classes without images do not count.
        self.images = np.argsort(labels, kind='stable')
        _, self.starts, self.counts = np.unique(
            labels[self.images], return_index=True, return_counts=True
        )


class ReshuffledSampler(EpochSampler):
    """Repeats a small dataset until the epoch is full, shuffled each time.

    Args:
        dataset (Sized): The dataset.
        epoch_size (int): See :class:`EpochSampler`.
        seed (int, optional): See :class:`EpochSampler`. Defaults to None.
    """

    def __init__(self, dataset: Sized, epoch_size: int, seed: int | None = None) -> None:
        super().__init__(epoch_size, seed)
        self.dataset = dataset

    def draw(self) -> np.ndarray:
        """See :meth:`EpochSampler.draw`."""
        rng, size = self.rng(self.epoch), len(self.dataset)
        rounds = math.ceil(self.epoch_size / size)
        shuffled = [rng.permutation(size) for _ in range(rounds)]
        return np.concatenate(shuffled)[: self.epoch_size]
