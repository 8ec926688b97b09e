"""Bootstrap replicates of a training set."""

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from .class_counts import get_labels
from .wrappers import build_dividable


def bootstrap_indices(labels: Sequence[int], seed: int) -> np.ndarray:
    """Draw, in place of every image, one of its class, with replacement.

    Args:
        labels (Sequence[int]): Labels of the training set, (N, ).
        seed (int): Seed of the draw. NumPy's global state is not touched.

    Returns:
        np.ndarray: Indices with the same labels, (N, ), int64.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(classes, kind='stable')
    starts = np.cumsum(counts) - counts
    drawn = np.random.default_rng(seed).integers(counts[classes])
    return by_class[starts[classes] + drawn]


@DATASETS.register_module(name='Bootstrap')
def bootstrap(dataset: dict | BaseDataset, seed: int) -> BaseDataset:
    """Draw a training set from a training set: ``type='Bootstrap'``.

    Each class keeps its number of images, so that the long tail and the class
    counts stay; which of its images these are, and how often, is drawn.

    Args:
        dataset (dict | BaseDataset): The training set, or its config.
        seed (int): See :func:`bootstrap_indices`.

    Returns:
        BaseDataset: The data set, with the images that were drawn.

    Raises:
        UserError: If the data set cannot be reduced to some of its images.
    """
    dataset = build_dividable(dataset, 'Bootstrap')
    dataset.get_subset_(bootstrap_indices(get_labels(dataset), seed).tolist())
    return dataset
