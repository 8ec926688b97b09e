import math
from collections.abc import Sequence

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import ClassGroups, GroupsLike, Thresholds
from ride_mm.utils.errors import UserError

from .by_group import validate_labels
from .class_group_metric import ClassGroupMetric


def topk_hits(
    pred_score: torch.Tensor, gt_label: torch.Tensor, topk: Sequence[int] = (1,)
) -> torch.Tensor:
    """Check whether the true class is among the top k, for several k.

    Args:
        pred_score (torch.Tensor): Scores with shape (N, K).
        gt_label (torch.Tensor): True labels with shape (N, ).
        topk (Sequence[int]): The values of k. Defaults to (1, ).

    Returns:
        torch.Tensor: Bool hits with shape (N, len(topk)).

    Raises:
        UserError: If a k is larger than the number of classes.
    """
    if max(topk) > pred_score.size(1):
        raise UserError(
            f'top-{max(topk)} accuracy needs at least '
            f'{max(topk)} classes, but the model predicts '
            f'{pred_score.size(1)}. Lower `topk`.'
        )
    best = pred_score.topk(max(topk), dim=1).indices
    found = best.eq(gt_label.to(best.device).unsqueeze(1))
    return torch.stack([found[:, :k].any(dim=1) for k in topk], dim=1)


def accuracy_by_class(hits: np.ndarray, gt_label: np.ndarray, num_classes: int) -> np.ndarray:
    """Compute the accuracy (recall) of each class.

    Args:
        hits (np.ndarray): Whether each prediction is correct, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        num_classes (int): The number of classes K.

    Returns:
        np.ndarray: Percent with shape (K, ); NaN for a class without images.
    """
    images = np.bincount(gt_label, minlength=num_classes)
    right = np.bincount(gt_label, weights=hits, minlength=num_classes)
    accuracy = np.full(num_classes, np.nan)
    return np.divide(100.0 * right, images, out=accuracy, where=images > 0)


def recall_means(by_class: np.ndarray) -> dict[str, float]:
    """Summarize the accuracies of the classes, with equal weights.

    Args:
        by_class (np.ndarray): What :func:`accuracy_by_class` returns. Classes
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
    """Compute the accuracy overall, over the classes and by class size.

    'overall', 'many', 'medium' and 'few' average over images, like the
    official RIDE evaluation; see :func:`recall_means` for averages over the
    classes. On a balanced test set, 'overall' and 'balanced' agree.

    Args:
        hits (np.ndarray): Whether each prediction is correct, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).

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
    overall = accuracy.pop('overall')
    return dict(overall=overall, **recall_means(by_class), **accuracy)


MEAN_TITLES = dict(
    balanced='balanced (class mean)',
    harmonic='harmonic mean of classes',
    geometric='geometric mean of classes',
    worst_10='worst 10% of classes',
    worst_class='worst class',
)


@METRICS.register_module()
class LongTailMetric(ClassGroupMetric):
    """Accuracy overall, over the classes and by class size.

    The figures are percent: ``long_tail/overall``, ``balanced``, ``harmonic``,
    ``geometric``, ``worst_10``, ``worst_class``, ``many``, ``medium`` and
    ``few``, and for each k above 1 the same with suffix ``_top{k}``. A group
    without images is left out. See :func:`long_tail_accuracy` for the
    averages.

    The metric keeps a few numbers per image, never the scores. Predictions
    are taken from ``pred_score``, and from ``pred_label`` only where there
    are no scores: after test-time augmentation the label is stale.

    Args:
        topk (int | Sequence[int]): The values of k of the top-k accuracy.
            Those above 1 need ``pred_score``. Defaults to (1, ).
        by_class (bool): Whether to also return the accuracy of every class,
            ``long_tail/by_class``: a list of K numbers, None for a class
            without images. Defaults to False.
        thresholds (str | Sequence[int]): Class groups: the smallest and the
            largest number of training images of a medium-shot class, or "ride"
            (20 and 100), "ride-swin" (21 and 99) or "thirds" of the classes.
            Defaults to "ride".
        class_counts (Sequence[int] | str, optional): Training images per
            class, or a file to read them from. Defaults to None, which means
            ``metainfo['class_counts']`` of the evaluated dataset.
        collect_device (str): Device used to collect the results of several
            processes, 'cpu' or 'gpu'. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None,
            which means 'long_tail'.

    Examples:
        >>> val_evaluator = [dict(type='LongTailMetric', topk=(1, 5))]
    """

    default_prefix: str | None = 'long_tail'

    def __init__(
        self,
        topk: int | Sequence[int] = (1,),
        by_class: bool = False,
        thresholds: Thresholds = 'ride',
        class_counts: Sequence[int] | str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(thresholds, class_counts, collect_device, prefix)
        self.by_class = by_class
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise UserError(
                f'LongTailMetric: topk must name at least one k, each 1 or more, but got {topk}.'
            )

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the label and the hits of each image of a batch.

        Args:
            data_batch: A batch of the dataloader, not used.
            data_samples (Sequence[dict]): A batch of outputs of the model.
        """
        gt_label = self.gt_labels(data_samples)
        if 'pred_score' in data_samples[0]:
            hits = topk_hits(self.scores(data_samples), gt_label, self.topk)
        else:
            hits = self._hits_of_labels(data_samples, gt_label)
        self.results.extend(
            (label, *flags) for label, flags in zip(gt_label.tolist(), hits.tolist())
        )

    def _hits_of_labels(self, data_samples, gt_label) -> torch.Tensor:
        if self.topk != (1,):
            raise UserError(
                f'LongTailMetric: topk={self.topk} needs `pred_score`, but '
                'these predictions hold `pred_label` only. Use topk=(1, ).'
            )
        labels = torch.cat([s['pred_label'] for s in data_samples]).cpu()
        validate_labels(labels.numpy(), len(self.class_counts), 'Predicted label')
        return labels.eq(gt_label).unsqueeze(1)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the figures of the whole dataset and log them as a table.

        Args:
            results (list[tuple]): (label, hit for each k) of every image.

        Returns:
            dict[str, float]: The figures in percent, without prefix.
        """
        if not results:
            return {}
        gt_label, *hits = np.array(results, dtype=np.int64).T
        figures = {k: self._figures(hit.astype(bool), gt_label) for k, hit in zip(self.topk, hits)}
        self._log(figures, gt_label)
        return {
            name if k == 1 else f'{name}_top{k}': value
            for k, values in figures.items()
            for name, value in values.items()
        }

    def _figures(self, hits: np.ndarray, gt_label: np.ndarray) -> dict:
        figures = long_tail_accuracy(hits, gt_label, self.groups)
        if self.by_class:
            recalls = accuracy_by_class(hits, gt_label, len(self.class_counts))
            figures['by_class'] = [
                None if math.isnan(recall) else recall for recall in recalls.tolist()
            ]
        return figures

    def _log(self, figures: dict[int, dict], gt_label: np.ndarray) -> None:
        groups = self.groups.of_images(gt_label)
        sizes = {
            name: [str(np.unique(gt_label[images]).size), str(np.count_nonzero(images))]
            for name, images in groups.items()
        }
        titles = dict(self.groups.titles, **MEAN_TITLES)
        first = next(iter(figures.values()))
        rows = [
            [
                titles[name],
                *sizes.get(name, ('', '')),
                *(f'{values[name]:.2f}' for values in figures.values()),
            ]
            for name in first
            if name in titles
        ]
        self.log_table(
            'Accuracy (%)',
            ['training images', 'classes', 'images'] + [f'top-{k}' for k in figures],
            rows,
        )
