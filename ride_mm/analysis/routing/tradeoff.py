"""Accuracy against compute, for every threshold of the routers.

By the rule of :mod:`ride_mm.models.routing`, what every threshold gives
follows from one pass of all experts and routers.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import softmax

from ride_mm.analysis.predictions import Predictions
from ride_mm.datasets.class_groups import ClassGroups, GroupsLike
from ride_mm.models.routing import experts_used
from ride_mm.utils.errors import UserError

# Combinations of thresholds that the search for one a router tries.
_MAX_COMBINATIONS = 5000


@dataclass(frozen=True)
class OperatingPoint:
    """What a choice of thresholds gives.

    Attributes:
        threshold (float | list[float]): Of all routers, or one for each.
        compute (float): Mean multiply-adds relative to all experts.
        accuracy (dict[str, float]): Percent under 'overall', 'many',
            'medium' and 'few'. A group without images is left out.
    """

    threshold: float | list[float]
    compute: float
    accuracy: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """All operating points of one threshold for all routers.

    Attributes:
        thresholds (np.ndarray): From 0 to 1, shape (P, ).
        compute (np.ndarray): Mean relative compute, shape (P, ).
        accuracy (dict[str, np.ndarray]): Percent by group, (P, ) each.
    """

    thresholds: np.ndarray
    compute: np.ndarray
    accuracy: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.thresholds)

    def __getitem__(self, index: int) -> OperatingPoint:
        return OperatingPoint(
            float(self.thresholds[index]),
            float(self.compute[index]),
            {name: float(values[index]) for name, values in self.accuracy.items()},
        )

    def thinned(self, size: int) -> 'Curve':
        """As many of the points, evenly by compute, the ends among them."""
        wanted = np.linspace(self.compute[0], self.compute[-1], size)
        # compute falls along the curve
        chosen = np.unique(np.searchsorted(-self.compute, -wanted))
        return replace(
            self,
            thresholds=self.thresholds[chosen],
            compute=self.compute[chosen],
            accuracy={k: v[chosen] for k, v in self.accuracy.items()},
        )


def prefix_hits(expert_logits: np.ndarray, gt_label: np.ndarray) -> np.ndarray:
    """Say whether the first k experts together are right.

    Args:
        expert_logits (np.ndarray): Logits of the experts, (E, N, K).
        gt_label (np.ndarray): True labels with shape (N, ).

    Returns:
        np.ndarray: Bool, shape (E, N), for k = 1..E.
    """
    totals = np.cumsum(expert_logits, axis=0)
    return totals.argmax(-1) == gt_label


def route(predictions: Predictions, thresholds: float | Sequence[float]) -> Predictions:
    """Derive the routed model's predictions from those of all experts.

    Args:
        predictions (Predictions): Of N images, with ``expert_logits``,
            ``router_logits`` and ``routed_compute``.
        thresholds (float | Sequence[float]): Of all routers, or one for
            each, (E - 1, ).

    Returns:
        Predictions: The same images, with scores, labels, experts used and
        compute as the model routes them.
    """
    used = experts_used(
        torch.from_numpy(predictions.router_logits.astype(np.float64)), thresholds
    ).numpy()
    logits = np.zeros(predictions.expert_logits.shape[1:])
    for number, of_expert in enumerate(predictions.expert_logits):
        asked = used > number
        logits[asked] += of_expert[asked]
    scores = softmax(logits / used[:, None], axis=1)
    return replace(
        predictions,
        pred_label=scores.argmax(axis=1),
        pred_score=scores,
        num_experts_used=used,
        relative_compute=predictions.routed_compute[used - 1],
    )


class RoutingSimulator:
    """Simulate routing of the same images at other thresholds.

    Args:
        predictions (Predictions): Of N images, with ``expert_logits``,
            ``router_logits`` and ``routed_compute``.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).

    Raises:
        UserError: If there are no logits of experts and routers.
    """

    def __init__(self, predictions: Predictions, groups: GroupsLike) -> None:
        if predictions.router_logits is None:
            raise UserError(
                'the trade-off needs the outputs of all experts and trained '
                'routers: write the predictions of a routed model with '
                '`python tools/test.py CONFIG CHECKPOINT --all-experts --out '
                'FILE.pkl`.'
            )
        self.router_logits = predictions.router_logits.astype(np.float64)
        self._logits = torch.from_numpy(self.router_logits)
        self.compute = predictions.routed_compute
        self.hits = prefix_hits(predictions.expert_logits, predictions.gt_label)
        self.groups = ClassGroups.of(groups).of_images(predictions.gt_label)

    def at(self, thresholds: Sequence[float]) -> OperatingPoint:
        """What one threshold for each router, (E - 1, ), gives."""
        used = experts_used(self._logits, list(map(float, thresholds))).numpy()
        right = self.hits[used - 1, np.arange(len(used))]
        return OperatingPoint(
            list(map(float, thresholds)),
            float(self.compute[used - 1].mean()),
            {name: 100.0 * float(right[images].mean()) for name, images in self.groups.items()},
        )

    def curve(self) -> Curve:
        """Every point of one threshold for all routers.

        Returns:
            Curve: A point between any two thresholds that differ in an
            image, from 0 (all experts on every image) to 1 (one expert).
        """
        # From this logit on an image stops after k experts at the latest.
        doubt = np.minimum.accumulate(self.router_logits)
        order = np.argsort(doubt, axis=None, kind='stable')
        stop, image = np.unravel_index(order, doubt.shape)
        levels = doubt[stop, image]
        bounds = (levels[:-1] + levels[1:]) / 2
        thresholds = 1 / (1 + np.exp(-bounds))
        # Points that another threshold leads to; 0 and 1 are the ends.
        inner = np.flatnonzero((np.diff(levels) > 0) & (thresholds > 0) & (thresholds < 1))

        def points(start: float, steps: np.ndarray) -> np.ndarray:
            totals = start + np.cumsum(steps)
            return np.concatenate([[start], totals[inner], totals[-1:]])

        lost = self.hits[stop, image].astype(np.int64) - self.hits[stop + 1, image]
        saved = (self.compute[stop] - self.compute[stop + 1]) / len(doubt[0])
        return Curve(
            np.concatenate([[0.0], thresholds[inner], [1.0]]),
            points(self.compute[-1], saved),
            {
                name: 100.0
                * points(self.hits[-1, members].sum(), lost * members[image])
                / members.sum()
                for name, members in self.groups.items()
            },
        )

    def grid(self) -> list[OperatingPoint]:
        """Points of thresholds that differ from router to router: quantiles
        of each router's probabilities, in all combinations."""
        size = int(_MAX_COMBINATIONS ** (1 / len(self.router_logits)))
        quantiles = np.quantile(self.router_logits, np.linspace(0, 1, size), axis=1).T
        choices = 1 / (1 + np.exp(-quantiles))
        choices[:, 0], choices[:, -1] = 0.0, 1.0
        return list(map(self.at, itertools.product(*choices)))


