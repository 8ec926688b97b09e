"""A drawing of a network: trunk, experts, classifiers and routers."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmpretrain import get_model
from torch import nn

from ride_mm.analysis.routing.compute import Part, image_size, measure_compute
from ride_mm.analysis.routing.expert_usage import experts_label
from ride_mm.analysis.style import (
    GROUP_COLORS,
    INK,
    SOFT,
    check_format,
    new_figure,
    save,
    set_head,
)
from ride_mm.engine.config import load_config
from ride_mm.models import RIDEClassifier
from ride_mm.utils.errors import UserError

# Heights in inches: of a line of text, and of a row between two experts.
_LINE, _GAP = 0.21, 0.75
# Left edge and width of each column, of 100.
_TRUNK, _EXPERT, _CLASSIFIER, _MEAN = (13, 21), (39, 22), (66, 17), (88, 11)
_EXPERT_COLOR, _ROUTER_COLOR = GROUP_COLORS['many'], GROUP_COLORS['medium']


def describe_stages(module: nn.Module, call: Callable, *inputs) -> list[str]:
    """Describe the stages of a module: their names and the shapes they return.

    A stage is a part with a matrix or a kernel: a child, or what a list of
    layers holds. Layers of a list that return the same shape are one entry.

    Args:
        module (nn.Module): The module.
        call (Callable): What runs it, such as the module itself.
        *inputs: Arguments of the call, for one image.

    Returns:
        list[str]: Entries such as ``'layer2: 5 blocks, 24 x 16 x 16'``.
    """
    shapes: dict[nn.Module, str] = {}

    def keep_shape(stage: nn.Module, args: tuple, output: Any) -> None:
        tensor = output if isinstance(output, torch.Tensor) else output[0]
        shapes[stage] = ' x '.join(map(str, tensor.shape[1:]))

    handles = [stage.register_forward_hook(keep_shape) for stage in module.modules()]
    call(*inputs)
    for handle in handles:
        handle.remove()
    entries: dict[tuple[str, str], list[str]] = {}
    for name, child in module.named_children():
        if child in shapes:
            blocks = len(child) if isinstance(child, nn.Sequential) else 1
            members = [(f': {blocks} blocks' if blocks > 1 else '', child)]
        else:
            members = [(f'.{key}', layer) for key, layer in child.named_children()]
        for key, stage in members:
            if stage in shapes and any(p.dim() > 1 for p in stage.parameters()):
                entries.setdefault((name, shapes[stage]), []).append(key)
    return [
        f'{name}{keys[0]}{f" to {keys[-1][1:]}" if len(keys) > 1 else ""}, {shape}'
        for (name, shape), keys in entries.items()
    ]


def draw_architecture(
    config: str | Path,
    path: str | Path,
    shape: tuple[int, int] | None = None,
    cfg_options: dict | None = None,
) -> None:
    """Draw the network of a config, see :func:`plot_architecture`.

    Args:
        config (str | Path): The config file.
        path (str | Path): The image file, see :func:`.save`.
        shape (tuple[int], optional): Height and width of an image. Defaults
            to None, which means the training size of the config.
        cfg_options (dict, optional): Settings of the config to override.
            Defaults to None.

    Raises:
        UserError: If the model has no experts, or the name of the file ends
            in something else.
    """
    check_format(path)
    cfg = load_config(str(config), cfg_options)
    print(plot_architecture(get_model(cfg), (3, *(shape or image_size(cfg))), path))


@torch.no_grad()
def plot_architecture(
    model: RIDEClassifier, image_shape: tuple[int, int, int], path: str | Path
) -> Path:
    """Draw the parts of a network, with shapes, parameters and compute.

    Args:
        model (RIDEClassifier): The network, with E experts.
        image_shape (tuple[int]): (C, H, W).
        path (str | Path): The image file, see :func:`.save`.

    Returns:
        Path: The file.

    Raises:
        UserError: If the model has no experts.
    """
    if not isinstance(model, RIDEClassifier):
        raise UserError(
            f'model.type="{type(model).__name__}" has no experts to draw: expected a RIDEClassifier'
        )
    parts = {part.name: part for part in measure_compute(model, image_shape).parts}
    training = model.training
    model.eval()
    image = torch.zeros((1, *image_shape), device=next(model.parameters()).device)
    trunk_stages = describe_stages(model.backbone, model.backbone, image)
    trunk = model.backbone(image)[-1]
    tails = [
        describe_stages(expert, model.neck.run_expert, index, trunk)
        for index, expert in enumerate(model.neck.experts)
    ]
    model.train(training)
    return save(_draw(model, image_shape, parts, trunk_stages, tails), path)


def _draw(
    model: RIDEClassifier,
    image_shape: tuple[int, int, int],
    parts: dict[str, Part],
    trunk_stages: list[str],
    tails: list[list[str]],
) -> Figure:
    num_experts, head = model.num_experts, model.head
    box = _LINE * (max(1, *map(len, tails)) + 3.5)
    height = max(num_experts * box + (num_experts - 1) * _GAP, _LINE * (len(trunk_stages) + 3.5))
    figure = new_figure(height + 1.0)
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(height + 0.03, -0.03))
    axes.axis('off')

    size = ' x '.join(map(str, image_shape))
    text: dict[str, Any] = dict(
        ha='right', va='center', multialignment='center', fontsize=9, color=INK
    )
    left = _TRUNK[0] - 3
    axes.text(left, height / 2, f'image\n{size}', **text)
    _arrow(axes, (left, height / 2), (_TRUNK[0], height / 2))
    _box(axes, _TRUNK, 0, height, 'trunk', [*trunk_stages, *_costs(parts['trunk'])], SOFT)
    _box(axes, _MEAN, 0, height, 'mean', ['of the logits', 'of the experts', 'used'], SOFT)
    for index, stages in enumerate(tails):
        top = index * (box + _GAP)
        middle = top + box / 2
        name = f'expert {index + 1}'
        tail, classifier = (parts[f'{name}: {part}'] for part in ('tail', 'classifier'))
        lines = [*stages, *_costs(tail)]
        _box(axes, _EXPERT, top, box, name, lines, _EXPERT_COLOR)
        lines = [f'{head.num_classes} logits', *_costs(classifier)]
        _box(axes, _CLASSIFIER, top, box, 'classifier', lines, _EXPERT_COLOR)
        for column, following in pairwise((_TRUNK, _EXPERT, _CLASSIFIER, _MEAN)):
            _arrow(axes, (sum(column), middle), (following[0], middle))
        if index > 0 and head.router is not None:
            _router(axes, head.router, index - 1, top)
    params = sum(part.params for part in parts.values())
    set_head(figure, f'{experts_label(num_experts)} on a shared trunk, {params:,} parameters', [])
    return figure


def _router(axes: Axes, router, index: int, top: float) -> None:
    """Draw router ``index`` above the expert that it can call, at ``top``."""
    middle = top - _GAP / 2
    left, right = _EXPERT[0] + _EXPERT[1] / 2, _CLASSIFIER[0] + _CLASSIFIER[1] / 2
    features = router.hidden_fcs[index].in_features
    text = f'router {index + 1}: {features} features, {router.topk} largest mean logits'
    _arrow(axes, (right, top - _GAP), (right, middle), _ROUTER_COLOR)
    _arrow(axes, (left, middle), (left, top), _ROUTER_COLOR)
    axes.text(
        (left + right) / 2,
        middle,
        text,
        ha='center',
        va='center',
        fontsize=9,
        color=INK,
        bbox=dict(boxstyle='round,pad=0.4', fc='white', ec=_ROUTER_COLOR, lw=1.5),
    )
    axes.text(left - 1, top - 0.08, 'if in doubt', ha='right', va='bottom', fontsize=9, color=INK)


def _costs(part: Part) -> list[str]:
    macs = f'{part.macs / 1e9:.3f} G' if part.macs >= 1e9 else f'{part.macs / 1e6:.3f} M'
    return [f'{part.params:,} parameters', f'{macs} multiply-adds']


def _box(
    axes: Axes,
    column: tuple[float, float],
    top: float,
    height: float,
    title: str,
    lines: list[str],
    color: str,
) -> None:
    left, width = column
    axes.add_patch(Rectangle((left, top), width, height, fc='white', ec=color, lw=1.5))
    start = top + height / 2 - _LINE * len(lines) / 2
    text: dict[str, Any] = dict(ha='center', va='center', color=INK)
    axes.text(left + width / 2, start, title, fontsize=11, fontweight='bold', **text)
    for row, line in enumerate(lines, start=1):
        axes.text(left + width / 2, start + row * _LINE, line, fontsize=9, **text)


def _arrow(axes: Axes, start: tuple, end: tuple, color: str = SOFT) -> None:
    axes.annotate('', end, start, arrowprops=dict(arrowstyle='->', color=color, lw=1.3))
