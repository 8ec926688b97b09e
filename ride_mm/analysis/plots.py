from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from ride_mm.datasets.class_counts import GROUPS, group_masks
from ride_mm.evaluation.class_group_metric import group_titles
from ride_mm.evaluation.expert_usage import key_prefix, most_experts

# Okabe and Ito's palette: distinct for every common form of colour blindness.
GROUP_COLORS = dict(many='#0072B2', medium='#E69F00', few='#009E73')
INK, SOFT, GRID = '#222222', '#666666', '#dddddd'
TITLE = dict(loc='left', fontsize=15, fontweight='bold', color=INK)
LEGEND = dict(
    loc='lower left',
    bbox_to_anchor=(0, 1),
    frameon=False,
    handlelength=1,
    handletextpad=.5,
    columnspacing=1.5,
    borderaxespad=.4,
    borderpad=0)
DPI = 150
MAX_BARS = 120
MAX_DOTS = 2000


def plot_accuracy_by_class(accuracy: Sequence[float],
                           class_counts: Sequence[int],
                           path: Union[str, Path],
                           overall: float,
                           thresholds: Sequence[int] = (20, 100),
                           group_accuracy: Optional[Dict[str, float]] = None,
                           class_names: Optional[Sequence[str]] = None
                           ) -> Path:
    """Draw the accuracy of every class above its number of training images.

    The classes stand from the largest to the smallest, coloured by group.
    Legible from 10 to some ten thousand classes.

    Args:
        accuracy (Sequence[float]): Percent per class with length K; NaN for
            a class that was not tested.
        class_counts (Sequence[int]): Training images per class, K numbers.
        path (str | Path): The PNG file to write.
        overall (float): Accuracy over all images, percent, for the title.
        thresholds (Sequence[int]): The smallest and the largest medium-shot
            class. Defaults to (20, 100).
        group_accuracy (dict[str, float], optional): Percent under 'many',
            'medium' and 'few'. Defaults to None, which means the mean over
            the classes of the group.
        class_names (Sequence[str], optional): Names, written below when
            there are up to 30 classes. Defaults to None.

    Returns:
        Path: The file.
    """
    accuracy, counts = np.asarray(accuracy, float), np.asarray(class_counts)
    if accuracy.shape != counts.shape or accuracy.ndim != 1:
        raise ValueError('accuracy and class_counts must both have shape '
                         f'(K, ), but got {accuracy.shape} and '
                         f'{counts.shape}.')
    order = np.argsort(-counts, kind='stable')
    accuracy, counts = accuracy[order], counts[order]
    masks = group_masks(counts, thresholds)
    means = group_accuracy or {
        name: _mean(accuracy[mask])
        for name, mask in masks.items()
    }

    figure = Figure(figsize=(10, 6), layout='constrained')
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    floor = max(counts.min() / 2, .8)
    for name, mask in masks.items():
        where, mean = np.flatnonzero(mask), means.get(name, np.nan)
        _draw_classes(top, where, accuracy, GROUP_COLORS[name])
        edges = np.append(where, where[-1] + 1) - .5
        bottom.stairs(
            np.maximum(counts[where], floor),
            edges,
            baseline=floor,
            fill=True,
            color=GROUP_COLORS[name],
            label=_group_label(name, where.size, mean, thresholds))
        top.hlines(
            mean, edges[0], edges[-1], colors=INK, linestyles=(0, (4, 3)))

    top.set_title(f'Accuracy by class: {overall:.1f}% overall', pad=34,
                  **TITLE)
    top.legend(
        handles=bottom.get_legend_handles_labels()[0], **LEGEND,
        ncols=len(masks))
    top.set(ylabel='accuracy (%)', ylim=(0, 100))
    bottom.set(
        ylabel='training images',
        yscale='log',
        ylim=(floor, None),
        xlim=(-.5, len(counts) - .5))
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'))
    _name_classes(bottom, order, class_names)
    for axes in (top, bottom):
        _clean(axes)
        axes.grid(axis='y', color=GRID, linewidth=.8)
    return _save(figure, path)


