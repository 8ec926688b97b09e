from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ride_mm.analysis.style import GRID, GROUP_COLORS, INK, clean, new_figure, save, set_head
from ride_mm.datasets.class_groups import ClassGroups, GroupsLike

MAX_BARS = 120
MAX_DOTS = 2000


def plot_accuracy_by_class(
    accuracy: Sequence[float],
    groups: GroupsLike,
    path: str | Path,
    overall: float,
    group_accuracy: dict[str, float] | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Draw the accuracy of every class above its number of training images.

    The classes stand from the largest to the smallest, coloured by group.
    Legible from 10 to some ten thousand classes.

    Args:
        accuracy (Sequence[float]): Percent per class with length K; NaN for
            a class that was not tested.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        path (str | Path): The picture to write, see :func:`save`.
        overall (float): Accuracy over all images, percent, for the title.
        group_accuracy (dict[str, float], optional): Percent under 'many',
            'medium' and 'few'. Defaults to None, which means the mean over
            the classes of the group.
        class_names (Sequence[str], optional): Names, written below when
            there are up to 30 classes. Defaults to None.

    Returns:
        Path: The file.
    """
    groups = ClassGroups.of(groups)
    accuracy, counts = np.asarray(accuracy, float), groups.counts
    if accuracy.shape != counts.shape or accuracy.ndim != 1:
        raise ValueError(
            'accuracy and class_counts must both have shape '
            f'(K, ), but got {accuracy.shape} and '
            f'{counts.shape}.'
        )
    order = np.argsort(-counts, kind='stable')
    accuracy, counts = accuracy[order], counts[order]
    masks = {name: mask[order] for name, mask in groups.masks.items()}
    means = group_accuracy or {name: _mean(accuracy[mask]) for name, mask in masks.items()}

    figure = new_figure(6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    floor = max(counts.min() / 2, 0.8)
    for name, mask in masks.items():
        where, mean = np.flatnonzero(mask), means.get(name, np.nan)
        draw_classes(top, where, accuracy, GROUP_COLORS[name])
        edges = np.append(where, where[-1] + 1) - 0.5
        bottom.stairs(
            np.maximum(counts[where], floor),
            edges,
            baseline=floor,
            fill=True,
            color=GROUP_COLORS[name],
            label=_group_label(groups.titles[name], where.size, mean),
        )
        top.hlines(mean, edges[0], edges[-1], colors=INK, linestyles=(0, (4, 3)))

    set_head(
        figure, f'Accuracy by class: {overall:.1f}% overall', bottom.get_legend_handles_labels()[0]
    )
    top.set(ylabel='accuracy (%)', ylim=(0, 100))
    bottom.set(
        ylabel='training images', yscale='log', ylim=(floor, None), xlim=(-0.5, len(counts) - 0.5)
    )
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'))
    label_classes(bottom, order, class_names)
    for axes in (top, bottom):
        clean(axes)
        axes.grid(axis='y', color=GRID, linewidth=0.8)
    return save(figure, path)


def draw_classes(
    axes: Axes, where: np.ndarray, accuracy: np.ndarray, color: str, alpha: float = 0.85
) -> None:
    """Draw a bar per class, or where these are too thin per some neighbours.

    Args:
        axes (Axes): Where to draw.
        where (np.ndarray): The places of the classes to draw.
        accuracy (np.ndarray): Percent, or points, of all K classes, from the
            largest to the smallest one, shape (K, ); NaN for a class that
            was not tested.
        color (str): The color of the bars.
        alpha (float): Their opacity. Defaults to 0.85.
    """
    size = _classes_per_bar(accuracy.size)
    if size > 1 and accuracy.size <= MAX_DOTS:
        axes.plot(
            where,
            accuracy[where],
            '.',
            color=INK,
            alpha=0.3,
            markersize=3,
            markeredgewidth=0,
            clip_on=False,
        )
    parts = np.array_split(where, -(-where.size // size))
    axes.bar(
        [part.mean() for part in parts],
        [_mean(accuracy[part]) for part in parts],
        width=[part.size * (0.8 if size == 1 else 1) for part in parts],
        color=color,
        alpha=alpha,
    )


def _classes_per_bar(num_classes: int) -> int:
    return 1 if num_classes <= MAX_BARS else -(-num_classes // MAX_BARS)


def _mean(accuracy: np.ndarray) -> float:
    """The mean over the classes that were tested, NaN without any."""
    tested = accuracy[np.isfinite(accuracy)]
    return float(tested.mean()) if tested.size else np.nan


def _group_label(title: str, num_classes: int, mean: float) -> str:
    noun = 'class' if num_classes == 1 else 'classes'
    label = f'{title}: {num_classes} {noun}'
    return label if np.isnan(mean) else f'{label}, {mean:.1f}%'


def label_classes(axes: Axes, order: np.ndarray, class_names: Sequence[str] | None = None) -> None:
    """Name up to 30 classes on the axis, and say how they stand there."""
    if class_names is not None and len(order) <= 30:
        slanted = len(order) > 10
        axes.set_xticks(
            range(len(order)),
            [class_names[i] for i in order],
            rotation=45 if slanted else 0,
            ha='right' if slanted else 'center',
            # a dollar is no formula
            parse_math=False,
        )
    label = 'classes, from the largest to the smallest'
    size = _classes_per_bar(len(order))
    if size > 1:
        dots = 'dot: a class, ' if len(order) <= MAX_DOTS else ''
        label += f' ({dots}bar: mean of up to {size} classes)'
    axes.set_xlabel(label)
