"""Many-, medium- and few-shot groups of classes and of test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ride_mm.utils.errors import UserError, nearest

GROUPS = ('many', 'medium', 'few')
# Sizes of the smallest and largest medium-shot class, as in the official code of
# RIDE and of RIDE-Swin.
NAMED_THRESHOLDS = {'ride': (20, 100), 'ride-swin': (21, 99)}
THIRDS = 'thirds'
Thresholds = str | Sequence[int]


def resolve_thresholds(thresholds: Thresholds) -> str | tuple[int, int]:
    """Check the thresholds of the groups, and look up their values if they are a name.

    Args:
        thresholds (str | Sequence[int]): Two class sizes or a name, see
            :class:`ClassGroups`.

    Returns:
        tuple[int, int] | str: Sizes of the smallest and largest medium-shot
        class, or "thirds".

    Raises:
        UserError: If the name is unknown, or if these are not two numbers
            with ``0 <= low <= high``.
    """
    if isinstance(thresholds, str):
        names = (*NAMED_THRESHOLDS, THIRDS)
        if thresholds not in names:
            raise UserError(
                f'thresholds="{thresholds}" is unknown, expected one of {", ".join(names)}, '
                f'or two class sizes.{nearest(thresholds, names)}'
            )
        return NAMED_THRESHOLDS.get(thresholds, thresholds)
    if len(thresholds) != 2 or not 0 <= thresholds[0] <= thresholds[1]:
        raise UserError(
            'thresholds must be two class sizes (low, high) with 0 <= low <= high, for example '
            f'(20, 100), or a name, but got {thresholds}.'
        )
    low, high = thresholds
    return low, high


class ClassGroups:
    """Classes grouped by their number of training images.

    Many-shot classes have more than ``thresholds[1]`` images, few-shot classes
    fewer than ``thresholds[0]``; all others are medium-shot classes.

    Args:
        counts (Sequence[int]): Training images per class, (K, ).
        thresholds (str | Sequence[int]): Sizes of the smallest and largest
            medium-shot class, or a name: "ride" (20 and 100), "ride-swin" (21
            and 99) or "thirds" (three groups whose numbers of classes differ
            by at most one; ties are broken by label). Defaults to "ride".

    Attributes:
        masks (dict[str, np.ndarray]): Bool mask over the classes, (K, ), for
            each non-empty group, in the order of ``GROUPS``.

    Raises:
        UserError: See :func:`resolve_thresholds`.

    Examples:
        >>> groups = ClassGroups([101, 100, 20])
        >>> {name: mask.tolist() for name, mask in groups.masks.items()}
        {'many': [True, False, False], 'medium': [False, True, True]}
    """

    def __init__(self, counts: Sequence[int] | np.ndarray, thresholds: Thresholds = 'ride') -> None:
        self.counts = counts = np.asarray(counts)
        self.thresholds = resolve_thresholds(thresholds)
        if isinstance(self.thresholds, str):
            thirds = np.array_split(self.largest_first, len(GROUPS))
            masks = [np.isin(np.arange(len(counts)), third) for third in thirds]
        else:
            low, high = self.thresholds
            masks = [counts > high, (counts >= low) & (counts <= high), counts < low]
        self.masks = {name: mask for name, mask in zip(GROUPS, masks) if mask.any()}

    @classmethod
    def of(cls, groups: GroupsLike) -> ClassGroups:
        """Group class counts by RIDE's thresholds; return groups unchanged."""
        return groups if isinstance(groups, ClassGroups) else cls(groups)

    def __len__(self) -> int:
        """The number of classes K."""
        return len(self.counts)

    @property
    def largest_first(self) -> np.ndarray:
        """np.ndarray: The classes from the largest to the smallest, (K, )."""
        return np.argsort(-self.counts, kind='stable')

    def of_images(self, gt_label: np.ndarray) -> dict[str, np.ndarray]:
        """Find the images of each group.

        Args:
            gt_label (np.ndarray): True labels, (N, ).

        Returns:
            dict[str, np.ndarray]: Bool masks, (N, ), for "overall", "many",
            "medium" and "few". Groups without images are left out.
        """
        images = {'overall': np.ones(len(gt_label), dtype=bool)}
        images.update((name, classes[gt_label]) for name, classes in self.masks.items())
        return {name: mask for name, mask in images.items() if mask.any()}

    @property
    def titles(self) -> dict[str, str]:
        """dict[str, str]: Titles for tables and plots, with the class sizes, of
        "overall", "many", "medium" and "few"."""
        if isinstance(self.thresholds, str):
            sizes = ['largest third', 'middle third', 'smallest third']
        else:
            low, high = self.thresholds
            sizes = [f'> {high}', f'{low} to {high}', f'< {low}']
        titles = {name: f'{name} ({size})' for name, size in zip(GROUPS, sizes)}
        return {'overall': 'overall', **titles}


GroupsLike = ClassGroups | Sequence[int]


def key_prefix(group: str) -> str:
    """Prefix of the names of a group's metrics."""
    return '' if group == 'overall' else f'{group}_'
