from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ride_mm.analysis.style import GROUP_COLORS, INK, SOFT, TITLE, clean, save

# Narrower pieces, as shares of the longest bar, have no room for their name.
_ROOM = 0.1


def plot_compute(
    pieces: dict[str, int],
    path: str | Path,
    num_experts: int = 0,
    shares: Sequence[float] | None = None,
) -> Path:
    """Draw what an image costs by the number of experts it uses.

    Args:
        pieces (dict[str, int]): Multiply-accumulates by name: trunk, then
            each expert; of a network without experts any parts.
        path (str | Path): The picture to write, see :func:`save`.
        num_experts (int): Number of experts E. Defaults to 0, which means
            that every image takes all pieces.
        shares (Sequence[float], optional): Percent of the images that use
            exactly 1..E experts, for one more bar of what is expected.
            Defaults to None.

    Returns:
        Path: The file.
    """
    bars = _bars(len(pieces), num_experts, shares)
    macs = np.array(list(pieces.values()), dtype=np.float64)
    unit, symbol = (1e9, 'G') if macs.sum() >= 1e9 else (1e6, 'M')
    widths = macs / unit

    figure = Figure(figsize=(10, 1.4 + 0.75 * len(bars)), layout='constrained')
    axes = figure.subplots()
    for row, (taken, note) in enumerate(bars.values()):
        _draw_bar(axes, row, list(pieces), widths * taken, widths.sum())
        total = widths @ taken
        text = f' {total:.1f} {symbol}{note}'
        axes.text(total, row, text, va='center', color=INK, fontsize=11)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=11)
    axes.set(
        xlim=(0, 1.3 * widths.sum()),
        xlabel=f'multiply-accumulates ({symbol})',
        ylim=(len(bars) - 0.5, -0.5),
    )
    axes.set_title('Compute of an image', **TITLE)
    clean(axes)
    axes.tick_params(axis='y', length=0)
    return save(figure, path)


def _bars(num_pieces: int, num_experts: int, shares: Sequence[float] | None) -> dict[str, tuple]:
    """How much each bar takes of the pieces, and a note on it, by name."""
    if num_experts == 0:
        return {'': (np.ones(num_pieces), '')}
    reached = np.tri(num_experts, num_pieces, num_pieces - num_experts)
    notes = [''] * num_experts
    if shares is not None:
        notes = [f', {share:.1f}% of images' for share in shares]
    bars = {
        f'{num} expert' + 's' * (num > 1): (taken, note)
        for num, (taken, note) in enumerate(zip(reached, notes), start=1)
    }
    if shares is not None:
        bars['expected'] = np.asarray(shares) @ reached / sum(shares), ''
    return bars


def _draw_bar(
    axes: Axes, row: int, names: Sequence[str], widths: np.ndarray, longest: float
) -> None:
    """One bar, piece after piece, named where there is room."""
    left = widths.cumsum() - widths
    colors = [SOFT] + [GROUP_COLORS['many']] * (len(names) - 1)
    axes.barh(row, widths, left=left, height=0.68, color=colors, ec='white')
    for name, start, width in zip(names, left, widths):
        if width > _ROOM * longest:
            axes.text(
                start + width / 2, row, name, ha='center', va='center', color='white', fontsize=10
            )
