"""Plots of how many experts images use, by class group and by class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from ride_mm.analysis.accuracy.accuracy_by_class import MAX_BARS, label_classes
from ride_mm.analysis.style import GROUP_COLORS, INK, clean, ink_on, new_figure, save, set_head
from ride_mm.datasets.class_groups import GROUPS, ClassGroups, key_prefix
from ride_mm.evaluation.expert_usage import most_experts

# Height of the strip below the bars that shows the class groups, in percent.
_STRIP = 7.0


def plot_expert_usage(figures: dict[str, float], groups: ClassGroups, path: str | Path) -> Path:
    """Plot how many experts images use: overall, many, medium and few.

    Args:
        figures (dict[str, float]): The output of :func:`.expert_usage`.
        groups (ClassGroups): The groups of the K classes.
        path (str | Path): The image file, see :func:`.save`.

    Returns:
        Path: The file.
    """
    names = [name for name in ('overall', *GROUPS) if f'{key_prefix(name)}mean' in figures]
    most = most_experts(figures)
    figure = new_figure(1.6 + 0.75 * len(names))
    axes = figure.subplots()
    left = np.zeros(len(names))
    for num, color in enumerate(_shades(most), start=1):
        shares = np.array([figures[f'{key_prefix(name)}used_{num}'] for name in names])
        bars = axes.barh(
            range(len(names)),
            shares,
            left=left,
            height=0.68,
            color=color,
            edgecolor='white',
            label=experts_label(num),
        )
        # Smaller pieces have no room for the number.
        labels = [f'{share:.0f}%' if share >= 5 else '' for share in shares]
        axes.bar_label(bars, labels, label_type='center', color=ink_on(color), fontsize=11)
        left += shares
    for row, prefix in enumerate(map(key_prefix, names)):
        axes.text(
            101.5,
            row,
            f'{figures[f"{prefix}mean"]:.2f} experts\n'
            f'{100 * figures[f"{prefix}compute"]:.0f}% compute',
            va='center',
            color=INK,
            fontsize=10,
        )
    axes.set_yticks(range(len(names)), [groups.titles[name] for name in names], fontsize=11)
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 100),
        xlabel='share of the test images; mean experts; compute relative to all experts',
    )
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    set_head(figure, f'Experts used: {figures["mean"]:.2f} of {most} on average')
    clean(axes)
    axes.tick_params(axis='y', length=0)
    return save(figure, path)


def experts_label(num: int) -> str:
    """Name a number of experts."""
    return f'{num} expert' + 's' * (num > 1)


def _shades(num: int) -> list[tuple]:
    """Blues from light to dark: more experts, more ink."""
    light, dark = np.array([0.78, 0.87, 0.95]), np.array([0.03, 0.27, 0.50])
    return [
        tuple(light + (dark - light) * step) for step in np.linspace(0.0, 1.0, max(num, 2))[:num]
    ]


def plot_experts_by_class(
    num_experts_used: np.ndarray,
    gt_label: np.ndarray,
    groups: ClassGroups,
    path: str | Path,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Plot how many experts the images of every class use.

    The tested classes are sorted from the largest to the smallest. If there
    are more than 120 of them, a bar is the mean over neighbouring classes.

    Args:
        num_experts_used (np.ndarray): Number of experts that each image used,
            shape (N, ), at least 1.
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups): The groups of the K classes.
        path (str | Path): The image file, see :func:`.save`.
        class_names (Sequence[str], optional): K names, shown for up to 30
            classes. Defaults to None.

    Returns:
        Path: The file.
    """
    shares = shares_by_class(num_experts_used, gt_label, len(groups))
    order = groups.largest_first
    order = order[~np.isnan(shares[order, 0])]
    figure = new_figure(4.2)
    axes = figure.subplots()
    parts = np.array_split(np.arange(len(order)), min(len(order), MAX_BARS))
    heights = np.array([shares[order[part]].mean(axis=0) for part in parts])
    bottom = np.zeros(len(parts))
    for height, (num, color) in zip(heights.T, enumerate(_shades(shares.shape[1]), start=1)):
        axes.bar(
            [part.mean() for part in parts],
            height,
            width=[part.size for part in parts],
            bottom=bottom,
            color=color,
            antialiased=False,
            label=experts_label(num),
        )
        bottom += height
    for name, mask in groups.masks.items():
        where = np.flatnonzero(mask[order])
        if where.size:
            strip = axes.barh(
                -0.6 * _STRIP, where.size, _STRIP, where[0] - 0.5, color=GROUP_COLORS[name]
            )
            ink = ink_on(GROUP_COLORS[name])
            axes.bar_label(strip, [name], label_type='center', fontsize=9, color=ink)
    note = f' ({MAX_BARS} bars, each the mean of its classes)' if len(order) > MAX_BARS else ''
    label_classes(axes, order, class_names, note)
    axes.set(xlim=(-0.5, len(order) - 0.5), ylim=(-1.2 * _STRIP, 100))
    axes.set_ylabel('share of the test images')
    axes.set_yticks(range(0, 101, 25))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    set_head(figure, 'Experts used by class')
    clean(axes)
    return save(figure, path)


def shares_by_class(
    num_experts_used: np.ndarray, gt_label: np.ndarray, num_classes: int
) -> np.ndarray:
    """Compute how many experts the images of each class use.

    Args:
        num_experts_used (np.ndarray): At least 1, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        num_classes (int): The number of classes K.

    Returns:
        np.ndarray: Percent of a class's images that use exactly 1..E
        experts, shape (K, E), where E is the largest number that any image
        uses; NaN for a class without images.
    """
    images = np.zeros((num_classes, num_experts_used.max()))
    np.add.at(images, (gt_label, num_experts_used - 1), 1)
    with np.errstate(invalid='ignore'):
        return 100.0 * images / images.sum(axis=1, keepdims=True)
