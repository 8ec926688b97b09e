from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ride_mm.analysis.style import INK, clean, ink_on, new_figure, save, set_head
from ride_mm.datasets.class_groups import GROUPS, Thresholds, group_titles, key_prefix
from ride_mm.evaluation.expert_usage import most_experts


def plot_expert_usage(
    figures: dict[str, float], path: str | Path, thresholds: Thresholds = 'ride'
) -> Path:
    """Draw how many experts images run: overall, many, medium and few.

    Args:
        figures (dict[str, float]): What :func:`expert_usage` returns.
        path (str | Path): The picture to write, see :func:`save`.
        thresholds (str | Sequence[int]): What many, medium and few are, see
            :class:`ClassGroups`. Defaults to "ride".

    Returns:
        Path: The file.
    """
    prefixes = {
        name: key_prefix(name)
        for name in ('overall', *GROUPS)
        if f'{key_prefix(name)}mean' in figures
    }
    most = most_experts(figures)
    colors = shades(most)

    figure = new_figure(1.6 + 0.75 * len(prefixes))
    axes = figure.subplots()
    rows = np.arange(len(prefixes))
    left = np.zeros(len(prefixes))
    for num in range(1, most + 1):
        shares = np.array([figures[f'{prefix}used_{num}'] for prefix in prefixes.values()])
        axes.barh(
            rows,
            shares,
            left=left,
            height=0.68,
            color=colors[num - 1],
            edgecolor='white',
            label=experts_label(num),
        )
        _label_shares(axes, rows, left, shares, colors[num - 1])
        left += shares
    for row, prefix in zip(rows, prefixes.values()):
        axes.text(
            101.5,
            row,
            f'{figures[f"{prefix}mean"]:.2f} experts\n'
            f'{100 * figures[f"{prefix}compute"]:.0f}% compute',
            va='center',
            color=INK,
            fontsize=10,
        )

    titles = [group_titles(thresholds)[name] for name in prefixes]
    axes.set_yticks(rows, titles, fontsize=11)
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 100),
        xlabel='share of the test images; mean experts; compute relative to all experts',
    )
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    set_head(figure, f'Experts used: {figures["mean"]:.2f} of {most} on average')
    clean(axes)
    axes.tick_params(axis='y', length=0)
    return save(figure, path)


def experts_label(num: int) -> str:
    """Name a number of experts."""
    return f'{num} expert' + 's' * (num > 1)


def shades(num: int) -> list[tuple]:
    """Blues from light to dark: more experts, more ink."""
    light, dark = np.array([0.78, 0.87, 0.95]), np.array([0.03, 0.27, 0.50])
    return [
        tuple(light + (dark - light) * step) for step in np.linspace(0.0, 1.0, max(num, 2))[:num]
    ]


def _label_shares(
    axes: Axes, rows: np.ndarray, left: np.ndarray, shares: np.ndarray, color: tuple
) -> None:
    ink = ink_on(color)
    for row, start, share in zip(rows, left, shares):
        # smaller ones have no room for the number
        if share >= 5:
            axes.text(
                start + share / 2,
                row,
                f'{share:.0f}%',
                ha='center',
                va='center',
                color=ink,
                fontsize=11,
            )
