from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from ride_mm.analysis.accuracy.confusion import GroupConfusion
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
from ride_mm.datasets.class_groups import GROUPS, Thresholds, group_titles

_CELL = GROUP_COLORS['many']
# From this share on a cell is so dark that its text has to be light.
_DARK = 55


def plot_group_confusion(
    confusion: GroupConfusion, path: str | Path, thresholds: Thresholds = 'ride'
) -> Path:
    """Draw what many-, medium- and few-shot images are taken for, and how
    many of their errors go to larger classes.

    Args:
        confusion (GroupConfusion): What :func:`group_confusion` returns.
        path (str | Path): The picture to write, see :func:`save`.
        thresholds (str | Sequence[int]): What many, medium and few are, for
            the labels. Defaults to "ride".

    Returns:
        Path: The file.
    """
    rows = len(confusion.share)
    figure = new_figure(2.0 + 0.85 * rows)
    cells, bars = figure.subplots(1, 2, width_ratios=(1.5, 1))
    titles = [group_titles(thresholds)[name].replace(' (', '\n(') for name in confusion.share]
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
    set_head(
        figure,
        'Predicted group by true group',
        [
            Line2D(
                [],
                [],
                color=INK,
                marker='|',
                markersize=10,
                markeredgewidth=2,
                linestyle='',
                label='if errors were spread evenly over all other classes',
            )
        ],
    )
    return save(figure, path)


def _draw_cells(axes: Axes, confusion: GroupConfusion) -> None:
    columns = [name for name in GROUPS if name in next(iter(confusion.share.values()))]
    for row, (name, shares) in enumerate(confusion.share.items()):
        for column, other in enumerate(columns):
            share = shares[other]
            axes.add_patch(
                Rectangle(
                    (column - 0.49, row - 0.48),
                    0.98,
                    0.96,
                    color=_CELL,
                    alpha=0.04 + 0.92 * share / 100,
                    linewidth=0,
                )
            )
            text = f'{share:.1f}%'
            if other == name:
                text += f'\n({confusion.right[name]:.1f}%)'
            axes.text(
                column,
                row,
                text,
                ha='center',
                va='center',
                fontsize=11,
                color=ink_on(_CELL) if share > _DARK else INK,
            )
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
        axes.plot(
            [chance] * 2, [row - 0.33, row + 0.33], color=INK, linewidth=2, solid_capstyle='butt'
        )
        inside = share > _DARK / 2
        axes.text(
            2 if inside else max(share, chance) + 2,
            row,
            f'{share:.0f}%',
            va='center',
            color=ink_on(GROUP_COLORS[name]) if inside else INK,
        )
    axes.set(xlim=(0, 100), xlabel='share of the errors')
    axes.set_title('errors that go to larger classes', **PANEL_TITLE)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
