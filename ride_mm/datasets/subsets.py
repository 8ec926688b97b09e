"""Held-out parts and bootstrap replicates of a training set."""

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError

from .class_counts import count_labels, get_class_counts, get_labels
from .wrappers import build_divisible


def held_out_indices(labels: Sequence[int] | np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose images of every class to hold out.

    Args:
        labels (Sequence[int]): Labels of the training set, (N, ).
        fraction (float): Share of each class, in (0, 1). At least one image
            of each class remains, and at least one of two is held out.
        seed (int): Seed of the choice. NumPy's global state is not touched.

    Returns:
        np.ndarray: Indices in increasing order, int64.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        number = min(max(int(fraction * len(indices)), 1), len(indices) - 1)
        chosen.append(rng.permutation(indices)[:number])
    return np.sort(np.concatenate(chosen))


@DATASETS.register_module(name='HoldOut')
def hold_out(
    dataset: dict | BaseDataset, held_out: bool, fraction: float = 0.1, seed: int = 0
) -> BaseDataset:
    """Split a training set: ``type='HoldOut'`` in a config.

    For datasets without a validation list: train on one part and choose
    hyper-parameters on the other. Both state the class counts of the part
    that is trained on.

    Args:
        dataset (dict | BaseDataset): The training set, or its config.
        held_out (bool): Whether to return the held-out part or the rest.
        fraction (float): See :func:`held_out_indices`. Defaults to 0.1.
        seed (int): See :func:`held_out_indices`. Defaults to 0.

    Returns:
        BaseDataset: The dataset, reduced to this part.

    Raises:
        UserError: If ``fraction`` is not between 0 and 1, or the dataset
            cannot be reduced to some of its images.
    """
    if not 0 < fraction < 1:
        raise UserError(f'HoldOut: fraction={fraction} must be between 0 and 1')
    dataset = build_divisible(dataset, 'HoldOut')
    labels = get_labels(dataset)
    chosen = held_out_indices(labels, fraction, seed)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    counts = count_labels(labels[rest], len(get_class_counts(dataset)))
    dataset.get_subset_((chosen if held_out else rest).tolist())
    dataset._metainfo['class_counts'] = counts
    dataset.is_part = True
    return dataset


def bootstrap_indices(labels: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Draw images with replacement, as many of each class as it has.

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
    """Draw a bootstrap replicate: ``type='Bootstrap'`` in a config.

    Each class keeps its number of images, so the class counts do not change.

    Args:
        dataset (dict | BaseDataset): The training set, or its config.
        seed (int): See :func:`bootstrap_indices`.

    Returns:
        BaseDataset: The dataset with the drawn images.

    Raises:
        UserError: If the dataset cannot be reduced to some of its images.
    """
    dataset = build_divisible(dataset, 'Bootstrap')
    dataset.get_subset_(bootstrap_indices(get_labels(dataset), seed).tolist())
    return dataset