def _draw_classes(axes: Axes, where: np.ndarray, accuracy: np.ndarray,
                  color: str) -> None:
    """A bar per class, or where these are too thin per some neighbours."""
    size = _classes_per_bar(accuracy.size)
    if size > 1 and accuracy.size <= MAX_DOTS:
        axes.plot(where, accuracy[where], '.', color=INK, alpha=.3,
                  markersize=3, markeredgewidth=0, clip_on=False)
    parts = np.array_split(where, -(-where.size // size))
    axes.bar(
        [part.mean() for part in parts],
        [_mean(accuracy[part]) for part in parts],
        width=[part.size * (.8 if size == 1 else 1) for part in parts],
        color=color,
        alpha=.85)


def _classes_per_bar(num_classes: int) -> int:
    return 1 if num_classes <= MAX_BARS else -(-num_classes // MAX_BARS)


def _mean(accuracy: np.ndarray) -> float:
    """The mean over the classes that were tested, NaN without any."""
    tested = accuracy[np.isfinite(accuracy)]
    return float(tested.mean()) if tested.size else np.nan


def _group_label(name: str, num_classes: int, mean: float,
                 thresholds: Sequence[int]) -> str:
    noun = 'class' if num_classes == 1 else 'classes'
    label = f'{group_titles(thresholds)[name]}: {num_classes} {noun}'
    return label if np.isnan(mean) else f'{label}, {mean:.1f}%'


def _name_classes(axes: Axes, order: np.ndarray,
                  class_names: Optional[Sequence[str]]) -> None:
    if class_names is not None and len(order) <= 30:
        axes.set_xticks(
            range(len(order)), [class_names[i] for i in order],
            rotation=45 if len(order) > 10 else 0,
            ha='right' if len(order) > 10 else 'center')
    label = 'classes, from the largest to the smallest'
    size = _classes_per_bar(len(order))
    if size > 1:
        dots = 'dot: a class, ' if len(order) <= MAX_DOTS else ''
        label += f' ({dots}bar: mean of up to {size} classes)'
    axes.set_xlabel(label)


def plot_expert_usage(figures: Dict[str, float],
                      path: Union[str, Path],
                      thresholds: Sequence[int] = (20, 100)) -> Path:
    """Draw how many experts images run: overall, many, medium and few.

    Args:
        figures (dict[str, float]): What :func:`expert_usage` returns.
        path (str | Path): The PNG file to write.
        thresholds (Sequence[int]): The smallest and the largest medium-shot
            class, for the labels. Defaults to (20, 100).

    Returns:
        Path: The file.
    """
    prefixes = {
        name: key_prefix(name)
        for name in ('overall', *GROUPS)
        if f'{key_prefix(name)}mean' in figures
    }
    most = most_experts(figures)
    colors = _shades(most)

    figure = Figure(figsize=(10, 1.6 + .75 * len(prefixes)),
                    layout='constrained')
    axes = figure.subplots()
    rows = np.arange(len(prefixes))
    left = np.zeros(len(prefixes))
    for num in range(1, most + 1):
        shares = np.array(
            [figures[f'{prefix}used_{num}'] for prefix in prefixes.values()])
        axes.barh(
            rows,
            shares,
            left=left,
            height=.68,
            color=colors[num - 1],
            edgecolor='white',
            label=f'{num} expert' + 's' * (num > 1))
        _label_shares(axes, rows, left, shares, colors[num - 1])
        left += shares
    for row, prefix in zip(rows, prefixes.values()):
        axes.text(
            101.5,
            row,
            f"mean {figures[f'{prefix}mean']:.2f} experts\n"
            f"{100 * figures[f'{prefix}compute']:.0f}% of full compute",
            va='center',
            color=INK,
            fontsize=10)

    titles = group_titles(thresholds)
    axes.set_yticks(rows, [titles[name] for name in prefixes], fontsize=11)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel='share of the test images')
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_title(
        f"Experts used: {figures['mean']:.2f} of {most} on average",
        pad=34,
        **TITLE)
    axes.legend(**LEGEND, ncols=most)
    _clean(axes)
    axes.tick_params(axis='y', length=0)
    return _save(figure, path)


def _shades(num: int) -> List[tuple]:
    """Blues from light to dark: more experts, more ink."""
    light, dark = np.array([.78, .87, .95]), np.array([.03, .27, .50])
    return [
        tuple(light + (dark - light) * step)
        for step in np.linspace(0., 1., max(num, 2))[:num]
    ]


def _label_shares(axes: Axes, rows: np.ndarray, left: np.ndarray,
                  shares: np.ndarray, color: tuple) -> None:
    ink = INK if np.mean(color) > .55 else 'white'
    for row, start, share in zip(rows, left, shares):
        if share >= 5:  # narrower ones have no room for the number
            axes.text(
                start + share / 2,
                row,
                f'{share:.0f}%',
                ha='center',
                va='center',
                color=ink,
                fontsize=11)


def _clean(axes: Axes) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Union[str, Path]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor='white', format='png')
    return path
