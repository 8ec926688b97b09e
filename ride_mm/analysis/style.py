"""What all plots have in common."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from ride_mm.compat.atomic_backend import write_file
from ride_mm.utils.errors import UserError

# Okabe and Ito's palette: distinct for every common form of colour blindness.
GROUP_COLORS = dict(many='#0072B2', medium='#E69F00', few='#009E73')
INK, SOFT, GRID = '#222222', '#666666', '#dddddd'
# Of text on colored areas, which stay as they are where the page is dark.
_ON_LIGHT, _ON_DARK = '#212121', '#fdfdfd'
TITLE = dict(loc='left', fontsize=15, fontweight='bold', color=INK)
PANEL_TITLE = dict(loc='left', fontsize=11, color=INK)
LEGEND = dict(
    loc='lower left',
    bbox_to_anchor=(0, 1),
    frameon=False,
    handlelength=1,
    handletextpad=0.5,
    columnspacing=1.5,
    borderaxespad=0.4,
    borderpad=0,
)
FORMATS = ('.png', '.svg', '.pdf')
DPI = 150
_WIDTH = 10.0  # inches
_TEXT_SIZE, _POINTS, _EDGE = 10, 72, 4
# Text stays text, and the same figure gives the same file.
_RC = {'svg.fonttype': 'none', 'svg.hashsalt': 'ride_mm'}


def new_figure(height: float) -> Figure:
    """Make a figure of the page's width, and a height in inches."""
    return Figure(figsize=(_WIDTH, height), layout='constrained')


def set_head(figure: Figure, title: str, handles: Sequence[Artist] | None = None) -> None:
    """Put a title and a legend on top of a figure, as broad as it allows.

    Args:
        figure (Figure): The figure.
        title (str): The title.
        handles (Sequence[Artist], optional): What the legend explains, with
            labels. Defaults to None, which means what is labelled in the
            first axes.
    """
    if handles is None:
        handles = figure.axes[0].get_legend_handles_labels()[0]
    width, height = figure.get_size_inches() * _POINTS
    style = dict(TITLE)
    # A bold letter is two thirds as wide as it is high.
    lines = textwrap.wrap(title, int(1.5 * width / style['fontsize']))
    figure.suptitle(
        '\n'.join(lines),
        x=_EDGE / width,
        y=1 - _EDGE / height,
        ha=style.pop('loc'),
        va='top',
        **style,
    )
    used = _EDGE + 1.3 * len(lines) * style['fontsize'] + _EDGE
    if handles:
        columns = _legend_columns(handles, width)
        figure.legend(
            handles=handles,
            ncols=columns,
            **dict(LEGEND, loc='upper left', bbox_to_anchor=(0, 1 - used / height)),
        )
        # The letters, and the space between two lines.
        used += 1.75 * _TEXT_SIZE * -(-len(handles) // columns) + _EDGE
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - used / height))


def _legend_columns(handles: Sequence[Artist], width: float) -> int:
    """As many as fit into a width in points, about alike in length."""
    longest = max(
        TextPath((0, 0), handle.get_label(), _TEXT_SIZE).get_extents().width for handle in handles
    )
    # The colored box, and the space before the next column.
    fitting = max(1, int(width // (longest + 3 * _TEXT_SIZE)))
    rows = -(-len(handles) // fitting)
    return -(-len(handles) // rows)


def ink_on(color: str | tuple) -> str:
    """The color of text that is best legible on a colored area.

    It is chosen by the relative luminance and contrast of WCAG 2.1.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Here the contrasts to both are alike.
    return _ON_LIGHT if luminance > 0.21 else _ON_DARK


def clean(axes: Axes) -> None:
    """Take away what does not inform."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    axes.set_axisbelow(True)


def check_format(path: str | Path) -> None:
    """Check, before the work, that a picture can have this name.

    Raises:
        UserError: If it does not end in ``.png``, ``.svg`` or ``.pdf``.
    """
    if Path(path).suffix not in FORMATS:
        raise UserError(f'{path}: the name of a plot must end in one of {", ".join(FORMATS)}')


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, in the format that the name ends in.

    Args:
        figure (Figure): What to write.
        path (str | Path): A ``.png``, ``.svg`` or ``.pdf`` file, in a folder
            that is made where it is missing.

    Returns:
        Path: The file.

    Raises:
        UserError: If the name ends in something else.
    """
    check_format(path)
    path = Path(path)
    metadata = {} if path.suffix == '.png' else dict(Date=None)
    if path.suffix == '.pdf':
        metadata = dict(CreationDate=None)
    content = io.BytesIO()
    with rc_context(_RC):
        figure.savefig(
            content, format=path.suffix[1:], dpi=DPI, facecolor='white', metadata=metadata
        )
    write_file(path, content.getvalue())
    return path
