import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import ClassGroups, GroupsLike
from ride_mm.utils.errors import UserError

from .by_group import validate_labels
from .class_group_metric import ClassGroupMetric


def topk_hits(
    pred_score: torch.Tensor, gt_label: torch.Tensor, topk: Sequence[int] = (1,)
) -> torch.Tensor:
    """Check whether the true class is among the top k, for several k.

    Args:
        pred_score (torch.Tensor): Scores, (N, K).
        gt_label (torch.Tensor): True labels, (N, ).
        topk (Sequence[int]): The values of k. Defaults to (1, ).

    Returns:
        torch.Tensor: Bool hits, (N, len(topk)).

    Raises:
        UserError: If a k is larger than the number of classes.
    """
    most, num_classes = max(topk), pred_score.size(1)
    if most > num_classes:
        raise UserError(
            f'top-{most} accuracy needs at least {most} classes, but the model '
            f'predicts {num_classes}. Lower `topk`.'
        )
    best = pred_score.topk(most, dim=1).indices
    found = best.eq(gt_label.to(best.device).unsqueeze(1))
    return torch.stack([found[:, :k].any(dim=1) for k in topk], dim=1)


def accuracy_by_class(hits: np.ndarray, gt_label: np.ndarray, num_classes: int) -> np.ndarray:
    """Compute the accuracy (recall) of each class.

    Args:
        hits (np.ndarray): Whether each prediction is correct, (N, ).
        gt_label (np.ndarray): True labels, (N, ).
        num_classes (int): Number of classes K.

    Returns:
        np.ndarray: Percent, (K, ); NaN for a class without images.
    """
    images = np.bincount(gt_label, minlength=num_classes)
    right = np.bincount(gt_label, weights=hits, minlength=num_classes)
    accuracy = np.full(num_classes, np.nan)
    return np.divide(100.0 * right, images, out=accuracy, where=images > 0)


def recall_means(by_class: np.ndarray) -> dict[str, float]:
    """Summarize the accuracies of the classes, with equal weights.

    Args:
        by_class (np.ndarray): Result of :func:`accuracy_by_class`. Classes
            without images (NaN) are left out.

    Returns:
        dict[str, float]: Percent: 'balanced' (arithmetic mean: balanced
        accuracy), 'harmonic' and 'geometric' (means that are 0 if any class is
        0), 'worst_10' (mean of the worst tenth of the classes, rounded up) and
        'worst_class'.
    """
    recalls = np.sort(by_class[~np.isnan(by_class)])
    with np.errstate(divide='ignore'):
        harmonic = 1.0 / np.mean(1.0 / recalls)
        geometric = np.exp(np.mean(np.log(recalls)))
    tenth = math.ceil(len(recalls) / 10)
    return dict(
        balanced=float(recalls.mean()),
        harmonic=float(harmonic),
        geometric=float(geometric),
        worst_10=float(recalls[:tenth].mean()),
        worst_class=float(recalls[0]),
    )


def long_tail_accuracy(
    hits: np.ndarray, gt_label: np.ndarray, groups: GroupsLike
) -> dict[str, float]:
    """Compute the accuracy over images, over classes and by group.

    'overall', 'many', 'medium' and 'few' average over images, like the
    official RIDE evaluation; see :func:`recall_means` for averages over the
    classes. On a balanced test set, 'overall' and 'balanced' agree.

    Args:
        hits (np.ndarray): Whether each prediction is correct, (N, ).
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): Class groups or class counts, (K, ).

    Returns:
        dict[str, float]: Percent. A group without images is left out.

    Raises:
        ValueError: If the lengths differ.
        UserError: If a label is not a class.

    Examples:
        >>> import numpy as np
        >>> figures = long_tail_accuracy(
        ...     hits=np.array([True, True, False, True]),
        ...     gt_label=np.array([0, 0, 1, 1]),
        ...     groups=[500, 5])
        >>> figures['balanced'], figures['worst_class'], figures['few']
        (75.0, 50.0, 50.0)
    """
    hits, gt_label = np.asarray(hits), np.asarray(gt_label)
    if hits.shape != gt_label.shape or hits.ndim != 1:
        raise ValueError(
            'hits and gt_label must both have shape (N, ), but '
            f'got {hits.shape} and {gt_label.shape}.'
        )
    if not hits.size:
        return {}
    groups = ClassGroups.of(groups)
    validate_labels(gt_label, len(groups), 'True label')
    by_class = accuracy_by_class(hits, gt_label, len(groups))
    accuracy = {
        name: 100.0 * float(np.mean(hits[images]))
        for name, images in groups.of_images(gt_label).items()
    }
    return dict(overall=accuracy.pop('overall'), **recall_means(by_class), **accuracy)


