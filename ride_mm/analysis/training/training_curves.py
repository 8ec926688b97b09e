from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ride_mm.analysis.style import (
    GRID,
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

LOSSES = dict(
    loss_cls=('classification', '#0072B2'),
    loss_diversity=('diversity', '#CC79A7'),
    loss_distill=('distillation', '#E69F00'),
)
_STAGE_2 = dict(color=SOFT, alpha=0.2)
_MAX_MARKED = 40


def plot_training_curves(curves: TrainingCurves, path: str | Path) -> Path:
    """Draw accuracy and losses over the epochs, both stages marked.

    Args:
        curves (TrainingCurves): The course of a training.
        path (str | Path): The picture to write, see :func:`save`.

    Returns:
        Path: The file.
    """
    panels = {
        'accuracy (%)': _accuracies(curves),
        'loss of the experts': _losses(curves, LOSSES),
        'loss of the router': _losses(curves, ('loss_router',)),
    }
    if not panels['loss of the experts'] and not panels['loss of the router']:
        panels['loss'] = _losses(curves, ('loss',))
    panels = {title: lines for title, lines in panels.items() if lines}
    handles: list[Artist] = []
    figure = new_figure(4.2)
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False).flat, panels.items()
    ):
        _draw(axes, lines)
        axes.set_title(title, **PANEL_TITLE)
        if title == 'accuracy (%)':
            handles += axes.get_lines()
        elif len(lines) > 1:
            axes.legend(frameon=False, fontsize=9, handlelength=1)
        if curves.router_begin and 'router' not in title:
            axes.axvspan(
                curves.router_begin + 0.5, max(curves.losses) + 0.5, **_STAGE_2, linewidth=0
            )
    if curves.router_begin:
        handles.append(Patch(**_STAGE_2, label='stage 2: the router'))
    set_head(figure, _title(curves), handles)
    return save(figure, path)


def _title(curves: TrainingCurves) -> str:
    epochs = max(curves.losses)
    title = f'Training: {epochs} epoch' + 's' * (epochs > 1)
    accuracies = [
        metrics['long_tail/overall']
        for metrics in curves.metrics.values()
        if 'long_tail/overall' in metrics
    ]
    return title + (f', {accuracies[-1]:.1f}% at the end' if accuracies else '')


def _accuracies(curves: TrainingCurves) -> dict[str, tuple]:
    lines = {}
    for name in ('overall', *GROUPS):
        values = {
            epoch: metrics[f'long_tail/{name}']
            for epoch, metrics in curves.metrics.items()
            if f'long_tail/{name}' in metrics
        }
        if values:
            lines[name] = values, GROUP_COLORS.get(name, INK)
    return lines


def _losses(curves: TrainingCurves, names: Sequence[str]) -> dict[str, tuple]:
    lines = {}
    for name in names:
        values = {epoch: losses[name] for epoch, losses in curves.losses.items() if name in losses}
        if values:
            label, color = LOSSES.get(name, (name, SOFT))
            lines[label] = values, color
    return lines


def _draw(axes: Axes, lines: dict[str, tuple]) -> None:
    for label, (values, color) in lines.items():
        axes.plot(
            list(values),
            list(values.values()),
            color=color,
            linewidth=2.2 if label == 'overall' else 1.6,
            marker='.' if len(values) <= _MAX_MARKED else '',
            label=label,
        )
    axes.grid(axis='y', color=GRID, linewidth=0.8)
    axes.set_xlabel('epoch')
    axes.xaxis.get_major_locator().set_params(integer=True)
    clean(axes)
