from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.utils.errors import UserError
from .class_group_metric import (ClassGroupMetric, group_titles, sample_groups,
                                 validate_labels)


def topk_hits(pred_score: torch.Tensor,
              gt_label: torch.Tensor,
              topk: Sequence[int] = (1, )) -> torch.Tensor:
    """Say whether the true class is among the k best, for several k.

    Args:
        pred_score (torch.Tensor): Scores with shape (N, K).
        gt_label (torch.Tensor): True labels with shape (N, ).
        topk (Sequence[int]): Every k. Defaults to (1, ).

    Returns:
        torch.Tensor: Bool hits with shape (N, len(topk)).

    Raises:
        UserError: If a k is larger than the number of classes.
    """
    if max(topk) > pred_score.size(1):
        raise UserError(f'top-{max(topk)} accuracy needs at least '
                        f'{max(topk)} classes, but the model predicts '
                        f'{pred_score.size(1)}. Lower `topk`.')
    best = pred_score.topk(max(topk), dim=1).indices
    found = best.eq(gt_label.to(best.device).unsqueeze(1))
    return torch.stack([found[:, :k].any(dim=1) for k in topk], dim=1)


def accuracy_by_class(hits: np.ndarray, gt_label: np.ndarray,
                      num_classes: int) -> np.ndarray:
    """Compute the share of right predictions of each class (its recall).

    Args:
        hits (np.ndarray): Whether each prediction is right, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        num_classes (int): The number of classes K.

    Returns:
        np.ndarray: Percent with shape (K, ); NaN for a class without images.
    """
    images = np.bincount(gt_label, minlength=num_classes)
    right = np.bincount(gt_label, weights=hits, minlength=num_classes)
    accuracy = np.full(num_classes, np.nan)
    return np.divide(100. * right, images, out=accuracy, where=images > 0)


def long_tail_accuracy(hits: np.ndarray,
                       gt_label: np.ndarray,
                       class_counts: Sequence[int],
                       thresholds: Sequence[int] = (20, 100)
                       ) -> Dict[str, float]:
    """Compute the accuracy overall, balanced and by class size.

    'overall', 'many', 'medium' and 'few' average over images, as the
    official RIDE evaluation does. 'balanced' is the mean of the accuracies
    of all classes that have images. On a test set with as many images of
    each class, both averages agree.

    Args:
        hits (np.ndarray): Whether each prediction is right, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        class_counts (Sequence[int]): Training images per class, K numbers.
        thresholds (Sequence[int]): The smallest and the largest medium-shot
            class. Defaults to (20, 100).

    Returns:
        dict[str, float]: Percent. A group without images is left out.

    Raises:
        ValueError: If the lengths differ.
        UserError: If a label is not a class.

    Examples:
        >>> import numpy as np
        >>> long_tail_accuracy(
        ...     hits=np.array([True, True, False, True]),
        ...     gt_label=np.array([0, 0, 1, 1]),
        ...     class_counts=[500, 5])
        {'overall': 75.0, 'balanced': 75.0, 'many': 100.0, 'few': 50.0}
    """
    hits, gt_label = np.asarray(hits), np.asarray(gt_label)
    if hits.shape != gt_label.shape or hits.ndim != 1:
        raise ValueError('hits and gt_label must both have shape (N, ), but '
                         f'got {hits.shape} and {gt_label.shape}.')
    if not hits.size:
        return {}
    validate_labels(gt_label, len(class_counts), 'True label')

    by_class = accuracy_by_class(hits, gt_label, len(class_counts))
    groups = sample_groups(gt_label, class_counts, thresholds)
    accuracy = {
        name: 100. * float(np.mean(hits[images]))
        for name, images in groups.items()
    }
    balanced = float(np.nanmean(by_class))
    return {'overall': accuracy.pop('overall'), 'balanced': balanced,
            **accuracy}


