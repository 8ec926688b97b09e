"""Colors, layout and saving, shared by all plots."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from ride_mm.utils.errors import UserError
from ride_mm.utils.files import write_file

# The palette of Okabe and Ito, which color-blind readers can tell apart.
GROUP_COLORS = dict(many='#0072B2', medium='#E69F00', few='#009E73')
INK, SOFT, GRID = '#222222', '#666666', '#dddddd'
# Text on colored areas, which are the same in a light and a dark theme.
_ON_LIGHT, _ON_DARK = '#212121', '#fdfdfd'
_HEAD: dict[str, Any] = dict(fontsize=15, fontweight='bold', color=INK)
PANEL_TITLE: dict[str, Any] = dict(loc='left', fontsize=11, color=INK)
LEGEND: dict[str, Any] = dict(
    loc='lower left',
    bbox_to_anchor=(0, 1),
    frameon=False,
    handlelength=1,
    handletextpad=0.5,
    columnspacing=1.5,
    borderaxespad=0.4,
    borderpad=0,
)
# File formats, and metadata that leaves out the date: the same figure gives
# the same file.
_FORMATS: dict[str, dict[str, None]] = {
    '.png': {},
    '.svg': dict(Date=None),
    '.pdf': dict(CreationDate=None),
}
_WIDTH = 10.0  # inches
_TEXT_SIZE, _POINTS, _EDGE = 10, 72, 4


def new_figure(height: float) -> Figure:
    """Create a figure of the usual width and a height in inches."""
    return Figure(figsize=(_WIDTH, height), layout='constrained')


def set_head(figure: Figure, title: str, handles: Sequence[Artist] | None = None) -> None:
    """Add a title and a legend above the axes of a figure.

    Args:
        figure (Figure): The figure.
        title (str): The title, wrapped to the width of the figure.
        handles (Sequence[Artist], optional): Labelled legend entries.
            Defaults to None, which means those of the first axes.
    """
    if handles is None:
        handles = figure.axes[0].get_legend_handles_labels()[0]
    width, height = figure.get_size_inches() * _POINTS
    # A bold letter is two thirds as wide as it is high.
    lines = textwrap.wrap(title, int(1.5 * width / _HEAD['fontsize']))
    figure.suptitle(
        '\n'.join(lines), x=_EDGE / width, y=1 - _EDGE / height, ha='left', va='top', **_HEAD
    )
    used = 2 * _EDGE + 1.3 * len(lines) * _HEAD['fontsize']
    if handles:
        rows, columns = _legend_grid(handles, width)
        legend = dict(LEGEND, loc='upper left', bbox_to_anchor=(0, 1 - used / height))
        figure.legend(handles=handles, ncols=columns, **legend)
        # The letters, and the space between two lines.
        used += 1.75 * _TEXT_SIZE * rows + _EDGE
    figure.set_layout_engine('constrained', rect=(0, 0, 1, 1 - used / height))


def _legend_grid(handles: Sequence[Artist], width: float) -> tuple[int, int]:
    """As few rows as fit into a width in points, with as few columns."""
    longest = max(
        TextPath((0, 0), str(handle.get_label()), _TEXT_SIZE).get_extents().width
        for handle in handles
    )
    # The colored box, and the space before the next column.
    fitting = max(1, int(width // (longest + 3 * _TEXT_SIZE)))
    rows = math.ceil(len(handles) / fitting)
    return rows, math.ceil(len(handles) / rows)


def ink_on(color: str | tuple) -> str:
    """Return the text color with the higher contrast on a colored area.

    Relative luminance and contrast are those of WCAG 2.1.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # At this luminance both colors have the same contrast.
    return _ON_LIGHT if luminance > 0.21 else _ON_DARK


def clean(axes: Axes, grid: Literal['x', 'y'] | None = None) -> None:
    """Remove the frame and mute the ticks of axes.

    Args:
        axes (Axes): The axes.
        grid (str, optional): The axis, 'x' or 'y', whose ticks get grid
            lines. Defaults to None, which means no grid.
    """
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)


def check_format(path: str | Path) -> None:
    """Check the name of a plot, before the work.

    Raises:
        UserError: If it does not end in ``.png``, ``.svg`` or ``.pdf``.
    """
    if Path(path).suffix not in _FORMATS:
        raise UserError(f'{path}: the name of a plot must end in one of {", ".join(_FORMATS)}')


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, in the format of the file name.

    Args:
        figure (Figure): The figure.
        path (str | Path): A ``.png``, ``.svg`` or ``.pdf`` file. Its folder
            is created if needed.

    Returns:
        Path: The file.

    Raises:
        UserError: If the name ends in something else.
    """
    check_format(path)
    path = Path(path)
    content = io.BytesIO()
    # Text stays text, and the ids in the file do not change.
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'ride_mm'}):
        figure.savefig(
            content,
            format=path.suffix[1:],
            dpi=150,
            facecolor='white',
            metadata=_FORMATS[path.suffix],
        )
    write_file(path, content.getvalue())
    return path
