"""Long-tailed subsets of balanced datasets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ride_mm.utils.errors import UserError, nearest

from .cached_labels import CachedLabels

IMB_TYPES = ('exp', 'step')


def long_tail_profile(
    num_classes: int, max_count: int, imb_type: str, imb_factor: float
) -> list[int]:
    """Compute the number of training images per class of a subset.

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
        imb_factor (float): Size of the smallest class divided by that of the
            largest one, in (0, 1].

    Returns:
        list[int]: K positive counts.

    Raises:
        UserError: If ``imb_type`` or ``imb_factor`` is invalid, or leaves a
            class without images.

    Examples:
        >>> long_tail_profile(4, 100, 'exp', 0.1)
        [100, 46, 21, 10]
    """
    if imb_type not in IMB_TYPES:
        raise UserError(
            f"imb_type must be 'exp' or 'step', found {imb_type!r}."
            f'{nearest(str(imb_type), IMB_TYPES)}'
        )
    if not 0 < imb_factor <= 1:
        raise UserError(
            'imb_factor is the size of the smallest class divided by that of '
            f'the largest: it must be in (0, 1], found {imb_factor}'
        )

    if imb_type == 'exp':
        exponents = [c / (num_classes - 1) for c in range(num_classes)]
        counts = [int(max_count * imb_factor**exponent) for exponent in exponents]
    else:
        half = num_classes // 2
        counts = [max_count] * half
        counts += [int(max_count * imb_factor)] * (num_classes - half)
    if min(counts) == 0:
        raise UserError(
            f'imb_factor={imb_factor} leaves {counts.count(0)} of {num_classes} classes without '
            f'images: with {max_count} images in the largest class it must be at least '
            f'{1 / max_count:g}'
        )
    return counts


def sample_subset(
    labels: Sequence[int] | np.ndarray, class_counts: Sequence[int], seed: int
) -> np.ndarray:
    """Choose the images of a long-tailed subset.

    One ``RandomState`` shuffles the images of each class, in class order,
    and the first ``class_counts[c]`` of class c are taken. Seed 0 gives the
    subset that papers on long-tailed CIFAR use.

    Args:
        labels (Sequence[int]): Labels of the balanced dataset, (N, ).
        class_counts (Sequence[int]): Images to take of each class.
        seed (int): Seed of the choice. NumPy's global state is not touched.

    Returns:
        np.ndarray: Indices, sorted by class and shuffled within it,
        (sum(class_counts), ).

    Raises:
        UserError: If a class has too few images.
    """
    labels = np.asarray(labels)
    rng = np.random.RandomState(seed)
    chosen = []
    for c, count in enumerate(class_counts):
        indices = np.flatnonzero(labels == c)
        if len(indices) < count:
            raise UserError(
                f'Class {c} has {len(indices)} images, but {count} are needed: '
                'is the data complete?'
            )
        rng.shuffle(indices)
        chosen.append(indices[:count])
    return np.concatenate(chosen)


class LongTailSubset(CachedLabels):
    """Base of balanced datasets with a long-tailed training split.

    Must precede other dataset classes in the MRO. Options are those of
    :class:`.CIFAR10LT`.
    """

    num_classes: int
    # Images that every class has; of an instance, the size of the largest class.
    max_count: int
    split: str

    def __init__(
        self,
        imb_type: str,
        imb_factor: float,
        max_count: int | None,
        subset_seed: int,
        **kwargs: Any,
    ) -> None:
        available = self.max_count
        if max_count is not None and not 1 <= max_count <= available:
            raise UserError(
                'max_count is the size of the largest class: '
                f'it must be from 1 to {available}, found {max_count}'
            )
        self.imb_type = imb_type
        self.imb_factor = imb_factor
        self.max_count = available if max_count is None else max_count
        self.subset_seed = subset_seed
        self.class_counts = long_tail_profile(
            self.num_classes, self.max_count, imb_type, imb_factor
        )
        super().__init__(**kwargs)
        # For lazy datasets.
        self._metainfo.setdefault('class_counts', list(self.class_counts))

    def _data_list(self, images: np.ndarray, labels: np.ndarray) -> list[dict]:
        """Make the data list of images, (N, H, W, C), and labels, (N, )."""
        self._gt_labels = labels
        self._metainfo['class_counts'] = list(self.class_counts)
        return [dict(img=img, gt_label=label) for img, label in zip(images, labels.tolist())]

    def extra_repr(self) -> list[str]:
        """Describe the data, the split and the profile."""
        profile = f'{self.imb_type}, imb_factor={self.imb_factor}, max_count={self.max_count}'
        return [
            *super().extra_repr(),
            f'Split: \t{self.split}',
            f'Long-tailed profile: \t{profile}',
        ]
