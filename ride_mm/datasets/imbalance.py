"""How a balanced dataset is made long-tailed."""

from collections.abc import Sequence

import numpy as np

from ride_mm.utils.errors import UserError, nearest

IMB_TYPES = ('exp', 'step')


def long_tail_profile(
    num_classes: int, max_count: int, imb_type: str, imb_factor: float
) -> list[int]:
    """Compute how many training images each class of a subset gets.

    With ``'exp'``, class c of K gets
    ``int(max_count * imb_factor**(c / (K - 1)))`` images. With ``'step'``,
    the first half of the classes gets ``max_count`` and the other half
    ``int(max_count * imb_factor)``. These are the profiles of `Learning
    Imbalanced Datasets with Label-Distribution-Aware Margin Loss
    <https://arxiv.org/abs/1906.07413>`_.

    Args:
        num_classes (int): Number of classes K.
        max_count (int): Images of the largest class.
        imb_type (str): ``'exp'`` or ``'step'``.
        imb_factor (float): Size of the smallest class over that of the
            largest one, in (0, 1].

    Returns:
        list[int]: K counts, none of them 0.

    Raises:
        UserError: If ``imb_type`` or ``imb_factor`` is none of these, or if
            it leaves a class without images.

    Examples:
        >>> long_tail_profile(4, 100, 'exp', 0.1)
        [100, 46, 21, 10]
    """
    if imb_type not in IMB_TYPES:
        raise UserError(
            "imb_type must be 'exp' or 'step', found "
            f'{imb_type!r}.{nearest(str(imb_type), IMB_TYPES)}'
        )
    if not 0 < imb_factor <= 1:
        raise UserError(
            'imb_factor is the size of the smallest class divided by that of '
            f'the largest: it must be in (0, 1], found {imb_factor}'
        )

    if imb_type == 'exp':
        counts = [
            int(max_count * imb_factor ** (c / (num_classes - 1))) for c in range(num_classes)
        ]
    else:
        half = num_classes // 2
        counts = [max_count] * half
        counts += [int(max_count * imb_factor)] * (num_classes - half)
    if min(counts) == 0:
        raise UserError(
            f'imb_factor={imb_factor} leaves {counts.count(0)} of '
            f'{num_classes} classes without images: with {max_count} images '
            f'in the largest class it must be at least {1 / max_count:g}'
        )
    return counts


def largest_class(max_count: int | None, available: int) -> int:
    """Check how many images the largest class of a subset gets.

    Args:
        max_count (int, optional): The number that is asked for. None means
            all that there are.
        available (int): Images that every class has.

    Returns:
        int: The number.

    Raises:
        UserError: If there are not so many, or it is below 1.
    """
    if max_count is None:
        return available
    if not 1 <= max_count <= available:
        raise UserError(
            'max_count is the size of the largest class: it must '
            f'be from 1 to {available}, found {max_count}'
        )
    return max_count


def sample_subset(labels: Sequence[int], class_counts: Sequence[int], seed: int) -> np.ndarray:
    """Choose the images of a long-tailed subset.

    One ``RandomState`` shuffles the images of each class, in class order,
    and the first ``class_counts[c]`` of class c are taken: with seed 0 this
    is the subset in common use for long-tailed CIFAR, image for image.

    Args:
        labels (Sequence[int]): Labels of the balanced dataset, shape (N, ).
        class_counts (Sequence[int]): Images to take of each class.
        seed (int): Seed of the choice. NumPy's global state is not touched.

    Returns:
        np.ndarray: Indices, class after class and each class in its shuffled
        order, shape (sum(class_counts), ).

    Raises:
        UserError: If a class has fewer images than are to be taken.
    """
    labels = np.asarray(labels)
    rng = np.random.RandomState(seed)
    chosen = []
    for c, count in enumerate(class_counts):
        indices = np.flatnonzero(labels == c)
        if len(indices) < count:
            raise UserError(
                f'Class {c} has {len(indices)} images, but '
                f'{count} are needed: is the data complete?'
            )
        rng.shuffle(indices)
        chosen.append(indices[:count])
    return np.concatenate(chosen)
