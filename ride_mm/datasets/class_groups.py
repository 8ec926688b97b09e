"""The many-, medium- and few-shot groups of classes and of test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Union

import numpy as np

from ride_mm.utils.errors import UserError, nearest

GROUPS = ('many', 'medium', 'few')
# Smallest and largest medium-shot class, as the official code of RIDE and
# that of RIDE-Swin have them.
NAMED_THRESHOLDS = {'ride': (20, 100), 'ride-swin': (21, 99)}
THIRDS = 'thirds'
Thresholds = str | Sequence[int]


def resolve_thresholds(thresholds: Thresholds) -> str | tuple[int, int]:
    """Check a definition of the groups, and look up its name.

    Args:
        thresholds (str | Sequence[int]): Two class sizes, or a name, see
            :class:`ClassGroups`.

    Returns:
        tuple[int, int] | str: The smallest and the largest number of
        training images of a medium-shot class, or "thirds".

    Raises:
        UserError: If the name is unknown, or if these are not two numbers
            with ``0 <= low <= high``.
    """
    if isinstance(thresholds, str):
        names = (*NAMED_THRESHOLDS, THIRDS)
        if thresholds not in names:
            raise UserError(
                f'thresholds="{thresholds}" is unknown, expected '
                f'one of {", ".join(names)}, or two class sizes.'
                f'{nearest(thresholds, names)}'
            )
        return NAMED_THRESHOLDS.get(thresholds, thresholds)
    if len(thresholds) != 2 or not 0 <= thresholds[0] <= thresholds[1]:
        raise UserError(
            f'thresholds must be two class sizes (low, high) with '
            f'0 <= low <= high, for example (20, 100), or a name, but got '
            f'{thresholds}.'
        )
    return tuple(thresholds)


@dataclass(frozen=True, eq=False)
class ClassGroups:
    """Classes by how many training images they have.

    Many-shot classes have more than ``thresholds[1]`` images, few-shot ones
    fewer than ``thresholds[0]``, and medium-shot ones are in between, both
    ends included.

    Args:
        counts (Sequence[int]): Training images per class, (K, ).
        thresholds (str | Sequence[int]): The two ends of the medium-shot
            group, or a name: "ride" (20 and 100), "ride-swin" (21 and 99) or
            "thirds" (the classes, from the largest to the smallest, in three
            parts that differ by one at most; of equal classes the first ones
            come first). Defaults to "ride".

    Raises:
        UserError: See :func:`resolve_thresholds`.

    Examples:
        >>> groups = ClassGroups([101, 100, 20])
        >>> {name: mask.tolist() for name, mask in groups.masks.items()}
        {'many': [True, False, False], 'medium': [False, True, True]}
    """

    counts: Sequence[int]
    thresholds: Thresholds = 'ride'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'counts', np.asarray(self.counts))
        object.__setattr__(self, 'thresholds', resolve_thresholds(self.thresholds))

    @classmethod
    def of(cls, groups: Union['ClassGroups', Sequence[int]]) -> 'ClassGroups':
        """Make groups of plain class counts, with RIDE's thresholds."""
        return groups if isinstance(groups, cls) else cls(groups)

    def __len__(self) -> int:
        """The number of classes K."""
        return len(self.counts)

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """dict[str, np.ndarray]: A bool mask of the classes, (K, ), for each
        group, in the order of ``GROUPS``. A group without classes is left
        out."""
        counts = self.counts
        if self.thresholds == THIRDS:
            masks = _thirds(counts)
        else:
            low, high = self.thresholds
            masks = (counts > high, (counts >= low) & (counts <= high), counts < low)
        return {name: mask for name, mask in zip(GROUPS, masks) if mask.any()}

    def of_images(self, gt_label: np.ndarray) -> dict[str, np.ndarray]:
        """Say which images belong to which group.

        Args:
            gt_label (np.ndarray): True labels with shape (N, ).

        Returns:
            dict[str, np.ndarray]: Bool masks with shape (N, ) under
            'overall', 'many', 'medium' and 'few'. A group without images is
            left out.
        """
        images = {'overall': np.ones(len(gt_label), dtype=bool)}
        for name, classes in self.masks.items():
            images[name] = classes[gt_label]
        return {name: mask for name, mask in images.items() if mask.any()}

    @property
    def titles(self) -> dict[str, str]:
        """dict[str, str]: See :func:`group_titles`."""
        return group_titles(self.thresholds)


GroupsLike = ClassGroups | Sequence[int]


def _thirds(counts: np.ndarray) -> list[np.ndarray]:
    largest_first = np.argsort(-counts, kind='stable')
    return [
        np.isin(np.arange(len(counts)), part) for part in np.array_split(largest_first, len(GROUPS))
    ]


def group_titles(thresholds: Thresholds) -> dict[str, str]:
    """Name the groups with their class sizes, for tables and plots."""
    thresholds = resolve_thresholds(thresholds)
    if thresholds == THIRDS:
        sizes = dict(many='largest third', medium='middle third', few='smallest third')
    else:
        low, high = thresholds
        sizes = dict(many=f'> {high}', medium=f'{low} to {high}', few=f'< {low}')
    return dict(overall='overall', **{name: f'{name} ({size})' for name, size in sizes.items()})


def key_prefix(group: str) -> str:
    """What the names of a group's figures begin with."""
    return '' if group == 'overall' else f'{group}_'
