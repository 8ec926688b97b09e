import math
from collections.abc import Sized

import numpy as np
from mmpretrain.registry import DATA_SAMPLERS

from ride_mm.utils.errors import UserError

from .epoch_sampler import LabelSampler


@DATA_SAMPLERS.register_module()
class PowerSampler(LabelSampler):
    r"""Sampler that draws classes in proportion to a power of their size.

    Each draw takes class c of :math:`n_c` images with a probability
    proportional to :math:`n_c^q`, then one of its images uniformly, both with
    replacement; an epoch has as many draws as the dataset has images.
    :math:`q=1` is instance-balanced, :math:`q=1/2` square-root and
    :math:`q=0` class-balanced sampling: `Decoupling Representation and
    Classifier for Long-Tailed Recognition
    <https://arxiv.org/abs/1910.09217>`_, equation 1. Classes without images
    are never drawn.

    Args:
        dataset (Sized): A dataset or dataset wrapper.
        power (float): The power q. Defaults to 0.5.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks share.

    Raises:
        UserError: If the power is not a finite number.
    """

    def __init__(self, dataset: Sized, power: float = 0.5, seed: int | None = None) -> None:
        if not math.isfinite(power):
            raise UserError(f'power must be a finite number, found {power}')
        super().__init__(dataset, seed)
        self.power = power
        # Of relative sizes, because a power of large counts could overflow.
        weights = (self.counts / self.counts.max()) ** power
        self.class_probs = weights / weights.sum()

    def draw(self) -> np.ndarray:
        """See :meth:`.EpochSampler.draw`."""
        rng = self.rng(self.epoch)
        classes = rng.choice(len(self.counts), size=self.epoch_size, p=self.class_probs)
        return self.images[self.starts[classes] + rng.integers(self.counts[classes])]
