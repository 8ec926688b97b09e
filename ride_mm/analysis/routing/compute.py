from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.config import Config
from mmpretrain import get_model
from mmpretrain.models import ImageClassifier
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from ride_mm.analysis.predictions import Predictions, read_predictions
from ride_mm.analysis.routing.compute_plot import plot_compute
from ride_mm.analysis.routing.tradeoff import route
from ride_mm.analysis.style import check_format
from ride_mm.engine.config import innermost_dataset, load_config
from ride_mm.evaluation.tables import build_table
from ride_mm.models import RIDEClassifier
from ride_mm.models.macs import count_macs, macs_by_experts, macs_by_part
from ride_mm.utils.errors import UserError

# What a share may be off by, in percent, where it was rounded.
_ROUNDING = 0.05


@dataclass(frozen=True)
class Part:
    """A part of a network.

    Attributes:
        name (str): What it is called.
        macs (int): Multiply-accumulates for one image.
        params (int): Parameters. One that several parts share is counted
            with the first of them.
    """

    name: str
    macs: int
    params: int


@dataclass(frozen=True)
class Compute:
    """What a network costs for one image.

    Attributes:
        parts (list[Part]): Trunk, tail and classifier of each expert, and
            router; of a network without experts backbone, neck and head.
        by_experts (list[int]): Multiply-accumulates of an image that uses
            1..E experts, with the routers on its way. Empty without experts.
        ensemble (int): Multiply-accumulates through all parts but the
            router.
    """

    parts: list[Part]
    by_experts: list[int]
    ensemble: int

    @property
    def macs(self) -> int:
        """int: Multiply-accumulates of all parts."""
        return sum(part.macs for part in self.parts)

    @property
    def params(self) -> int:
        """int: Parameters of all parts."""
        return sum(part.params for part in self.parts)


@dataclass(frozen=True)
class Usage:
    """How many experts images use, and what that costs on average.

    Attributes:
        shares (list[float]): Percent of the images that used exactly 1..E
            experts.
        macs (float): Expected multiply-accumulates of an image.
    """

    shares: list[float]
    macs: float


@dataclass
class _Parameters:
    """Counts parameters, each of them once."""

    seen: set = field(default_factory=set)

    def count(self, *modules: nn.Module) -> int:
        new = {p for module in modules for p in module.parameters()}
        new -= self.seen
        self.seen |= new
        return sum(p.numel() for p in new)


def measure_compute(
    model: ImageClassifier, image_shape: tuple[int, int, int], batch_norm: bool = False
) -> Compute:
    """Measure multiply-accumulates and parameters of a network's parts.

    Args:
        model (ImageClassifier): A ``RIDEClassifier`` or another classifier.
        image_shape (tuple[int]): (C, H, W).
        batch_norm (bool): Whether BatchNorm counts, see
            :func:`~ride_mm.models.utils.count_macs`. Defaults to False.

    Returns:
        Compute: The figures.

    Raises:
        UserError: If the model is not an image classifier.
    """
    if isinstance(model, RIDEClassifier):
        return _measure_experts(model, image_shape, batch_norm)
    if isinstance(model, ImageClassifier):
        return _measure_chain(model, image_shape, batch_norm)
    raise UserError(
        f'model.type="{type(model).__name__}" has no backbone, '
        'neck and head to measure: expected a RIDEClassifier or '
        'an ImageClassifier'
    )


def _measure_experts(
    model: RIDEClassifier, image_shape: tuple[int, int, int], batch_norm: bool
) -> Compute:
    macs = macs_by_part(model, image_shape, batch_norm)
    params, head = _Parameters(), model.head
    parts = [Part('trunk', macs['trunk'][0], params.count(model.backbone))]
    for index, (expert, classifier) in enumerate(zip(macs['experts'], macs['classifiers'])):
        tail = params.count(model.neck.experts[index], model.neck.shared)
        weights = params.count(head.classifiers[index])
        if head.scales is not None:
            weights += head.scales[index].numel()
        name = f'expert {index + 1}'
        parts += [
            Part(f'{name}: tail', expert - classifier, tail),
            Part(f'{name}: classifier', classifier, weights),
        ]
    if head.router is not None:
        parts.append(Part('router', sum(macs['routers']), params.count(head.router)))
    return Compute(
        parts, macs_by_experts(macs, routed=True), macs_by_experts(macs, routed=False)[-1]
    )


