"""Plots over classes, from the largest to the smallest."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ride_mm.analysis.style import GROUP_COLORS, INK, clean, new_figure, save, set_head
from ride_mm.datasets.class_groups import ClassGroups

MAX_BARS = 120
MAX_DOTS = 2000


def plot_accuracy_by_class(
    accuracy: Sequence[float] | np.ndarray,
    figures: dict[str, float],
    groups: ClassGroups,
    path: str | Path,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Plot the accuracy of every class above its number of training images.

    Classes are sorted from the largest to the smallest and colored by group.
    The plot is legible for 10 to some ten thousand classes.

    Args:
        accuracy (Sequence[float] | np.ndarray): Accuracy of each class in
            percent, (K, ); NaN for a class without test images.
        figures (dict[str, float]): The output of :func:`.long_tail_accuracy`,
            for the title and the mean of each group.
        groups (ClassGroups): The groups of the K classes.
        path (str | Path): Where to save the plot, see :func:`.save`.
        class_names (Sequence[str], optional): K names, shown for up to 30
            classes. Defaults to None.

    Returns:
        Path: The file.
    """
    if len(accuracy) != len(groups):
        raise ValueError(f'{len(accuracy)} accuracies do not fit {len(groups)} classes.')
    order = groups.largest_first
    accuracy = np.asarray(accuracy, float).take(order)
    counts = groups.counts[order]

    figure = new_figure(6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    floor = max(counts.min() / 2, 0.8)
    for name, mask in groups.masks.items():
        where = np.flatnonzero(mask[order])
        mean = figures.get(name, np.nan)
        label = f'{groups.titles[name]}: {where.size} class' + 'es' * (where.size > 1)
        draw_classes(top, where, accuracy, GROUP_COLORS[name])
        edges = np.append(where, where[-1] + 1) - 0.5
        bottom.stairs(
            np.maximum(counts[where], floor),
            edges,
            baseline=floor,
            fill=True,
            color=GROUP_COLORS[name],
            label=label if np.isnan(mean) else f'{label}, {mean:.1f}%',
        )
        top.hlines(mean, edges[0], edges[-1], colors=INK, linestyles=(0, (4, 3)))

    handles = bottom.get_legend_handles_labels()[0]
    set_head(figure, f'Accuracy by class: {figures["overall"]:.1f}% overall', handles)
    top.set(ylabel='accuracy (%)', ylim=(0, 100))
    bottom.set(ylabel='training images', yscale='log')
    bottom.set(ylim=(floor, None), xlim=(-0.5, len(counts) - 0.5))
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'))
    label_classes(bottom, order, class_names, bar_note(len(order)))
    clean(top, grid='y')
    clean(bottom, grid='y')
    return save(figure, path)


def draw_classes(
    axes: Axes, where: np.ndarray, accuracy: np.ndarray, color: str, alpha: float = 0.85
) -> None:
    """Draw one bar per class, or per up to K / 120 neighboring classes.

    Args:
        axes (Axes): The axes.
        where (np.ndarray): Positions of the classes to draw.
        accuracy (np.ndarray): Accuracy of all K classes in percent, or a
            difference in points, sorted by position, (K, ); NaN for a class
            without test images.
        color (str): Color of the bars.
        alpha (float): Opacity of the bars. Defaults to 0.85.
    """
    size = _classes_per_bar(accuracy.size)
    if size > 1 and accuracy.size <= MAX_DOTS:
        axes.plot(where, accuracy[where], '.', color=INK, alpha=0.3, ms=3, mew=0, clip_on=False)
    parts = np.array_split(where, math.ceil(where.size / size))
    axes.bar(
        [part.mean() for part in parts],
        [_mean(accuracy[part]) for part in parts],
        width=[part.size * (0.8 if size == 1 else 1) for part in parts],
        color=color,
        alpha=alpha,
    )


def _classes_per_bar(num_classes: int) -> int:
    return math.ceil(num_classes / MAX_BARS)


def _mean(accuracy: np.ndarray) -> float:
    """The mean over the tested classes, NaN if there are none."""
    tested = accuracy[np.isfinite(accuracy)]
    return float(tested.mean()) if tested.size else np.nan


def bar_note(num_classes: int) -> str:
    """Explain what :func:`draw_classes` draws, if a bar is not one class."""
    size = _classes_per_bar(num_classes)
    if size == 1:
        return ''
    dots = 'dot: one class, ' if num_classes <= MAX_DOTS else ''
    return f' ({dots}bar: mean of up to {size} classes)'


def label_classes(
    axes: Axes,
    order: np.ndarray,
    class_names: Sequence[str] | None = None,
    note: str = '',
) -> None:
    """Label the axis of the classes, with their names if there are up to 30.

    Args:
        axes (Axes): The axes.
        order (np.ndarray): The classes, sorted by position.
        class_names (Sequence[str], optional): K names. Defaults to None.
        note (str): Explanation to add to the label. Defaults to ''.
    """
    if class_names is not None and len(order) <= 30:
        slanted = len(order) > 10
        axes.set_xticks(
            range(len(order)),
            [class_names[i] for i in order],
            rotation=45 if slanted else 0,
            ha='right' if slanted else 'center',
            parse_math=False,  # a name may contain dollar signs
        )
    axes.set_xlabel(f'classes, from the largest to the smallest{note}')
