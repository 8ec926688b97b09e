from collections.abc import Sized

import numpy as np

from ride_mm.utils.errors import UserError

from ..class_counts import get_labels
from .epoch_sampler import EpochSampler


class LabelSampler(EpochSampler):
    """Base of the samplers that choose images by their label.

    Args:
        dataset (Sized): A dataset or dataset wrapper that
            :func:`~ride_mm.datasets.class_counts.get_labels` knows. An epoch
            draws as many images as it has.
        seed (int, optional): Seed of all ranks. Defaults to None, which
            means a random one that the ranks agree on.

    Raises:
        UserError: If the dataset is empty.
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        labels = get_labels(dataset)
        if len(labels) == 0:
            raise UserError(f'{type(self).__name__}: the dataset is empty')
        super().__init__(len(labels), seed)
        self.dataset = dataset
        # Image indices class after class, for classes that have images.
        self.images = np.argsort(labels, kind='stable')
        _, self.starts, self.counts = np.unique(
            labels[self.images], return_index=True, return_counts=True
        )
