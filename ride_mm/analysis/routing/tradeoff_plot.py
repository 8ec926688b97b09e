from pathlib import Path

from matplotlib.ticker import PercentFormatter

from ride_mm.analysis.routing.tradeoff import Curve, OperatingPoint
from ride_mm.analysis.style import GRID, GROUP_COLORS, INK, clean, new_figure, save, set_head

_POINTS = 400


def plot_tradeoff(curve: Curve, marked: dict[str, OperatingPoint], path: str | Path) -> Path:
    """Draw accuracy against compute, overall and by class size.

    Args:
        curve (Curve): What all thresholds give.
        marked (dict[str, OperatingPoint]): Points to mark, by their label.
        path (str | Path): The picture to write, see :func:`save`.

    Returns:
        Path: The file.
    """
    figure = new_figure(6)
    axes = figure.subplots()
    shown = curve.thinned(_POINTS)
    for name, accuracy in shown.accuracy.items():
        axes.plot(
            100 * shown.compute,
            accuracy,
            color=GROUP_COLORS.get(name, INK),
            linewidth=2.5 if name == 'overall' else 1.5,
            label=name,
        )
    middle = (shown.compute.min() + shown.compute.max()) / 2
    for number, (label, point) in enumerate(marked.items()):
        axes.axvline(100 * point.compute, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for name, accuracy in point.accuracy.items():
            axes.plot(  # off the curve where routers have different ones
                100 * point.compute, accuracy, 'o', color=GROUP_COLORS.get(name, INK)
            )
        right = point.compute > middle
        axes.annotate(
            f'{label}: {point.accuracy["overall"]:.1f}% overall',
            (100 * point.compute, number / 14 + 0.02),
            xycoords=('data', 'axes fraction'),
            xytext=(-4 if right else 4, 0),
            textcoords='offset points',
            ha='right' if right else 'left',
            color=INK,
        )
    set_head(figure, 'Accuracy against compute')
    axes.set(xlabel='compute of all experts', ylabel='accuracy (%)')
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(axis='y', color=GRID, linewidth=0.8)
    # the labels stand below the curves
    axes.margins(x=0.02, y=0.03 + len(marked) / 12)
    clean(axes)
    return save(figure, path)