@METRICS.register_module()
class LongTailMetric(ClassGroupMetric):
    """Accuracy overall, balanced, and of many-, medium- and few-shot classes.

    The figures are percent: ``long_tail/overall``, ``long_tail/balanced``,
    ``long_tail/many``, ``long_tail/medium`` and ``long_tail/few``, and for
    each k above 1 the same with ``_top{k}`` behind. A group without images
    is left out. :func:`long_tail_accuracy` says how each is averaged.

    The metric keeps a few numbers per image, never the scores. Predictions
    are taken from ``pred_score``, and from ``pred_label`` only where there
    are no scores: after test-time augmentation the label is stale.

    Args:
        topk (int | Sequence[int]): Every k of the top-k accuracy. Those above
            1 need ``pred_score``. Defaults to (1, ).
        thresholds (Sequence[int]): The smallest and the largest number of
            training images of a medium-shot class. Defaults to (20, 100).
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
    default_prefix: Optional[str] = 'long_tail'

    def __init__(self,
                 topk: Union[int, Sequence[int]] = (1, ),
                 thresholds: Sequence[int] = (20, 100),
                 class_counts: Union[Sequence[int], str, None] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(thresholds, class_counts, collect_device, prefix)
        self.topk = (topk, ) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise UserError('LongTailMetric: topk must name at least one k, '
                            f'each 1 or more, but got {topk}.')

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the label and the hits of each image of a batch.

        Args:
            data_batch: A batch of the dataloader, not used.
            data_samples (Sequence[dict]): A batch of outputs of the model.
        """
        gt_label = self.gt_labels(data_samples)
        if 'pred_score' in data_samples[0]:
            hits = self._hits_of_scores(data_samples, gt_label)
        else:
            hits = self._hits_of_labels(data_samples, gt_label)
        self.results.extend(
            (label, *flags)
            for label, flags in zip(gt_label.tolist(), hits.tolist()))

    def _hits_of_scores(self, data_samples, gt_label) -> torch.Tensor:
        scores = torch.stack([s['pred_score'] for s in data_samples])
        if scores.size(1) != len(self.class_counts):
            raise UserError(
                f'LongTailMetric: {len(self.class_counts)} class counts do '
                f'not fit a model that predicts {scores.size(1)} classes. '
                'Check `num_classes` of the head and the class counts.')
        return topk_hits(scores, gt_label, self.topk)

    def _hits_of_labels(self, data_samples, gt_label) -> torch.Tensor:
        if self.topk != (1, ):
            raise UserError(
                f'LongTailMetric: topk={self.topk} needs `pred_score`, but '
                'these predictions hold `pred_label` only. Use topk=(1, ).')
        labels = torch.cat([s['pred_label'] for s in data_samples]).cpu()
        validate_labels(labels.numpy(), len(self.class_counts),
                        'Predicted label')
        return labels.eq(gt_label).unsqueeze(1)

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Compute the figures of the whole dataset and log them as a table.

        Args:
            results (list[tuple]): (label, hit for each k) of every image.

        Returns:
            dict[str, float]: The figures in percent, without prefix.
        """
        columns = np.array(results, dtype=np.int64).reshape(
            len(results), 1 + len(self.topk)).T
        gt_label, hits = columns[0], columns[1:].astype(bool)
        figures = [
            long_tail_accuracy(hit, gt_label, self.class_counts,
                               self.thresholds) for hit in hits
        ]
        if results:
            self._log(figures, gt_label)
        return {
            name if k == 1 else f'{name}_top{k}': value
            for k, values in zip(self.topk, figures)
            for name, value in values.items()
        }

    def _log(self, figures: List[dict], gt_label: np.ndarray) -> None:
        groups = sample_groups(gt_label, self.class_counts, self.thresholds)
        titles = group_titles(self.thresholds)
        rows = []
        for name in figures[0]:
            images = groups.get(name, groups['overall'])
            rows.append([
                titles[name],
                str(np.unique(gt_label[images]).size),
                str(np.count_nonzero(images)),
                *(f'{values[name]:.2f}' for values in figures)
            ])
        self.log_table('Accuracy (%)',
                       ['training images', 'classes', 'images'] +
                       [f'top-{k}' for k in self.topk], rows)
