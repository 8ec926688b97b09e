"""Multiply-accumulates and parameters of a network, part by part."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.config import Config
from mmpretrain import get_model
from mmpretrain.models import ImageClassifier
from rich.table import Table
from torch import nn

from ride_mm.analysis.predictions import Predictions, read_predictions
from ride_mm.analysis.routing.expert_usage import experts_label
from ride_mm.analysis.routing.tradeoff import route
from ride_mm.analysis.style import (
    GROUP_COLORS,
    INK,
    SOFT,
    check_format,
    clean,
    new_figure,
    save,
    set_head,
)
from ride_mm.engine.config import innermost_dataset, load_config
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.models import RIDEClassifier
from ride_mm.models.macs import count_macs, macs_by_experts, macs_by_part, relative_compute
from ride_mm.utils.errors import UserError

# Largest rounding error of a share, in percent.
_ROUNDING = 0.05
# Smallest piece of a bar, relative to the longest bar, that has room for its name.
_ROOM = 0.1


@dataclass(frozen=True)
class Part:
    """A part of a network.

    Attributes:
        name (str): Its name.
        macs (int): Multiply-accumulates for one image.
        params (int): Number of parameters. Parameters that several parts
            share are counted with the first of them.
    """

    name: str
    macs: int
    params: int


@dataclass(frozen=True)
class Usage:
    """How many experts images use, and the resulting mean compute.

    Attributes:
        shares (list[float]): Percent of the images that use exactly 1..E
            experts.
        macs (float): Expected multiply-accumulates of an image.
    """

    shares: list[float]
    macs: float


@dataclass(frozen=True)
class Compute:
    """The compute of a network for one image.

    Attributes:
        parts (list[Part]): Trunk, tail and classifier of each expert, and
            router; backbone, neck and head of a network without experts.
        by_experts (list[int]): Multiply-accumulates of an image that uses
            1..E experts, including the routers that it passes. Empty without
            experts.
        ensemble (int): Multiply-accumulates of all parts except the router.
        usage (Usage, optional): How many experts images use. Defaults to
            None.
    """

    parts: list[Part]
    by_experts: list[int]
    ensemble: int
    usage: Usage | None = None

    @property
    def macs(self) -> int:
        """int: Multiply-accumulates of all parts."""
        return sum(part.macs for part in self.parts)

    @property
    def params(self) -> int:
        """int: Parameters of all parts."""
        return sum(part.params for part in self.parts)


def measure_compute(
    model: nn.Module, image_shape: tuple[int, int, int], batch_norm: bool = False
) -> Compute:
    """Measure multiply-accumulates and parameters of a network's parts.

    Args:
        model (ImageClassifier): A ``RIDEClassifier`` or another classifier.
        image_shape (tuple[int]): (C, H, W).
        batch_norm (bool): Whether BatchNorm counts, see
            :func:`~ride_mm.models.macs.count_macs`. Defaults to False.

    Returns:
        Compute: The figures, without ``usage``.

    Raises:
        UserError: If the model is not an image classifier.
    """
    if isinstance(model, RIDEClassifier):
        return _measure_experts(model, image_shape, batch_norm)
    if isinstance(model, ImageClassifier):
        return _measure_chain(model, image_shape, batch_norm)
    raise UserError(
        f'model.type="{type(model).__name__}" has no backbone, neck and head to measure: '
        'expected a RIDEClassifier or an ImageClassifier'
    )


def _count_new(seen: set, *modules: nn.Module) -> int:
    """Count the parameters that are not in ``seen``, and add them to it."""
    new = {p for module in modules for p in module.parameters()} - seen
    seen |= new
    return sum(p.numel() for p in new)


def _measure_experts(
    model: RIDEClassifier, image_shape: tuple[int, int, int], batch_norm: bool
) -> Compute:
    macs, head = macs_by_part(model, image_shape, batch_norm), model.head
    seen: set[nn.Parameter] = set()
    parts = [Part('trunk', macs['trunk'][0], _count_new(seen, model.backbone))]
    for index, (expert, classifier) in enumerate(zip(macs['experts'], macs['classifiers'])):
        tail = _count_new(seen, model.neck.experts[index], model.neck.shared)
        weights = _count_new(seen, head.classifiers[index])
        if head.scales is not None:
            weights += head.scales[index].numel()
        parts += [
            Part(f'expert {index + 1}: tail', expert - classifier, tail),
            Part(f'expert {index + 1}: classifier', classifier, weights),
        ]
    if head.router is not None:
        parts.append(Part('router', sum(macs['routers']), _count_new(seen, head.router)))
    return Compute(
        parts, macs_by_experts(macs, routed=True), macs_by_experts(macs, routed=False)[-1]
    )


@torch.no_grad()
def _measure_chain(
    model: ImageClassifier, image_shape: tuple[int, int, int], batch_norm: bool
) -> Compute:
    training, parts = model.training, []
    seen: set[nn.Parameter] = set()
    model.eval()
    x = torch.zeros((1, *image_shape), device=next(model.parameters()).device)
    for name in ('backbone', 'neck', 'head'):
        module = getattr(model, name)
        if module is not None:
            macs = count_macs(module, x, batch_norm=batch_norm)
            parts.append(Part(name, macs, _count_new(seen, module)))
            x = module(x)
    model.train(training)
    return Compute(parts, [], sum(part.macs for part in parts))


def expected_macs(by_experts: Sequence[int], shares: Sequence[float]) -> float:
    """Compute the mean multiply-accumulates of images that use some experts.

    Args:
        by_experts (Sequence[int]): Multiply-accumulates of an image that uses
            1..E experts, see :class:`Compute`.
        shares (Sequence[float]): Percent of the images that use exactly 1..E
            experts, normalized if rounding keeps them from summing to 100.

    Returns:
        float: The mean.

    Raises:
        UserError: If there are not E shares, or they are not percentages
            that sum to 100.
    """
    if not by_experts:
        raise UserError(
            'shares of images by number of experts need a RIDEClassifier: this model has no experts'
        )
    if len(shares) != len(by_experts):
        raise UserError(
            f'{len(shares)} shares of images are given, expected one for each number of experts, '
            f'1 to {len(by_experts)}'
        )
    total = sum(shares)
    if not min(shares) >= 0 or not abs(total - 100) <= _ROUNDING * len(shares):
        raise UserError(
            'shares of images must be percentages of 0 or more that sum to 100, found '
            f'{list(shares)}, which sum to {total:g}'
        )
    return float(np.dot(shares, by_experts) / total)


def predicted_shares(predictions: Predictions, macs: dict[str, list]) -> tuple[list[float], bool]:
    """Compute the shares of images by number of experts used.

    Args:
        predictions (Predictions): The model's predictions for N images.
        macs (dict[str, list[int]]): See :func:`~ride_mm.models.macs.macs_by_part`.

    Returns:
        tuple[list[float], bool]: Percent of the images that used exactly
        1..E experts, and whether they were routed.

    Raises:
        UserError: If the predictions are from another model or image size.
    """
    used, compute = predictions.num_experts_used, predictions.relative_compute
    if used is None or compute is None:
        raise UserError(
            'the predictions have no num_experts_used: they were not made by a RIDEClassifier'
        )
    most = len(macs['experts'])
    if used.max() > most:
        raise UserError(
            f'an image of the predictions used {used.max()} experts, the model has {most}'
        )
    variants = {
        routed: np.array(relative_compute(macs, routed))[used - 1] for routed in (True, False)
    }
    # the variant that fits better, also for the message
    routed, expected = min(variants.items(), key=lambda item: np.abs(compute - item[1]).sum())
    if not np.allclose(compute, expected, rtol=1e-6, atol=0):
        worst = np.abs(compute - expected).argmax()
        raise UserError(
            f'an image of the predictions used {used[worst]} of {most} experts for '
            f'{compute[worst]:.8g} of the compute of all experts, but this config gives '
            f'{expected[worst]:.8g}: were they made with another config or image size?'
        )
    return (100 * np.bincount(used, minlength=most + 1)[1:] / used.size).tolist(), routed


def image_size(cfg: Config) -> tuple[int, int]:
    """Find the height and width of the images that a config trains on.

    Raises:
        UserError: If no transform of the training pipeline sets them.
    """
    for transform in reversed(innermost_dataset(cfg.get('train_dataloader')).get('pipeline', ())):
        for key in ('size', 'crop_size', 'scale'):
            size = transform.get(key)
            if isinstance(size, int):
                return size, size
            if isinstance(size, (tuple, list)) and len(size) == 2:
                return size[0], size[1]
    raise UserError(
        'the image size is unknown: no transform of train_dataloader.dataset.pipeline has a '
        '`size`, `crop_size` or `scale`'
    )


def compute_tables(compute: Compute, title: str) -> list[Table]:
    """Build the tables of a network's compute.

    Args:
        compute (Compute): The figures.
        title (str): Title of the first table.

    Returns:
        list[rich.table.Table]: By part and, with several experts, by the
        number of experts that an image uses.
    """
    rows = [
        [part.name, *_cells(part.macs, compute.macs), f'{part.params:,}']
        for part in (*compute.parts, Part('all', compute.macs, compute.params))
    ]
    tables = [build_table(title, ['part', 'MACs (M)', '%', 'parameters'], rows)]
    tables[0].rows[-2].end_section = True
    if len(compute.by_experts) > 1:
        columns = ['experts used', 'MACs (M)', '% of all experts']
        rows = [
            [str(num), *_cells(macs, compute.ensemble)]
            for num, macs in enumerate(compute.by_experts, start=1)
        ]
        if compute.usage is not None:
            columns.append('% of images')
            rows = [[*row, f'{share:.2f}'] for row, share in zip(rows, compute.usage.shares)]
            rows.append(['expected', *_cells(compute.usage.macs, compute.ensemble), '100.00'])
        tables.append(build_table('An image that uses some experts', columns, rows))
        tables[1].rows[-2].end_section = compute.usage is not None
    return tables


def _cells(macs: float, total: int) -> list[str]:
    return [f'{macs / 1e6:,.3f}', f'{100 * macs / total:.2f}']


def plot_compute(compute: Compute, path: str | Path) -> Path:
    """Plot the compute of an image by the number of experts it uses.

    Args:
        compute (Compute): The figures; their ``usage`` adds a bar of the
            expected compute.
        path (str | Path): The image file, see :func:`.save`.

    Returns:
        Path: The file.
    """
    pieces: Counter[str] = Counter()
    for part in compute.parts:
        # The router is too small to be seen, and not every image passes it.
        if part.name != 'router':
            pieces[part.name.partition(':')[0]] += part.macs
    unit, symbol = (1e9, 'G') if sum(pieces.values()) >= 1e9 else (1e6, 'M')
    widths = np.array(list(pieces.values())) / unit
    names = [experts_label(num + 1) for num in range(len(compute.by_experts))] or ['']
    # the share of each piece in each bar
    shares = np.tri(len(names), len(pieces), len(pieces) - len(names))
    notes = [''] * len(names)
    usage = compute.usage
    if usage is not None:
        names.append('expected')
        shares = np.vstack([shares, np.dot(usage.shares, shares) / sum(usage.shares)])
        notes = [*(f', {share:.1f}% of images' for share in usage.shares), '']

    figure = new_figure(1.4 + 0.75 * len(names))
    axes = figure.subplots()
    colors = [SOFT] + [GROUP_COLORS['many']] * (len(pieces) - 1)
    for row, (lengths, note) in enumerate(zip(shares * widths, notes)):
        left = lengths.cumsum() - lengths
        bar = axes.barh(row, lengths, left=left, height=0.68, color=colors, ec='white')
        labels = [
            name if length > _ROOM * widths.sum() else '' for name, length in zip(pieces, lengths)
        ]
        axes.bar_label(bar, labels, label_type='center', color='white', fontsize=10)
        text = f' {lengths.sum():.1f} {symbol}{note}'
        axes.text(lengths.sum(), row, text, va='center', color=INK, fontsize=11)
    axes.set_yticks(range(len(names)), names, fontsize=11)
    axes.set(
        xlim=(0, 1.3 * widths.sum()),
        xlabel=f'multiply-accumulates ({symbol})',
        ylim=(len(names) - 0.5, -0.5),
    )
    set_head(figure, 'Compute of an image')
    clean(axes)
    axes.tick_params(axis='y', length=0)
    return save(figure, path)


def report_compute(
    config: str | Path,
    shape: tuple[int, int] | None = None,
    shares: Sequence[float] | None = None,
    predictions_file: str | Path | None = None,
    batch_norm: bool = False,
    cfg_options: dict | None = None,
    json_file: str | Path | None = None,
    plot_file: str | Path | None = None,
) -> dict:
    """Print, write and plot the compute of a config's network.

    Args:
        config (str | Path): The config file.
        shape (tuple[int], optional): Height and width of an image. Defaults
            to None, which means the training size of the config.
        shares (Sequence[float], optional): Percent of the images that use
            exactly 1..E experts. Defaults to None.
        predictions_file (str | Path, optional): The output of
            ``tools/test.py --out``, to take the shares from. Defaults to
            None.
        batch_norm (bool): Whether BatchNorm counts. Defaults to False.
        cfg_options (dict, optional): Settings of the config to override.
            Defaults to None.
        json_file (str | Path, optional): The JSON file to write the figures
            to. Defaults to None.
        plot_file (str | Path, optional): The plot to write. Defaults to
            None.

    Returns:
        dict: The figures.

    Raises:
        UserError: If an argument does not fit the model.
    """
    if plot_file is not None:
        check_format(plot_file)
    cfg = load_config(str(config), cfg_options)
    image_shape = (3, *(shape or image_size(cfg)))
    size = ' x '.join(map(str, image_shape))
    model = get_model(cfg)
    try:
        compute = measure_compute(model, image_shape, batch_norm)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f'the model of {config} does not accept images of {size}: {error}'
        ) from error
    if shares is not None:
        usage = Usage(list(shares), expected_macs(compute.by_experts, shares))
        compute = replace(compute, usage=usage)
    elif predictions_file is not None:
        usage = _predicted_usage(predictions_file, model, image_shape, compute)
        compute = replace(compute, usage=usage)

    rule = 'counted' if batch_norm else 'not counted'
    print_tables(*compute_tables(compute, f'One image of {size}, BatchNorm {rule}'))
    figures = dict(
        image_shape=list(image_shape),
        batch_norm=batch_norm,
        macs=compute.macs,
        params=compute.params,
        **asdict(compute),
    )
    if json_file is not None:
        mmengine.dump(figures, str(json_file), file_format='json', indent=2)
        print(json_file)
    if plot_file is not None:
        print(plot_compute(compute, plot_file))
    return figures


def _predicted_usage(
    path: str | Path, model: ImageClassifier, image_shape: tuple[int, int, int], compute: Compute
) -> Usage:
    if not isinstance(model, RIDEClassifier):
        raise UserError(
            f'{path}: the predictions have numbers of experts used, but the model has no experts'
        )
    predictions = read_predictions(path)
    if predictions.router_logits is not None and model.test_cfg['mode'] != 'ensemble':
        # All experts ran: derive which of them the config would use.
        predictions = route(predictions, model.test_cfg['threshold'])
    shares, routed = predicted_shares(predictions, macs_by_part(model, image_shape))
    # Without a router every image used all experts.
    macs = expected_macs(compute.by_experts, shares) if routed else float(compute.ensemble)
    return Usage(shares, macs)
