"""Accuracy against compute, for every threshold of the routers.

One pass of all experts and routers is enough to simulate every threshold, by
the rule of :mod:`ride_mm.models.routing`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import PercentFormatter
from rich.table import Table
from scipy.special import expit, logsumexp, softmax

from ride_mm.analysis.predictions import Predictions
from ride_mm.analysis.style import GROUP_COLORS, INK, clean, new_figure, save, set_head
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation.tables import build_table
from ride_mm.models.routing import experts_used
from ride_mm.utils.errors import UserError

# Combinations that the search for one threshold per router tries.
_MAX_COMBINATIONS = 5000
_PLOTTED_POINTS = 400


@dataclass(frozen=True)
class OperatingPoint:
    """Compute and accuracy at a choice of thresholds.

    Attributes:
        threshold (float | list[float]): One for all routers, or one per
            router.
        compute (float): Mean multiply-adds relative to all experts.
        accuracy (dict[str, float]): Percent under 'overall', 'many',
            'medium' and 'few'. A group without images is left out.
    """

    threshold: float | list[float]
    compute: float
    accuracy: dict[str, float]


def _outputs(predictions: Predictions) -> tuple[np.ndarray, torch.Tensor, np.ndarray]:
    """Logits of the experts and of the routers, and compute by experts used."""
    experts, routers = predictions.expert_logits, predictions.router_logits
    compute = predictions.routed_compute
    if experts is None or routers is None or compute is None:
        raise UserError(
            'the trade-off needs the outputs of all experts and trained routers: write the '
            'predictions of a routed model with `python tools/test.py CONFIG CHECKPOINT '
            '--all-experts --out FILE.npz`.'
        )
    return experts, torch.from_numpy(routers.astype(np.float64)), compute


def route(predictions: Predictions, thresholds: float | Sequence[float]) -> Predictions:
    """Derive the routed model's predictions from those of all experts.

    Args:
        predictions (Predictions): Predictions for N images with
            ``expert_logits``, ``router_logits`` and ``routed_compute``.
        thresholds (float | Sequence[float]): One for all routers, or one per
            router, (E - 1, ).

    Returns:
        Predictions: The same images, with the scores, labels, experts used
        and compute of the routed model.

    Raises:
        UserError: If there are no logits of experts and routers.
    """
    expert_logits, router_logits, compute = _outputs(predictions)
    used = experts_used(router_logits, thresholds).numpy()
    logits = np.zeros(expert_logits.shape[1:])
    for number, of_expert in enumerate(expert_logits):
        runs = used > number
        logits[runs] += of_expert[runs]
    scores = softmax(logits / used[:, None], axis=1)
    return replace(
        predictions,
        pred_score=scores,
        num_experts_used=used,
        relative_compute=compute[used - 1],
    )


def by_confidence(predictions: Predictions) -> Predictions:
    """Let the doubt of the experts decide in place of the routers.

    Args:
        predictions (Predictions): As for :func:`route`.

    Returns:
        Predictions: The same, with ``router_logits`` of the probability that
        the first k experts together give to all labels but theirs, so that
        a threshold t asks for the next expert if this exceeds t.

    Raises:
        UserError: If there are no logits of experts and routers.
    """
    expert_logits, *_ = _outputs(predictions)
    sums = np.cumsum(expert_logits[:-1].astype(np.float64), axis=0)
    means = sums / np.arange(1, len(expert_logits))[:, None, None]
    best = means.argmax(-1)[..., None]
    others = means.copy()
    np.put_along_axis(others, best, -np.inf, axis=-1)
    # log((1 - p) / p) for the probability p of the best label
    doubt = logsumexp(others, axis=-1) - np.take_along_axis(means, best, axis=-1)[..., 0]
    return replace(predictions, router_logits=doubt)


def by_agreement(predictions: Predictions) -> Predictions:
    """Run two experts, and the others if these two disagree, without routers.

    Args:
        predictions (Predictions): As for :func:`route`.

    Returns:
        Predictions: The same, with such ``router_logits`` of -1 and 1.

    Raises:
        UserError: If there are no logits of experts and routers.
    """
    expert_logits, router_logits, _ = _outputs(predictions)
    first, second = expert_logits[:2].argmax(-1)
    logits = np.ones(router_logits.shape)
    logits[1:, first == second] = -1
    return replace(predictions, router_logits=logits)


class RoutingSimulator:
    """Simulate routing of the same images at other thresholds.

    Args:
        predictions (Predictions): Predictions for N images with
            ``expert_logits``, ``router_logits`` and ``routed_compute``.
        groups (ClassGroups): The groups of the K classes.

    Raises:
        UserError: If there are no logits of experts and routers.
    """

    def __init__(self, predictions: Predictions, groups: ClassGroups) -> None:
        expert_logits, self._logits, self.compute = _outputs(predictions)
        self.router_logits = self._logits.numpy()
        # labels that the first k experts together predict, (E, N)
        self.answers = np.cumsum(expert_logits, axis=0).argmax(-1)
        self.hits = self.answers == predictions.gt_label
        self.members = groups.of_images(predictions.gt_label)

    def at(self, thresholds: Sequence[float]) -> OperatingPoint:
        """Simulate one threshold per router, (E - 1, )."""
        thresholds = list(map(float, thresholds))
        used = experts_used(self._logits, thresholds).numpy()
        right = self.hits[used - 1, np.arange(len(used))]
        return OperatingPoint(
            thresholds,
            float(self.compute[used - 1].mean()),
            {name: 100.0 * float(right[images].mean()) for name, images in self.members.items()},
        )

    def curve(self) -> list[OperatingPoint]:
        """Compute every operating point with one threshold for all routers.

        Returns:
            list[OperatingPoint]: A point between any two thresholds that
            differ in an image, from 0 (all experts on every image) to 1 (one
            expert).
        """
        # From this logit on an image stops after k experts at the latest.
        doubt = np.minimum.accumulate(self.router_logits)
        order = np.argsort(doubt, axis=None, kind='stable')
        stop, image = np.unravel_index(order, doubt.shape)
        levels = doubt[stop, image]
        thresholds = expit((levels[:-1] + levels[1:]) / 2)
        # Points that another threshold leads to; 0 and 1 are the ends.
        inner = np.flatnonzero((np.diff(levels) > 0) & (thresholds > 0) & (thresholds < 1))

        def points(start: float, steps: np.ndarray) -> np.ndarray:
            totals = start + np.cumsum(steps)
            return np.concatenate([[start], totals[inner], totals[-1:]])

        lost = self.hits[stop, image].astype(np.int64) - self.hits[stop + 1, image]
        saved = (self.compute[stop] - self.compute[stop + 1]) / len(doubt[0])
        columns = [np.concatenate([[0.0], thresholds[inner], [1.0]])]
        columns.append(points(self.compute[-1], saved))
        for images in self.members.values():
            right = points(self.hits[-1, images].sum(), lost * images[image])
            columns.append(100.0 * right / images.sum())
        return [
            OperatingPoint(threshold, compute, dict(zip(self.members, accuracy)))
            for threshold, compute, *accuracy in np.stack(columns, axis=1).tolist()
        ]

    def grid(self) -> list[OperatingPoint]:
        """Simulate thresholds that differ between the routers: all combinations
        of quantiles of each router's probabilities."""
        size = int(_MAX_COMBINATIONS ** (1 / len(self.router_logits)))
        choices = expit(np.quantile(self.router_logits, np.linspace(0, 1, size), axis=1).T)
        choices[:, 0], choices[:, -1] = 0.0, 1.0
        return list(map(self.at, itertools.product(*choices)))


