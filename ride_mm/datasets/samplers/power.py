import math
from collections.abc import Sized

import numpy as np
from mmpretrain.registry import DATA_SAMPLERS

from ride_mm.utils.errors import UserError

from .label_sampler import LabelSampler


@DATA_SAMPLERS.register_module()
class PowerSampler(LabelSampler):
    r"""Sampler that draws a class by a power of its size.

    A class of :math:`n_c` images is drawn with a probability proportional to
    :math:`n_c^q`, then one of its images uniformly, both with replacement,
    as many times as the dataset has images. :math:`q=1` is instance-balanced,
    :math:`q=1/2` square-root and :math:`q=0` class-balanced sampling:
    `Decoupling Representation and Classifier for Long-Tailed Recognition
    <https://arxiv.org/abs/1910.09217>`_, equation 1. A class without images
    is never drawn, whatever the power.

    Args:
        dataset (Sized): A dataset or dataset wrapper.
        power (float): The power q. Defaults to 0.5.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks agree on.

    Raises:
        UserError: If the power is not a finite number.
    """

    def __init__(self, dataset: Sized, power: float = 0.5, seed: int | None = None) -> None:
        if not math.isfinite(power):
            raise UserError(f'power must be a finite number, found {power}')
        super().__init__(dataset, seed)
        self.power = power
        # Relative sizes: a power of large counts would overflow.
        weights = (self.counts / self.counts.max()) ** power
        self.class_probs = weights / weights.sum()

    def draw(self) -> np.ndarray:
        """Choose the images of the current epoch, for all ranks.

        Returns:
            np.ndarray: Image indices, shape (epoch_size, ).
        """
        rng = self.rng(self.epoch)
        classes = rng.choice(len(self.counts), size=self.epoch_size, p=self.class_probs)
        return self.images[self.starts[classes] + rng.integers(self.counts[classes])]
