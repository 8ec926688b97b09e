from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ride_mm.analysis.style import (
    GROUP_COLORS,
    INK,
    PANEL_TITLE,
    SOFT,
    clean,
    new_figure,
    save,
    set_head,
)
from ride_mm.datasets.class_groups import Thresholds, group_titles
from ride_mm.evaluation import ReliabilityBins

_GAP = '#F0B48C'
_DASHES = (0, (4, 3))


def plot_reliability(
    bins: dict[str, ReliabilityBins],
    errors: dict[str, float],
    path: str | Path,
    thresholds: Thresholds = 'ride',
) -> Path:
    """Draw accuracy against confidence, overall and by class size.

    Below each diagram stands how many images have which confidence.

    Args:
        bins (dict[str, ReliabilityBins]): What :func:`reliability_bins`
            returns for 'overall', 'many', 'medium' and 'few'.
        errors (dict[str, float]): Expected calibration error of the same,
            percent.
        path (str | Path): The picture to write, see :func:`save`.
        thresholds (str | Sequence[int]): What many, medium and few are, for
            the titles. Defaults to "ride".

    Returns:
        Path: The file.
    """
    figure = new_figure(4.2)
    panels = figure.subplots(2, len(bins), squeeze=False, sharex=True, height_ratios=(3, 1))
    titles = group_titles(thresholds)
    for (top, bottom), (name, of_group) in zip(panels.T, bins.items()):
        color = GROUP_COLORS.get(name, SOFT)
        _draw_accuracy(top, of_group, color)
        _draw_images(bottom, of_group, color)
        top.set_title(f'{titles[name]}\nECE {errors[name]:.1f}%', **PANEL_TITLE)
    panels[0, 0].set_ylabel('accuracy')
    panels[1, 0].set_ylabel('images')
    set_head(
        figure,
        f'Reliability: ECE {errors["overall"]:.1f}%',
        [
            Patch(color=SOFT, label='accuracy of the bin'),
            Patch(color=_GAP, label='gap to its mean confidence'),
            Line2D([], [], color=INK, ls=_DASHES, label='perfect calibration'),
        ],
    )
    return save(figure, path)


def _draw_accuracy(axes: Axes, bins: ReliabilityBins, color: str) -> None:
    axes.bar(
        bins.edges[:-1],
        bins.accuracy,
        np.diff(bins.edges),
        align='edge',
        color=color,
        edgecolor='white',
        linewidth=0.5,
    )
    axes.bar(
        bins.edges[:-1],
        bins.confidence - bins.accuracy,
        np.diff(bins.edges),
        bottom=bins.accuracy,
        align='edge',
        color=_GAP,
        edgecolor='white',
        linewidth=0.5,
    )
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, ls=_DASHES)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    clean(axes)


def _draw_images(axes: Axes, bins: ReliabilityBins, color: str) -> None:
    axes.bar(
        bins.edges[:-1],
        bins.images,
        np.diff(bins.edges),
        align='edge',
        color=color,
        edgecolor='white',
        linewidth=0.5,
    )
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.tick_params(labelbottom=True)
    axes.set_xlabel('confidence')
    clean(axes)