def thinned(curve: Sequence[OperatingPoint], size: int) -> list[OperatingPoint]:
    """Choose up to ``size`` points, evenly by compute, with both ends."""
    # compute falls along the curve
    compute = -np.array([point.compute for point in curve])
    chosen = np.searchsorted(compute, np.linspace(compute[0], compute[-1], size))
    return [curve[index] for index in np.unique(chosen)]


def at_compute(curve: Sequence[OperatingPoint], compute: float) -> OperatingPoint:
    """Choose the point whose compute is nearest."""
    return min(curve, key=lambda point: abs(point.compute - compute))


def choose_point(
    points: Sequence[OperatingPoint],
    budget: float | None = None,
    accuracy: float = 0.0,
    group: str = 'overall',
) -> OperatingPoint:
    """Choose the most accurate point in a budget, or the cheapest good one.

    Args:
        points (Sequence[OperatingPoint]): The points to choose from.
        budget (float, optional): Largest mean relative compute: the most
            accurate point within it is chosen. Defaults to None.
        accuracy (float): Minimum accuracy in percent: without a budget, the
            cheapest point that reaches it is chosen. Defaults to 0.
        group (str): The group whose accuracy counts. Defaults to 'overall'.

    Returns:
        OperatingPoint: The chosen point.

    Raises:
        UserError: If no point fits, or the group has no images.
    """
    if group not in points[0].accuracy:
        raise UserError(
            f'these predictions have no accuracy of "{group}", '
            f'only of {", ".join(points[0].accuracy)}'
        )
    if budget is not None:
        fitting = [point for point in points if point.compute <= budget]
        if not fitting:
            least = min(points, key=lambda point: point.compute)
            raise UserError(
                f'a compute of {budget:g} is below the minimum, one expert on every image: '
                f'{least.compute:.4f}, with an accuracy of {least.accuracy[group]:.2f} % ({group})'
            )
        return max(fitting, key=lambda p: (p.accuracy[group], -p.compute))
    fitting = [point for point in points if point.accuracy[group] >= accuracy]
    if not fitting:
        most = max(point.accuracy[group] for point in points)
        raise UserError(
            f'no threshold gives an accuracy of {accuracy:g} % ({group}); the best is {most:.2f} %'
        )
    return min(fitting, key=lambda p: (p.compute, -p.accuracy[group]))


