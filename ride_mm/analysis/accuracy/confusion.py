"""Confusion between the many-, medium- and few-shot classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from ride_mm.analysis.style import (
    GROUP_COLORS,
    INK,
    PANEL_TITLE,
    clean,
    ink_on,
    new_figure,
    save,
    set_head,
)
from ride_mm.datasets.class_groups import GROUPS, ClassGroups
from ride_mm.evaluation.by_group import validate_labels

_CELL = GROUP_COLORS['many']
# Percent from which a cell is so dark that its text has to be light.
_DARK = 55


@dataclass(frozen=True)
class GroupConfusion:
    """Predicted groups of the images of each group.

    Groups are 'many', 'medium' and 'few'; those without test images, or
    without classes as a predicted group, are left out.

    Attributes:
        share (dict[str, dict[str, float]]): Percent of the images of a group
            that are predicted as a class of each group, correctly or not.
        right (dict[str, float]): Percent of the images of a group that are
            predicted correctly.
        to_larger (dict[str, float]): Percent of the errors of a group that
            go to a class with more training images. A group without errors
            is left out.
        by_chance (dict[str, float]): The same if errors were spread evenly
            over all other classes.
    """

    share: dict[str, dict[str, float]]
    right: dict[str, float]
    to_larger: dict[str, float]
    by_chance: dict[str, float]


def group_confusion(
    pred_label: np.ndarray, gt_label: np.ndarray, groups: ClassGroups
) -> GroupConfusion:
    """Compute how often classes of different groups are confused.

    Args:
        pred_label (np.ndarray): Predicted labels, (N, ).
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups): The groups of the K classes.

    Returns:
        GroupConfusion: The confusion.

    Raises:
        UserError: If a label is not a class.
    """
    counts = groups.counts
    validate_labels(gt_label, len(counts), 'True label')
    validate_labels(pred_label, len(counts), 'Predicted label')
    members = groups.of_images(gt_label)
    members.pop('overall', None)
    hits = pred_label == gt_label
    errors = {name: images & ~hits for name, images in members.items() if (images & ~hits).any()}
    larger = counts[pred_label] > counts[gt_label]
    # The share of larger classes among the other ones.
    rank = np.searchsorted(np.sort(counts), counts, side='right')
    chance = (len(counts) - rank)[gt_label] / max(len(counts) - 1, 1)
    return GroupConfusion(
        share={
            name: {
                other: _percent(mask[pred_label], images) for other, mask in groups.masks.items()
            }
            for name, images in members.items()
        },
        right={name: _percent(hits, images) for name, images in members.items()},
        to_larger={name: _percent(larger, wrong) for name, wrong in errors.items()},
        by_chance={name: _percent(chance, wrong) for name, wrong in errors.items()},
    )


def _percent(values: np.ndarray, images: np.ndarray) -> float:
    return 100.0 * float(np.mean(values[images]))


def plot_group_confusion(confusion: GroupConfusion, groups: ClassGroups, path: str | Path) -> Path:
    """Plot the predicted groups, and the errors that go to larger classes.

    Args:
        confusion (GroupConfusion): See :func:`group_confusion`.
        groups (ClassGroups): The groups of the classes, for the labels.
        path (str | Path): Where to save the plot, see :func:`.save`.

    Returns:
        Path: The file.
    """
    rows = len(confusion.share)
    figure = new_figure(2.0 + 0.85 * rows)
    cells, bars = figure.subplots(1, 2, width_ratios=(1.5, 1))
    titles = [groups.titles[name].replace(' (', '\n(') for name in confusion.share]
    _draw_cells(cells, confusion)
    _draw_errors(bars, confusion)
    for axes in (cells, bars):
        axes.set_yticks(range(rows), titles)
        axes.set_ylim(rows - 0.5, -0.5)
        clean(axes)
        axes.tick_params(length=0)
    cells.spines[:].set_visible(False)
    cells.set_ylabel('true class')
    bars.tick_params(labelleft=False)
    tick = Line2D([], [], color=INK, marker='|', markersize=10, markeredgewidth=2, linestyle='')
    tick.set_label('if errors were spread evenly over all other classes')
    set_head(figure, 'Predicted group by true group', [tick])
    return save(figure, path)


def _draw_cells(axes: Axes, confusion: GroupConfusion) -> None:
    columns = [name for name in GROUPS if name in next(iter(confusion.share.values()))]
    for row, (name, shares) in enumerate(confusion.share.items()):
        for column, other in enumerate(columns):
            share = shares[other]
            corner, alpha = (column - 0.49, row - 0.48), 0.04 + 0.92 * share / 100
            axes.add_patch(Rectangle(corner, 0.98, 0.96, color=_CELL, alpha=alpha, linewidth=0))
            text = f'{share:.1f}%'
            if other == name:
                text += f'\n({confusion.right[name]:.1f}%)'
            ink = ink_on(_CELL) if share > _DARK else INK
            axes.text(column, row, text, ha='center', va='center', fontsize=11, color=ink)
    axes.set_xticks(range(len(columns)), columns)
    axes.set(xlim=(-0.5, len(columns) - 0.5), xlabel='predicted class')
    axes.set_title('images (in brackets: correct)', **PANEL_TITLE)


def _draw_errors(axes: Axes, confusion: GroupConfusion) -> None:
    for row, name in enumerate(confusion.share):
        if name not in confusion.to_larger:
            axes.text(2, row, 'no errors', va='center', color=INK)
            continue
        share, chance = confusion.to_larger[name], confusion.by_chance[name]
        axes.barh(row, share, height=0.5, color=GROUP_COLORS[name])
        axes.vlines(chance, row - 0.33, row + 0.33, color=INK, linewidth=2)
        inside = share > _DARK / 2
        x = 2 if inside else max(share, chance) + 2
        ink = ink_on(GROUP_COLORS[name]) if inside else INK
        axes.text(x, row, f'{share:.0f}%', va='center', color=ink)
    axes.set(xlim=(0, 100), xlabel='share of the errors')
    axes.set_title('errors that go to larger classes', **PANEL_TITLE)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
