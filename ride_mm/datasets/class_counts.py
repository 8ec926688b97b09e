"""Training images per class: count them, or read them from files and datasets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.fileio import exists, load

from ride_mm.utils.errors import UserError

from .annotations import read_annotations
from .augmentation_seeds import SeededDataset


def count_labels(labels: Sequence[int] | np.ndarray, num_classes: int) -> list[int]:
    """Count the images of each class.

    Args:
        labels (Sequence[int]): Labels, (N, ).
        num_classes (int): Number of classes K.

    Returns:
        list[int]: Images per class, (K, ).

    Raises:
        UserError: If a label is not an integer in [0, K).

    Examples:
        >>> count_labels([0, 2, 2], num_classes=3)
        [1, 0, 2]
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        return [0] * num_classes
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f'Labels must be integers, found the type {labels.dtype}')
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise UserError(
            f'{wrong.size} of {labels.size} labels are outside [0, {num_classes}): '
            f'the first is {labels[wrong[0]]}, at position {wrong[0]}'
        )
    return np.bincount(labels, minlength=num_classes).tolist()


def read_class_counts(path: str, num_classes: int | None = None) -> list[int]:
    """Read the training images per class from a file.

    Args:
        path (str): A ``.json`` file with a list of counts, alone or under the
            key ``class_counts`` or ``counts``; or a list of the training
            images, "path label" per line, whose labels are counted.
        num_classes (int, optional): Number of classes K. Defaults to None,
            which means the number of counts in the file, or the largest label
            in the list plus one.

    Returns:
        list[int]: Images per class, (K, ).

    Raises:
        UserError: If the file is missing, invalid or does not fit
            ``num_classes``.
    """
    if not exists(path):
        raise UserError(f'Class counts not found: {path}')
    if not str(path).endswith('.json'):
        _, labels, _ = read_annotations(path, num_classes)
        return count_labels(labels, num_classes or max(labels) + 1)
    try:
        counts = load(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if isinstance(counts, dict):
        counts = counts.get('class_counts', counts.get('counts'))
    # `type`, because a bool is an instance of int.
    is_list = isinstance(counts, list) and counts
    if not is_list or any(type(count) is not int or count < 0 for count in counts):
        raise UserError(
            f'{path}: expected a list of counts (integers >= 0), or a dict with such a list under '
            '"class_counts" or "counts"'
        )
    if num_classes is not None and len(counts) != num_classes:
        raise UserError(f'{path}: expected counts of {num_classes} classes, found {len(counts)}')
    return counts


def get_labels(dataset: Any) -> np.ndarray:
    """Get the labels of a dataset or dataset wrapper.

    Args:
        dataset: A dataset with ``get_gt_labels()`` or ``get_cat_ids(i)``, or
            mmengine's ``ConcatDataset``, ``RepeatDataset`` or
            ``ClassBalancedDataset`` of such datasets, possibly nested.

    Returns:
        np.ndarray: Labels, (len(dataset), ), int64.

    Raises:
        TypeError: If the dataset has neither of the two methods.
        UserError: If an image does not have exactly one label.
    """
    name = type(dataset).__name__
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(dataset, SeededDataset):
        return get_labels(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([get_labels(part) for part in dataset.datasets])
    if isinstance(dataset, RepeatDataset):
        return np.tile(get_labels(dataset.dataset), dataset.times)
    if isinstance(dataset, ClassBalancedDataset):
        return get_labels(dataset.dataset)[dataset.repeat_indices]
    if hasattr(dataset, 'get_gt_labels'):
        try:
            labels = np.asarray(dataset.get_gt_labels(), dtype=np.int64)
            if labels.ndim != 1:
                raise ValueError(f'labels of shape {labels.shape}')
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'{name}: expected one label, a whole number, for each image. Data with several '
                'labels or no label cannot be used here'
            ) from error
        # mmengine's `num_batch_per_epoch` slices the dataset, but not its labels.
        return labels[: len(dataset)]
    if not hasattr(dataset, 'get_cat_ids'):
        raise TypeError(
            f'{name} has neither get_gt_labels() nor get_cat_ids() to read its labels from'
        )
    single = []
    for i in range(len(dataset)):
        found = dataset.get_cat_ids(i)
        if len(found) != 1:
            raise UserError(f'Image {i} of {name} has {len(found)} labels, expected one')
        single += found
    return np.array(single, dtype=np.int64)


def get_class_counts(dataset: Any) -> list[int]:
    """Get the class counts that a dataset states, or else count its images.

    Args:
        dataset: A dataset or dataset wrapper, see :func:`get_labels`.

    Returns:
        list[int]: Training images per class, (K, ).
    """
    counts = stated_counts(dataset)
    if counts is not None:
        return list(counts)
    labels = get_labels(dataset)
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return count_labels(labels, len(classes or ()) or int(labels.max()) + 1)


def stated_counts(dataset: Any) -> Sequence[int] | None:
    """Get the class counts that a dataset states.

    Args:
        dataset: A dataset or dataset wrapper.

    Returns:
        Sequence[int] | None: ``metainfo['class_counts']`` of the innermost
        dataset; None if it has none, or if those of the parts of a
        ``ConcatDataset`` differ.
    """
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(dataset, ConcatDataset):
        parts = [stated_counts(part) for part in dataset.datasets]
        same = all(part == parts[0] for part in parts)
        return getattr(dataset, 'class_counts', parts[0] if same else None)
    # A wrapper copies the metainfo before a lazy dataset has its counts.
    inner = getattr(dataset, 'dataset', None)
    if inner is not None:
        return stated_counts(inner)
    return getattr(dataset, 'metainfo', {}).get('class_counts')
