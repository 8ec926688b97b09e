from pathlib import Path

import numpy as np
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
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import ReliabilityBins

_GAP = '#F0B48C'
_DASHES = (0, (4, 3))


def plot_reliability(
    bins: dict[str, ReliabilityBins],
    errors: dict[str, float],
    groups: ClassGroups,
    path: str | Path,
) -> Path:
    """Plot accuracy against confidence, overall and by class size.

    The number of images per bin is shown below each diagram.

    Args:
        bins (dict[str, ReliabilityBins]): See :func:`.reliability_bins`, for
            'overall', 'many', 'medium' and 'few'.
        errors (dict[str, float]): Their expected calibration errors in
            percent.
        groups (ClassGroups): The groups of the classes, for the titles.
        path (str | Path): Where to save the plot, see :func:`.save`.

    Returns:
        Path: The file.
    """
    figure = new_figure(4.2)
    panels = figure.subplots(2, len(bins), squeeze=False, sharex=True, height_ratios=(3, 1))
    percent = PercentFormatter(1, decimals=0)
    for (top, bottom), (name, found) in zip(panels.T, bins.items()):
        left, width = found.edges[:-1], np.diff(found.edges)
        gap, color = found.confidence - found.accuracy, GROUP_COLORS.get(name, SOFT)
        for axes, height, base, fill in (
            (top, found.accuracy, 0, color),
            (top, gap, found.accuracy, _GAP),
            (bottom, found.images, 0, color),
        ):
            axes.bar(left, height, width, base, align='edge', color=fill, ec='white', lw=0.5)
            clean(axes)
        top.plot([0, 1], [0, 1], color=INK, linewidth=1, ls=_DASHES)
        top.set(xlim=(0, 1), ylim=(0, 1))
        top.yaxis.set_major_formatter(percent)
        top.set_title(f'{groups.titles[name]}\nECE {errors[name]:.1f}%', **PANEL_TITLE)
        bottom.set(xticks=[0, 0.5, 1], xlabel='confidence')
        bottom.xaxis.set_major_formatter(percent)
        bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        bottom.tick_params(labelbottom=True)
    panels[0, 0].set_ylabel('accuracy')
    panels[1, 0].set_ylabel('images')
    handles = [
        Patch(color=SOFT, label='accuracy of the bin'),
        Patch(color=_GAP, label='gap to its mean confidence'),
        Line2D([], [], color=INK, ls=_DASHES, label='perfect calibration'),
    ]
    set_head(figure, f'Reliability: ECE {errors["overall"]:.1f}%', handles)
    return save(figure, path)
