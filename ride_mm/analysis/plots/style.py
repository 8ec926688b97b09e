"""What all plots have in common."""
from pathlib import Path
from typing import Union

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ride_mm.utils.errors import UserError

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
FORMATS = ('.png', '.svg', '.pdf')
DPI = 150
# Text stays text, and the same figure gives the same file.
_RC = {'svg.fonttype': 'none', 'svg.hashsalt': 'ride_mm'}


def clean(axes: Axes) -> None:
    """Take away what does not inform."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(colors=SOFT, labelcolor=INK)
    axes.set_axisbelow(True)


def check_format(path: Union[str, Path]) -> None:
    """Check, before the work, that a picture can have this name.

    Raises:
        UserError: If it does not end in ``.png``, ``.svg`` or ``.pdf``.
    """
    if Path(path).suffix not in FORMATS:
        raise UserError(f'{path}: a picture has to end in one of '
                        f'{", ".join(FORMATS)}')


def save(figure: Figure, path: Union[str, Path]) -> Path:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {} if path.suffix == '.png' else dict(Date=None)
    if path.suffix == '.pdf':
        metadata = dict(CreationDate=None)
    with rc_context(_RC):
        figure.savefig(path, dpi=DPI, facecolor='white', metadata=metadata)
    return path