@torch.no_grad()
def _measure_chain(
    model: ImageClassifier, image_shape: tuple[int, int, int], batch_norm: bool
) -> Compute:
    training = model.training
    model.eval()
    params, parts = _Parameters(), []
    x = torch.zeros((1, *image_shape), device=next(model.parameters()).device)
    for name in ('backbone', 'neck', 'head'):
        module = getattr(model, name)
        if module is not None:
            macs = count_macs(module, x, batch_norm=batch_norm)
            parts.append(Part(name, macs, params.count(module)))
            x = module(x)
    model.train(training)
    return Compute(parts, [], sum(part.macs for part in parts))


def expected_macs(by_experts: Sequence[int], shares: Sequence[float]) -> float:
    """Mean multiply-accumulates of images that use some of the experts.

    Args:
        by_experts (Sequence[int]): Those of an image that uses 1..E experts,
            see :class:`Compute`.
        shares (Sequence[float]): Percent of the images that used exactly so
            many; what rounding took from their sum of 100 is made up for.

    Returns:
        float: The mean.

    Raises:
        UserError: If there are not E shares, or they are no shares.
    """
    if not by_experts:
        raise UserError(
            'shares of images by number of experts need a RIDEClassifier: this model has no experts'
        )
    if len(shares) != len(by_experts):
        raise UserError(
            f'{len(shares)} shares of images are given, expected one for '
            f'each number of experts, 1 to {len(by_experts)}'
        )
    shares = np.asarray(shares, dtype=np.float64)
    total = shares.sum()
    if not shares.min() >= 0 or abs(total - 100) > _ROUNDING * len(shares):
        raise UserError(
            f'shares of images must be percentages, none below 0, '
            f'that sum to 100, found {shares.tolist()}, which sum '
            f'to {total:g}'
        )
    return float(shares @ np.asarray(by_experts) / total)


def predicted_shares(predictions: Predictions, macs: dict[str, list]) -> tuple[list[float], bool]:
    """Shares of the images by experts used, of a model's own predictions.

    Args:
        predictions (Predictions): The predictions for N images.
        macs (dict[str, list[int]]): See :meth:`RIDEClassifier.macs`.

    Returns:
        tuple[list[float], bool]: Percent of the images that used exactly
        1..E experts, and whether a router said how many.

    Raises:
        UserError: If the predictions are not those of such a model on such
            images.
    """
    used = predictions.num_experts_used
    if used is None:
        raise UserError(
            'the predictions hold no num_experts_used: they were not made by a RIDEClassifier'
        )
    most = len(macs['experts'])
    if used.max() > most:
        raise UserError(
            f'an image of the predictions used {used.max()} experts, the model has {most}'
        )
    shares = 100 * np.bincount(used, minlength=most + 1)[1:] / used.size
    everything = macs_by_experts(macs, routed=False)[-1]
    misfits = {}
    for routed in (True, False):
        spent = np.array(macs_by_experts(macs, routed)) / everything
        expected = spent[used - 1]
        fits = np.isclose(predictions.relative_compute, expected, rtol=1e-6, atol=0)
        if fits.all():
            return shares.tolist(), routed
        misfits[routed] = np.abs(predictions.relative_compute - expected)
    # The variant that fits better says more of what is wrong.
    routed = min(misfits, key=lambda variant: misfits[variant].sum())
    odd = misfits[routed].argmax()
    spent = macs_by_experts(macs, routed)[used[odd] - 1] / everything
    raise UserError(
        f'an image of the predictions used {used[odd]} of {most} experts for '
        f'{predictions.relative_compute[odd]:.8g} of the compute of all '
        f'experts, but this config gives {spent:.8g}: were they made with '
        'another config or image size?'
    )


def image_size(cfg: Config) -> tuple[int, int]:
    """Rows and columns of the images that a config trains on.

    Raises:
        UserError: If no transform of the training pipeline says it.
    """
    dataset = innermost_dataset(cfg.get('train_dataloader'))
    for transform in reversed(dataset.get('pipeline', ())):
        for key in ('size', 'crop_size', 'scale'):
            size = transform.get(key)
            if isinstance(size, int):
                return size, size
            if isinstance(size, (tuple, list)) and len(size) == 2:
                return tuple(size)
    raise UserError(
        'no transform of train_dataloader.dataset.pipeline has a '
        '`size`, `crop_size` or `scale` that says how large '
        'images are'
    )


def compute_tables(
    compute: Compute, usage: Usage | None = None, title: str = 'Compute for one image'
) -> list[Table]:
    """Lay out what a network costs.

    Args:
        compute (Compute): The figures.
        usage (Usage, optional): How many experts images use. Defaults to
            None.
        title (str): What was measured. Defaults to 'Compute for one image'.

    Returns:
        list[rich.table.Table]: By part and, where there are several experts,
        by the number that an image uses.
    """
    rows = [
        [part.name, *_cells(part.macs, compute.macs), f'{part.params:,}']
        for part in (*compute.parts, Part('all', compute.macs, compute.params))
    ]
    tables = [build_table(title, ['part', 'MACs (M)', '%', 'parameters'], rows)]
    tables[0].rows[-2].end_section = True
    if len(compute.by_experts) > 1:
        tables.append(_table_by_experts(compute, usage))
    for table in tables:
        table.box = box.ROUNDED
    return tables


