from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ride_mm.analysis.style import GRID, INK, LEGEND, SOFT, TITLE, clean, save
from ride_mm.datasets.class_groups import GROUPS, Thresholds, group_titles

# With more bars in a panel there is no room for the numbers above them.
_MAX_LABELS = 12


def plot_bias_variance(
    figures: dict[str, dict[str, dict[str, float]]], path: str | Path, thresholds: Thresholds
) -> Path:
    """Draw bias and variance of each group, of some configs side by side.

    Args:
        figures (dict[str, dict]): What :func:`bias_variance` returns, by the
            name of the config.
        path (str | Path): The picture to write, see :func:`save`.
        thresholds (str | Sequence[int]): What many, medium and few are, for
            the labels.

    Returns:
        Path: The file.
    """
    groups = [
        name for name in (*GROUPS, 'overall') if any(name in values for values in figures.values())
    ]
    titles = [group_titles(thresholds)[name].replace(' (', '\n(') for name in groups]
    figure = Figure(figsize=(11, 4.8), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, measure in zip(panels, ('bias', 'variance')):
        _draw_bars(axes, figures, groups, measure)
        axes.set_title(measure.capitalize(), pad=12, **TITLE)
        axes.set_xticks(range(len(groups)), titles, fontsize=11)
        clean(axes)
        axes.tick_params(axis='x', length=0)
        axes.grid(axis='y', color=GRID, linewidth=0.8)
    panels[0].set_ylabel('% of the test images, averaged over classes')
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        **dict(LEGEND, loc='outside upper left', bbox_to_anchor=None),
        ncols=min(3, len(figures)),
    )
    return save(figure, path)


def _draw_bars(axes: Axes, figures: dict[str, dict], groups: Sequence[str], measure: str) -> None:
    colors = colormaps['viridis'](np.linspace(0.15, 0.8, len(figures)))
    width = 0.8 / len(figures)
    for i, (name, values) in enumerate(figures.items()):
        heights = [values.get(group, {}).get(measure, 0) for group in groups]
        bars = axes.bar(
            np.arange(len(groups)) + (i - (len(figures) - 1) / 2) * width,
            heights,
            width=0.94 * width,
            color=colors[i],
            label=name,
        )
        if len(figures) * len(groups) <= _MAX_LABELS:
            axes.bar_label(bars, fmt='%.1f', fontsize=9, padding=2, color=INK)
    axes.axvline(len(groups) - 1.5, color=SOFT, linewidth=0.8, ls=(0, (4, 3)))
