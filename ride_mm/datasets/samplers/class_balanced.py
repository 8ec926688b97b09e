from collections.abc import Sized

import numpy as np
from mmpretrain.registry import DATA_SAMPLERS

from ride_mm.utils.errors import UserError

from .epoch_sampler import LabelSampler


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(LabelSampler):
    """Sampler that draws every class equally often.

    Each draw takes a class uniformly at random and then the next of its
    images, in an order that is reshuffled after each round through the class.
    Rounds continue across epochs, so two images of a class never differ by
    more than one draw; the position is computed from (seed, epoch), not
    stored. This is the sampling of `RIDE's
    <https://arxiv.org/abs/2010.01809>`_ router stage. Classes without images
    are never drawn.

    Args:
        dataset (Sized): A dataset or dataset wrapper.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks share.
        epoch_size (str): Draws per epoch: ``'dataset'``, the number of
            images, or ``'max'``, the size of the largest class times the
            number of classes that have images. Defaults to ``'dataset'``.

    Raises:
        UserError: If ``epoch_size`` is neither of them.
    """

    def __init__(
        self, dataset: Sized, seed: int | None = None, epoch_size: str = 'dataset'
    ) -> None:
        if epoch_size not in ('dataset', 'max'):
            raise UserError(
                f"ClassBalancedSampler: epoch_size must be 'dataset' or 'max', found {epoch_size!r}"
            )
        super().__init__(dataset, seed)
        if epoch_size == 'max':
            self.epoch_size = len(self.counts) * int(self.counts.max())
        # Draws of each class before a known epoch, to avoid recounting from epoch 0.
        self._known_epoch = 0
        self._known_draws = np.zeros(len(self.counts), dtype=np.int64)

    def draw(self) -> np.ndarray:
        """See :meth:`.EpochSampler.draw`."""
        before = self._draws_before_epoch()
        rng = self.rng(self.epoch)
        draws = self._draws_per_class(rng)

        # Shuffling multinomial counts gives independent draws of classes.
        classes = rng.permutation(np.repeat(np.arange(len(draws)), draws))
        indices = np.empty(self.epoch_size, dtype=np.int64)
        by_class = np.argsort(classes, kind='stable')
        indices[by_class] = self._next_images(before, draws)
        return indices

    def _draws_before_epoch(self) -> np.ndarray:
        if self.epoch < self._known_epoch:
            self._known_epoch = 0
            self._known_draws = np.zeros_like(self._known_draws)
        for epoch in range(self._known_epoch, self.epoch):
            self._known_draws = self._known_draws + self._draws_per_class(self.rng(epoch))
        self._known_epoch = self.epoch
        return self._known_draws

    def _draws_per_class(self, rng: np.random.Generator) -> np.ndarray:
        num_classes = len(self.counts)
        return rng.multinomial(self.epoch_size, np.full(num_classes, 1 / num_classes))

    def _next_images(self, before: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Get the next images, (sum(draws), ), sorted by class.

        Args:
            before (np.ndarray): Previous draws of each class, (C, ).
            draws (np.ndarray): New draws of each class, (C, ).
        """
        # The images of all rounds that contain a new draw, round by round.
        first = before // self.counts
        rounds = np.where(draws > 0, (before + draws - 1) // self.counts - first + 1, 0)
        sizes = rounds * self.counts
        place = _ranges(sizes)
        count = np.repeat(self.counts, sizes)
        round_ = np.repeat(first, sizes) + place // count
        member = np.repeat(self.starts, sizes) + place % count

        # Sorting by a hash within each round shuffles it.
        round_id = np.repeat(np.cumsum(rounds) - rounds, sizes) + place // count
        shuffled = np.lexsort((_hash(self.seed, round_, member), round_id))
        offset = np.cumsum(sizes) - sizes + before % self.counts
        return self.images[member[shuffled[np.repeat(offset, draws) + _ranges(draws)]]]


def _ranges(sizes: np.ndarray) -> np.ndarray:
    """Concatenate ``arange(size)`` for each size."""
    ends = np.cumsum(sizes)
    return np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)


def _hash(seed: int, *keys: np.ndarray) -> np.ndarray:
    """Hash rows of non-negative integers to uint64 (SplitMix64)."""
    value = np.full(keys[0].shape, seed, dtype=np.uint64)
    for key in (np.zeros_like(keys[0]), *keys):
        value = value + key.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        value = value ^ value >> np.uint64(30)
        value = value * np.uint64(0xBF58476D1CE4E5B9)
        value = value ^ value >> np.uint64(27)
        value = value * np.uint64(0x94D049BB133111EB)
        value = value ^ value >> np.uint64(31)
    return value