def _table_by_experts(compute: Compute, usage: Usage | None) -> Table:
    rows = [
        [str(num), *_cells(macs, compute.ensemble)]
        for num, macs in enumerate(compute.by_experts, start=1)
    ]
    columns = ['experts used', 'MACs (M)', '% of all experts']
    if usage is not None:
        columns.append('% of images')
        for row, share in zip(rows, usage.shares):
            row.append(f'{share:.2f}')
        rows.append(['expected', *_cells(usage.macs, compute.ensemble), '100.00'])
    table = build_table('An image that uses some experts', columns, rows)
    if usage is not None:
        table.rows[-2].end_section = True
    return table


def _cells(macs: float, total: int) -> list[str]:
    return [f'{macs / 1e6:,.3f}', f'{100 * macs / total:.2f}']


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
    """Print what the network of a config costs, and draw it.

    Args:
        config (str | Path): The config file.
        shape (tuple[int], optional): Rows and columns of an image. Defaults
            to None, which means those that the config trains on.
        shares (Sequence[float], optional): Percent of the images that use
            exactly 1..E experts. Defaults to None.
        predictions_file (str | Path, optional): What ``tools/test.py --out``
            wrote, to take the shares from. Defaults to None.
        batch_norm (bool): Whether BatchNorm counts. Defaults to False.
        cfg_options (dict, optional): Settings of the config to override.
            Defaults to None.
        json_file (str | Path, optional): Where to write the figures as JSON.
            Defaults to None, which means nowhere.
        plot_file (str | Path, optional): The picture to draw. Defaults to
            None, which means none.

    Returns:
        dict: The figures.

    Raises:
        UserError: If something does not fit the model.
    """
    if plot_file is not None:
        check_format(plot_file)
    cfg = load_config(str(config), cfg_options)
    image_shape = (3, *(shape or image_size(cfg)))
    model = get_model(cfg)
    try:
        compute = measure_compute(model, image_shape, batch_norm)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f'the model of {config} does not take images of {_by(image_shape)}: {error}'
        ) from error
    usage = None
    if shares is not None:
        usage = Usage(list(shares), expected_macs(compute.by_experts, shares))
    elif predictions_file is not None:
        usage = _predicted_usage(predictions_file, model, image_shape, compute)

    rule = 'counted' if batch_norm else 'not counted'
    tables = compute_tables(compute, usage, f'One image of {_by(image_shape)}, BatchNorm {rule}')
    # Wide enough for any name, also where the output is a pipe.
    Console(width=1000).print(*tables, sep='\n')
    figures = dict(
        image_shape=list(image_shape),
        batch_norm=batch_norm,
        macs=compute.macs,
        params=compute.params,
        **asdict(compute),
        usage=None if usage is None else asdict(usage),
    )
    if json_file is not None:
        mmengine.dump(figures, str(json_file), file_format='json', indent=2)
        print(json_file)
    if plot_file is not None:
        print(_draw(compute, usage, plot_file))
    return figures


def _by(shape: Sequence[int]) -> str:
    return ' x '.join(map(str, shape))


def _predicted_usage(
    path: str | Path, model: ImageClassifier, image_shape: tuple[int, int, int], compute: Compute
) -> Usage:
    if not isinstance(model, RIDEClassifier):
        raise UserError(
            f'{path}: the predictions hold numbers of experts used, but the model has no experts'
        )
    predictions = read_predictions(path)
    if predictions.router_logits is not None and model.test_cfg['mode'] != 'ensemble':
        # All experts ran, and the routers tell which the config would ask.
        predictions = route(predictions, model.test_cfg['threshold'])
    shares, routed = predicted_shares(predictions, macs_by_part(model, image_shape))
    # Without a router every image used all experts.
    macs = expected_macs(compute.by_experts, shares) if routed else float(compute.ensemble)
    return Usage(shares, macs)


def _draw(compute: Compute, usage: Usage | None, path: str | Path) -> Path:
    pieces = Counter()
    for part in compute.parts:
        pieces[part.name.partition(':')[0]] += part.macs
    # Too small to be seen, and not on the way of every image.
    pieces.pop('router', None)
    return plot_compute(dict(pieces), path, len(compute.by_experts), usage and usage.shares)
