"""Checked labels and class counts, and means by group."""

from collections.abc import Sequence

import numpy as np

from ride_mm.datasets.class_counts import read_class_counts
from ride_mm.datasets.class_groups import ClassGroups, GroupsLike, key_prefix
from ride_mm.utils.errors import UserError


def validate_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Check that labels, called ``name`` in the message, are classes.

    Raises:
        UserError: If a label lies outside ``[0, num_classes)``.
    """
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise UserError(
            f'{name} {outside[0]} is not one of the {num_classes} classes (0 '
            f'to {num_classes - 1}) of the class counts. Do dataset and class '
            'counts belong together?'
        )


def resolve_class_counts(
    class_counts: Sequence[int] | str | None, dataset_meta: dict | None, owner: str
) -> np.ndarray:
    """Find the number of training images per class.

    Args:
        class_counts (Sequence[int] | str, optional): The counts, or a file to
            read them from. None means those of the dataset.
        dataset_meta (dict, optional): ``metainfo`` of the evaluated dataset.
        owner (str): Name of the metric in messages.

    Returns:
        np.ndarray: The counts, (K, ).

    Raises:
        UserError: If there are no counts, or if they do not fit the classes of
            the dataset.
    """
    meta = dataset_meta or {}
    if isinstance(class_counts, str):
        try:
            class_counts = read_class_counts(class_counts)
        except (OSError, ValueError) as error:
            raise UserError(f'{owner}.class_counts: {error}') from error
    elif class_counts is None:
        class_counts = meta.get('class_counts')
    if class_counts is None:
        raise UserError(
            f'{owner} needs the number of training images of each class, but '
            "the evaluated dataset has no metainfo['class_counts']. Use a "
            'dataset of ride_mm, or add `metainfo=dict(class_counts=[...])` '
            f'to the dataset, or `class_counts=[...]` (a list or a file) to '
            f'{owner}.'
        )
    counts = np.asarray(class_counts)
    if counts.ndim != 1 or counts.dtype.kind not in 'iu' or not counts.size or counts.min() < 0:
        raise UserError(
            f'{owner}: class_counts must be a list of whole numbers, one for '
            f'each class, none below 0, but got {class_counts!r:.80}.'
        )
    classes = meta.get('classes')
    if classes is not None and len(classes) != counts.size:
        raise UserError(
            f'{owner}: {counts.size} class counts do not fit the '
            f'{len(classes)} classes of the evaluated dataset.'
        )
    return counts


def images_by_prefix(gt_label: np.ndarray, groups: GroupsLike) -> dict[str, np.ndarray]:
    """Return bool masks of images, (N, ), by the prefix of their group's metrics.

    The prefixes are '' (all images), 'many\\_', 'medium\\_' and 'few\\_'. A
    group without images is left out.

    Raises:
        UserError: If a label is not a class.
    """
    groups = ClassGroups.of(groups)
    validate_labels(gt_label, len(groups), 'True label')
    return {key_prefix(group): images for group, images in groups.of_images(gt_label).items()}


def mean_by_group(
    columns: dict[str, np.ndarray], gt_label: np.ndarray, groups: GroupsLike
) -> dict[str, float]:
    """Average values of images, overall and by group.

    Args:
        columns (dict[str, np.ndarray]): Values of the images by name, (N, ).
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): Class groups or class counts, (K, ).

    Returns:
        dict[str, float]: The means under their names, then with the prefixes
        'many\\_', 'medium\\_' and 'few\\_'. A group without images is left out.

    Raises:
        UserError: If a label is not a class.
    """
    return {
        f'{prefix}{name}': float(column[images].mean())
        for prefix, images in images_by_prefix(gt_label, groups).items()
        for name, column in columns.items()
    }
