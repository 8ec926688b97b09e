from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ride_mm.analysis.accuracy.accuracy_by_class import MAX_BARS, label_classes
from ride_mm.analysis.routing.expert_usage import experts_label, shades
from ride_mm.analysis.style import GROUP_COLORS, clean, ink_on, new_figure, save, set_head
from ride_mm.datasets.class_groups import ClassGroups, GroupsLike

# Percent: the strip that says which classes are many-, medium-, few-shot.
_STRIP = 7.0


def plot_experts_by_class(
    num_experts_used: np.ndarray,
    gt_label: np.ndarray,
    groups: GroupsLike,
    path: str | Path,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Draw how many experts the images of every class run.

    The tested classes stand from the largest to the smallest. Where there
    are more than 120 of them, a bar is the mean over some neighbours.

    Args:
        num_experts_used (np.ndarray): Experts that each image ran, shape
            (N, ), 1 or more.
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        path (str | Path): The picture to write, see :func:`save`.
        class_names (Sequence[str], optional): Names, written below when
            there are up to 30 classes. Defaults to None.

    Returns:
        Path: The file.
    """
    groups = ClassGroups.of(groups)
    counts = groups.counts
    shares = shares_by_class(num_experts_used, gt_label, len(counts))
    order = np.argsort(-counts, kind='stable')
    order = order[~np.isnan(shares[order, 0])]
    figure = new_figure(4.2)
    axes = figure.subplots()
    _draw_shares(axes, shares[order])
    for name, mask in groups.masks.items():
        _draw_group(axes, np.flatnonzero(mask[order]), name)
    label_classes(axes, order, class_names)
    text = 'classes, from the largest to the smallest'
    if len(order) > MAX_BARS:
        text += f' ({MAX_BARS} bars, each the mean of its classes)'
    axes.set(
        xlim=(-0.5, len(order) - 0.5),
        ylim=(-1.2 * _STRIP, 100),
        xlabel=text,
        ylabel='share of the test images',
    )
    axes.set_yticks(range(0, 101, 25))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    set_head(figure, 'Experts used by class')
    clean(axes)
    return save(figure, path)


def shares_by_class(
    num_experts_used: np.ndarray, gt_label: np.ndarray, num_classes: int
) -> np.ndarray:
    """Compute how many experts the images of each class run.

    Args:
        num_experts_used (np.ndarray): 1 or more, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        num_classes (int): The number of classes K.

    Returns:
        np.ndarray: Percent of a class's images that run exactly 1..E
        experts, shape (K, E), E being the largest number that any image
        runs; NaN for a class without images.
    """
    images = np.zeros((num_classes, num_experts_used.max()))
    np.add.at(images, (gt_label, num_experts_used - 1), 1)
    with np.errstate(invalid='ignore'):
        return 100.0 * images / images.sum(axis=1, keepdims=True)


def _draw_shares(axes: Axes, shares: np.ndarray) -> None:
    """A stacked bar per class, or where these are too thin per neighbours."""
    bars = min(len(shares), MAX_BARS)
    parts = np.array_split(np.arange(len(shares)), bars)
    heights = np.array([shares[part].mean(axis=0) for part in parts])
    bottom = np.zeros(bars)
    for number, color in enumerate(shades(shares.shape[1])):
        axes.bar(
            [part.mean() for part in parts],
            heights[:, number],
            width=[part.size for part in parts],
            bottom=bottom,
            color=color,
            antialiased=False,
            label=experts_label(number + 1),
        )
        bottom += heights[:, number]


def _draw_group(axes: Axes, where: np.ndarray, name: str) -> None:
    """A strip below the bars of a group."""
    if not where.size:
        return
    left, right = where[0] - 0.5, where[-1] + 0.5
    color = GROUP_COLORS[name]
    axes.barh(-0.6 * _STRIP, right - left, _STRIP, left, color=color)
    axes.text(
        (left + right) / 2,
        -0.6 * _STRIP,
        name,
        ha='center',
        va='center_baseline',
        fontsize=9,
        color=ink_on(color),
    )