def choose_point(
    points: Sequence[OperatingPoint],
    budget: float | None = None,
    accuracy: float | None = None,
    group: str = 'overall',
) -> OperatingPoint:
    """Choose the best point within a budget, or the cheapest good one.

    Args:
        points (Sequence[OperatingPoint]): What to choose from.
        budget (float, optional): Largest mean relative compute; the most
            accurate point within it is chosen.
        accuracy (float, optional): Least accuracy, percent; the cheapest
            point with it is chosen.
        group (str): Whose accuracy counts. Defaults to 'overall'.

    Returns:
        OperatingPoint: The chosen one.

    Raises:
        UserError: If no point does, or there are no such images.
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
                f'a compute of {budget:g} is below the minimum, one expert on '
                f'every image: {least.compute:.4f}, with an accuracy of '
                f'{least.accuracy[group]:.2f} % ({group})'
            )
        return max(fitting, key=lambda p: (p.accuracy[group], -p.compute))
    fitting = [point for point in points if point.accuracy[group] >= accuracy]
    if not fitting:
        most = max(point.accuracy[group] for point in points)
        raise UserError(
            f'no threshold gives an accuracy of {accuracy:g} % ({group}); the best is {most:.2f} %'
        )
    return min(fitting, key=lambda p: (p.compute, -p.accuracy[group]))
