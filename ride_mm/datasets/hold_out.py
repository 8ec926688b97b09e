"""A part of the training set to choose hyper-parameters on."""

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError

from .class_counts import count_labels, get_class_counts, get_labels
from .wrappers import build_dividable


def held_out_indices(labels: Sequence[int], fraction: float, seed: int) -> np.ndarray:
    """Choose images of every class to hold out.

    Args:
        labels (Sequence[int]): Labels of the training set, (N, ).
        fraction (float): Share of each class, in (0, 1); at least one image
            of a class that has two or more, and never all.
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

    Where there is no validation list, train on the one part and choose on
    the other; both state the class counts of the part that is trained on.

    Args:
        dataset (dict | BaseDataset): The training set, or its config.
        held_out (bool): Which part: the one that is held out, or the rest.
        fraction (float): See :func:`held_out_indices`. Defaults to 0.1.
        seed (int): See :func:`held_out_indices`. Defaults to 0.

    Returns:
        BaseDataset: The data set, reduced to this part.

    Raises:
        UserError: If ``fraction`` is not between 0 and 1, or the data set
            cannot be reduced to some of its images.
    """
    if not 0 < fraction < 1:
        raise UserError(f'HoldOut: fraction={fraction} must be between 0 and 1')
    dataset = build_dividable(dataset, 'HoldOut')
    labels = get_labels(dataset)
    chosen = held_out_indices(labels, fraction, seed)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    counts = count_labels(labels[rest], len(get_class_counts(dataset)))
    dataset.get_subset_((chosen if held_out else rest).tolist())
    dataset._metainfo['class_counts'] = counts
    dataset.is_part = True
    return dataset
