"""Training images per class: counted, read from files, and checked."""

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.fileio import exists, load

from ride_mm.utils.errors import UserError

from .annotations import read_annotations
from .augmentation_seeds import SeededDataset

_NOT_ONE_LABEL = (
    '{}: expected one label, a whole number, for each image. '
    'Data with several labels or no label cannot be used here'
)


def count_labels(labels: Sequence[int], num_classes: int) -> list[int]:
    """Count the images of each class.

    Args:
        labels (Sequence[int]): Labels, shape (N, ).
        num_classes (int): Number of classes K.

    Returns:
        list[int]: K counts.

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
            f'{wrong.size} of {labels.size} labels are outside '
            f'[0, {num_classes}): the first is {labels[wrong[0]]}, at '
            f'position {wrong[0]}'
        )
    return np.bincount(labels, minlength=num_classes).tolist()


def check_class_counts(class_counts: Sequence[int], num_classes: int) -> None:
    """Check that there is a positive count for each class.

    Args:
        class_counts (Sequence[int]): Training images per class.
        num_classes (int): Number of classes that is expected.

    Raises:
        UserError: If the number of counts differs from ``num_classes``, or
            if a class has no image.
    """
    if len(class_counts) != num_classes:
        raise UserError(
            f'class_counts has {len(class_counts)} entries, but '
            f'there are {num_classes} classes: check num_classes '
            'of the head and the training data'
        )
    empty = [i for i, count in enumerate(class_counts) if count <= 0]
    if empty:
        raise UserError(
            f'{len(empty)} of {num_classes} classes have no training image: {name_some(empty)}'
        )


def name_some(names: Sequence, most: int = 10) -> str:
    """Join names for a message, the first ones only when there are many.

    Args:
        names (Sequence): What to name.
        most (int): How many at most. Defaults to 10.

    Returns:
        str: The first names and how many more there are.
    """
    text = ', '.join(str(name) for name in names[:most])
    more = len(names) - most
    return text if more <= 0 else f'{text} and {more} more'


def read_class_counts(path: str, num_classes: int | None = None) -> list[int]:
    """Read the training images per class from a file.

    Args:
        path (str): A ``.json`` file with a list of counts, alone or under
            the key ``class_counts`` or ``counts``; or a "path label" list
            of the training images, which is counted.
        num_classes (int, optional): Number of classes K. Defaults to None,
            which means as many as the file has counts for, or one more than
            the largest label of a list.

    Returns:
        list[int]: K counts.

    Raises:
        UserError: If there is no such file.
        UserError: If the file holds something else, or does not fit
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
    # bool is a subclass of int, and no count
    if (
        not isinstance(counts, list)
        or not counts
        or any(type(n) is not int or n < 0 for n in counts)
    ):
        raise UserError(
            f'{path}: expected a list of counts (integers of at least 0), or '
            'a dict that has one under "class_counts" or "counts"'
        )
    if num_classes is not None and len(counts) != num_classes:
        raise UserError(f'{path}: expected counts of {num_classes} classes, found {len(counts)}')
    return counts


def get_labels(dataset) -> np.ndarray:
    """Get the label of every image of a dataset or dataset wrapper.

    Args:
        dataset: A dataset with ``get_gt_labels()`` or ``get_cat_ids(i)``, or
            mmengine's ``ConcatDataset``, ``RepeatDataset`` or
            ``ClassBalancedDataset`` around such ones, nested or not.

    Returns:
        np.ndarray: Labels, shape (len(dataset), ), int64.

    Raises:
        TypeError: If the dataset has neither of the two methods.
        UserError: If an image has not exactly one label.
    """
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
        # `num_batch_per_epoch` shows the labels of the whole through a slice.
        try:
            labels = np.asarray(dataset.get_gt_labels(), dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(_NOT_ONE_LABEL.format(type(dataset).__name__)) from error
        if labels.ndim != 1:
            raise UserError(_NOT_ONE_LABEL.format(type(dataset).__name__))
        return labels[: len(dataset)]
    if hasattr(dataset, 'get_cat_ids'):
        return _single_labels(dataset)
    raise TypeError(
        f'{type(dataset).__name__} has neither get_gt_labels() '
        'nor get_cat_ids() to read its labels from'
    )


def _single_labels(dataset) -> np.ndarray:
    labels = [dataset.get_cat_ids(i) for i in range(len(dataset))]
    for i, image_labels in enumerate(labels):
        if len(image_labels) != 1:
            raise UserError(
                f'Image {i} of {type(dataset).__name__} has '
                f'{len(image_labels)} labels, expected one'
            )
    return np.array(labels, dtype=np.int64).reshape(-1)


def get_class_counts(dataset) -> list[int]:
    """Get the training images per class that belong to a dataset.

    Args:
        dataset: A dataset or dataset wrapper, see :func:`get_labels`.

    Returns:
        list[int]: ``metainfo['class_counts']`` where the dataset, or the
        wrapped one, states it. Otherwise, and where the parts of a
        ``ConcatDataset`` differ in it, the dataset is counted.
    """
    counts = stated_counts(dataset)
    if counts is not None:
        return list(counts)
    labels = get_labels(dataset)
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return count_labels(labels, len(classes or ()) or int(labels.max()) + 1)


def stated_counts(dataset) -> Sequence[int] | None:
    """Get what a dataset says of the training images per class.

    Args:
        dataset: A dataset or dataset wrapper.

    Returns:
        list[int] | None: ``metainfo['class_counts']`` of the innermost
        dataset; None where it has none, and where the parts of a
        ``ConcatDataset`` differ in it.
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