MEAN_TITLES = dict(
    balanced='balanced (class mean)',
    harmonic='harmonic mean of classes',
    geometric='geometric mean of classes',
    worst_10='worst 10% of classes',
    worst_class='worst class',
)


@METRICS.register_module()
class LongTailMetric(ClassGroupMetric):
    """Accuracy over images, over classes and by class group.

    The metrics are percentages: ``long_tail/overall``, ``balanced``,
    ``harmonic``, ``geometric``, ``worst_10``, ``worst_class``, ``many``,
    ``medium`` and ``few``, and for each k above 1 the same with the suffix
    ``_top{k}``. A group without images is left out. See
    :func:`long_tail_accuracy` for the averages.

    A few numbers are kept per image, and no scores. ``pred_label`` is used
    only where there is no ``pred_score``: test-time augmentation does not
    update the label.

    Args:
        topk (int | Sequence[int]): The values of k of the top-k accuracy.
            Those above 1 need ``pred_score``. Defaults to (1, ).
        by_class (bool): Whether to also return the accuracy of every class,
            ``long_tail/by_class``: a list of K numbers, None for a class
            without images. Defaults to False.
        **kwargs: Arguments of :class:`.ClassGroupMetric`. The prefix defaults to
            'long_tail'.

    Examples:
        >>> val_evaluator = [dict(type='LongTailMetric', topk=(1, 5))]
    """

    default_prefix: str | None = 'long_tail'

    def __init__(
        self, topk: int | Sequence[int] = (1,), by_class: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.by_class = by_class
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise UserError(
                f'LongTailMetric: topk must name at least one k, each 1 or more, but got {topk}.'
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the label and the hits of each image of a batch."""
        gt_label = self.gt_labels(data_samples)
        if 'pred_score' in data_samples[0]:
            hits = topk_hits(self.scores(data_samples), gt_label, self.topk)
        elif self.topk == (1,):
            labels = torch.cat(self.values(data_samples, 'pred_label')).cpu()
            validate_labels(labels.numpy(), len(self.class_counts), 'Predicted label')
            hits = labels.eq(gt_label).unsqueeze(1)
        else:
            raise UserError(
                f'LongTailMetric: topk={self.topk} needs `pred_score`, but '
                'these predictions hold `pred_label` only. Use topk=(1, ).'
            )
        self.results.extend(
            (label, *flags) for label, flags in zip(gt_label.tolist(), hits.tolist())
        )

    def compute_metrics(self, results: list[tuple]) -> dict[str, Any]:
        """Compute the metrics of the whole dataset and log them as a table."""
        if not results:
            return {}
        gt_label, *columns = map(np.array, zip(*results))
        hits = dict(zip(self.topk, columns))
        by_k = {k: long_tail_accuracy(hits[k], gt_label, self.groups) for k in hits}
        self._log(by_k, gt_label)
        figures: dict[str, Any] = {}
        for k, values in by_k.items():
            suffix = '' if k == 1 else f'_top{k}'
            figures.update({name + suffix: value for name, value in values.items()})
            if self.by_class:
                recalls = accuracy_by_class(hits[k], gt_label, len(self.class_counts)).tolist()
                figures[f'by_class{suffix}'] = [None if math.isnan(r) else r for r in recalls]
        return figures

    def _log(self, figures: dict[int, dict[str, float]], gt_label: np.ndarray) -> None:
        sizes = {
            name: [str(np.unique(gt_label[images]).size), str(np.count_nonzero(images))]
            for name, images in self.groups.of_images(gt_label).items()
        }
        titles, columns = self.groups.titles | MEAN_TITLES, list(figures.values())
        rows = [
            [
                titles[name],
                *sizes.get(name, ['', '']),
                *(f'{column[name]:.2f}' for column in columns),
            ]
            for name in columns[0]
        ]
        heads = ['training images', 'classes', 'images', *(f'top-{k}' for k in figures)]
        self.log_table('Accuracy (%)', heads, rows)
