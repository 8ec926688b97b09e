"""Plot of a training's accuracy and losses."""

from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

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
from ride_mm.datasets.class_groups import GROUPS
from ride_mm.engine.scalars import TrainingCurves

# Labels and colors of the lines.
_ACCURACIES = {
    f'long_tail/{name}': (name, GROUP_COLORS.get(name, INK)) for name in ('overall', *GROUPS)
}
_LOSSES = dict(
    loss_cls=('classification', '#0072B2'),
    loss_diversity=('diversity', '#CC79A7'),
    loss_distill=('distillation', '#E69F00'),
)
_Lines = dict[str, tuple[dict[int, float], str]]
# With more epochs than this a line has no markers.
_MAX_MARKED = 40


def plot_training_curves(curves: TrainingCurves, path: str | Path) -> Path:
    """Plot accuracy and losses by epoch, with both stages marked.

    Args:
        curves (TrainingCurves): The course of a training.
        path (str | Path): The image file, see :func:`.save`.

    Returns:
        Path: The file.
    """
    panels = {
        'accuracy (%)': _lines(curves.metrics, _ACCURACIES),
        'loss of the experts': _lines(curves.losses, _LOSSES),
        'loss of the router': _lines(curves.losses, dict(loss_router=('loss_router', SOFT))),
    }
    if not panels['loss of the experts'] and not panels['loss of the router']:
        panels['loss'] = _lines(curves.losses, dict(loss=('loss', SOFT)))
    panels = {title: lines for title, lines in panels.items() if lines}
    epochs = max(curves.losses)
    title = f'Training: {epochs} epoch' + 's' * (epochs > 1)
    handles: list[Artist] = []
    figure = new_figure(4.2)
    all_axes = figure.subplots(1, len(panels), squeeze=False).flat
    for axes, (panel, lines) in zip(all_axes, panels.items()):
        _draw(axes, lines)
        axes.set_title(panel, **PANEL_TITLE)
        if panel == 'accuracy (%)':
            handles += axes.get_lines()
            if 'overall' in lines:
                title += f', {list(lines["overall"][0].values())[-1]:.1f}% at the end'
        elif len(lines) > 1:
            axes.legend(frameon=False, fontsize=9, handlelength=1)
        if curves.router_begin and 'router' not in panel:
            begin, end = curves.router_begin + 0.5, epochs + 0.5
            axes.axvspan(begin, end, color=SOFT, alpha=0.2, linewidth=0)
    if curves.router_begin:
        handles.append(Patch(color=SOFT, alpha=0.2, label='stage 2: the router'))
    set_head(figure, title, handles)
    return save(figure, path)


def _lines(records: dict[int, dict[str, float]], shown: dict[str, tuple[str, str]]) -> _Lines:
    """The values by epoch and the color of each line, by its label."""
    lines = {}
    for key, (label, color) in shown.items():
        values = {epoch: record[key] for epoch, record in records.items() if key in record}
        if values:
            lines[label] = values, color
    return lines


def _draw(axes: Axes, lines: _Lines) -> None:
    for label, (values, color) in lines.items():
        axes.plot(
            list(values),
            list(values.values()),
            color=color,
            linewidth=2.2 if label == 'overall' else 1.6,
            marker='.' if len(values) <= _MAX_MARKED else '',
            label=label,
        )
    axes.set_xlabel('epoch')
    axes.xaxis.set_major_locator(MaxNLocator('auto', steps=[1, 2, 2.5, 5, 10], integer=True))
    clean(axes, grid='y')