def points_table(points: dict[str, OperatingPoint]) -> Table:
    """Build a table of operating points.

    Args:
        points (dict[str, OperatingPoint]): The points, by their label.

    Returns:
        rich.table.Table: Threshold, compute and accuracy of each point.
    """
    groups = next(iter(points.values())).accuracy
    rows = [
        [
            label,
            threshold_text(point.threshold),
            f'{point.compute:.4f}',
            *(f'{point.accuracy[name]:.2f}' for name in groups),
        ]
        for label, point in points.items()
    ]
    return build_table(
        'Accuracy (%) against compute (1 = all experts)',
        ['', 'threshold', 'compute', *groups],
        rows,
    )


def threshold_text(threshold: float | list[float]) -> str:
    """Format one threshold, or one per router."""
    values = threshold if isinstance(threshold, list) else [threshold]
    # Thresholds close to 1 would all be printed as 1.
    return ', '.join(
        f'1 - {1 - value:.3g}' if 0.999 < value < 1 else f'{value:.6g}' for value in values
    )


def plot_tradeoff(
    curve: Sequence[OperatingPoint],
    marked: dict[str, OperatingPoint],
    path: str | Path,
    confidence: Sequence[OperatingPoint] = (),
) -> Path:
    """Plot accuracy against compute, overall and by class group.

    Args:
        curve (Sequence[OperatingPoint]): The output of
            :meth:`RoutingSimulator.curve`.
        marked (dict[str, OperatingPoint]): Points to mark, by their label.
        path (str | Path): The image file, see :func:`.save`.
        confidence (Sequence[OperatingPoint]): The curve of
            :func:`by_confidence`, drawn dotted. Defaults to ().

    Returns:
        Path: The file.
    """
    figure = new_figure(6)
    axes = figure.subplots()
    shown = thinned(curve, _PLOTTED_POINTS)
    for name in shown[0].accuracy:
        style: dict[str, Any] = dict(
            color=GROUP_COLORS.get(name, INK), linewidth=2.5 if name == 'overall' else 1.5
        )
        axes.plot(*_line(shown, name), label=name, **style)
        if confidence:
            label = 'confidence, no routers' if name == 'overall' else None
            points = thinned(confidence, _PLOTTED_POINTS)
            axes.plot(*_line(points, name), label=label, linestyle=':', **style)
    middle = (shown[0].compute + shown[-1].compute) / 2
    for number, (label, point) in enumerate(marked.items()):
        compute, right = 100 * point.compute, point.compute > middle
        axes.axvline(compute, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for name, value in point.accuracy.items():
            # off the curve if the routers have different thresholds
            axes.plot(compute, value, 'o', color=GROUP_COLORS.get(name, INK))
        axes.annotate(
            f'{label}: {point.accuracy["overall"]:.1f}% overall',
            (compute, number / 14 + 0.02),
            xycoords=('data', 'axes fraction'),
            xytext=(-4 if right else 4, 0),
            textcoords='offset points',
            ha='right' if right else 'left',
            color=INK,
        )
    set_head(figure, 'Accuracy against compute')
    axes.set(xlabel='compute of all experts', ylabel='accuracy (%)')
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    # room for the labels below the curves
    axes.margins(x=0.02, y=0.03 + len(marked) / 12)
    clean(axes, grid='y')
    return save(figure, path)


def _line(points: Sequence[OperatingPoint], name: str) -> tuple[list[float], list[float]]:
    return [100 * point.compute for point in points], [point.accuracy[name] for point in points]
