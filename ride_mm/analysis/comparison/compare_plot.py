from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ride_mm.analysis.accuracy.accuracy_by_class import draw_classes, label_classes
from ride_mm.analysis.comparison.intervals import LEVEL, Difference
from ride_mm.analysis.style import GRID, GROUP_COLORS, INK, SOFT, TITLE, clean, save
from ride_mm.datasets.class_groups import ClassGroups, GroupsLike

_NOTE = (
    f'Whiskers: {100 * LEVEL:g}% intervals. Filled: differs from 0. '
    'Right: diamonds are means over classes of similar size.'
)


def plot_differences(
    differences: dict[str, dict[str, Difference]],
    by_class: dict[str, np.ndarray],
    by_part: dict[str, Sequence[Difference]],
    parts: Sequence[np.ndarray],
    groups: GroupsLike,
    path: str | Path,
    baseline: str,
) -> Path:
    """Draw the differences of methods from a baseline, a row for each.

    The differences by group stand on the left, those by class, from the
    largest class to the smallest one, on the right.

    Args:
        differences (dict[str, dict[str, Difference]]): By method and group.
        by_class (dict[str, np.ndarray]): Points by method and class, each
            with shape (K, ); NaN for a class that was not tested.
        by_part (dict[str, Sequence[Difference]]): Means over the classes of
            each part, by method.
        parts (Sequence[np.ndarray]): The classes of each part.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        path (str | Path): The picture to write, see :func:`save`.
        baseline (str): The name of the baseline.

    Returns:
        Path: The file.
    """
    groups = ClassGroups.of(groups)
    order = np.argsort(-groups.counts, kind='stable')
    masks = {name: mask[order] for name, mask in groups.masks.items()}
    titles = dict(groups.titles, balanced='class mean')
    figure = Figure(figsize=(11, 1.3 + 2.9 * len(differences)), layout='constrained')
    rows = figure.subplots(
        len(differences), 2, squeeze=False, sharex='col', sharey='col', width_ratios=(1, 1.5)
    )
    for (left, right), method in zip(rows, differences):
        _draw_groups(left, differences[method], titles)
        for name, mask in masks.items():
            draw_classes(
                right, np.flatnonzero(mask), by_class[method][order], GROUP_COLORS[name], 0.45
            )
        _draw_parts(right, order, parts, by_part[method])
        left.set_title(
            f'{method} minus {baseline}', loc='left', fontsize=12, fontweight='bold', color=INK
        )
        right.set_ylabel('points')
        right.grid(axis='y', color=GRID, linewidth=0.8)
        right.axhline(0, color=INK, linewidth=0.8)
    bottom_left, bottom_right = rows[-1]
    bottom_left.set_xlabel('points')
    label_classes(bottom_right, order)
    bottom_right.set_xlabel(bottom_right.get_xlabel().replace(' (', '\n('))
    bottom_right.set_xlim(-0.5, len(order) - 0.5)
    figure.suptitle(
        'Difference in accuracy',
        x=0.01,
        ha='left',
        **{k: v for k, v in TITLE.items() if k != 'loc'},
    )
    figure.supxlabel(_NOTE, x=0.01, ha='left', fontsize=9, color=SOFT)
    return save(figure, path)


def _draw_groups(axes: Axes, differences: dict[str, Difference], titles: dict[str, str]) -> None:
    """A dot with a whisker for each group, its number beside it."""
    for row, (name, difference) in enumerate(differences.items()):
        color = GROUP_COLORS.get(name, INK)
        _draw_interval(axes, difference, 'o', color, x=difference.value, y=row)
        axes.text(
            1.02,
            row,
            f'{difference.value:+.2f}'.replace('-', '\N{MINUS SIGN}'),
            transform=axes.get_yaxis_transform(),
            va='center',
            color=INK,
        )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(differences)), [titles[name] for name in differences])
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.grid(axis='x', color=GRID, linewidth=0.8)
    clean(axes)
    axes.tick_params(axis='y', length=0)


def _draw_parts(
    axes: Axes, order: np.ndarray, parts: Sequence[np.ndarray], differences: Sequence[Difference]
) -> None:
    position = np.argsort(order)
    for part, difference in zip(parts, differences):
        _draw_interval(
            axes, difference, 'D', INK, x=position[part].mean(), y=difference.value, upright=True
        )
    clean(axes)


def _draw_interval(
    axes: Axes,
    difference: Difference,
    marker: str,
    color: str,
    x: float,
    y: float,
    upright: bool = False,
) -> None:
    reach = np.array([[difference.value - difference.low], [difference.high - difference.value]])
    told_apart = difference.verdict in ('better', 'worse')
    axes.errorbar(
        x,
        y,
        **{'yerr' if upright else 'xerr': reach},
        fmt=marker,
        color=color,
        markersize=4 if upright else 7,
        markerfacecolor=color if told_apart else 'white',
        elinewidth=1.2 if upright else 2,
    )
