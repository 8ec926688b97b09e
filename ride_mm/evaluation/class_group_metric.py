from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from ride_mm.datasets.class_groups import ClassGroups, Thresholds, key_prefix, resolve_thresholds
from ride_mm.utils.errors import UserError

from .by_group import resolve_class_counts, validate_labels
from .tables import build_table, render_table


def name_image(sample: dict) -> str:
    """Name the image of a data sample, for a message."""
    path = sample.get('img_path')
    return path or f'image {sample.get("sample_idx", "(unnumbered)")}'


class ClassGroupMetric(BaseMetric):
    """Base of the metrics for many-, medium- and few-shot classes.

    It finds and checks the class counts as soon as the dataset is known,
    which is before the training starts.

    Args:
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
            which means ``default_prefix``.
    """

    def __init__(
        self,
        thresholds: Thresholds = 'ride',
        class_counts: Sequence[int] | str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.thresholds = resolve_thresholds(thresholds)
        self._class_counts = class_counts
        self._resolved: np.ndarray | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """dict, optional: Meta information of the evaluated dataset."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        self._resolved = self._resolve(dataset_meta)

    @property
    def class_counts(self) -> np.ndarray:
        """np.ndarray: Training images per class with shape (K, )."""
        if self._resolved is None:  # evaluated without a dataset, offline
            self._resolved = self._resolve(self.dataset_meta)
        return self._resolved

    @property
    def groups(self) -> ClassGroups:
        """ClassGroups: The groups of the evaluated dataset's classes."""
        return ClassGroups(self.class_counts, self.thresholds)

    def _resolve(self, dataset_meta: dict | None) -> np.ndarray:
        return resolve_class_counts(self._class_counts, dataset_meta, type(self).__name__)

    def gt_labels(self, data_samples: Sequence[dict]) -> torch.Tensor:
        """Collect and check the true labels of a batch.

        Args:
            data_samples (Sequence[dict]): A batch of B outputs of the model.

        Returns:
            torch.Tensor: Labels with shape (B, ), on the CPU.

        Raises:
            UserError: If an image does not have exactly one true label, or its
                label is not a class.
        """
        labels = [sample.get('gt_label') for sample in data_samples]
        if any(label is None or label.numel() != 1 for label in labels):
            raise UserError(
                f'{type(self).__name__} needs one true label per image: use '
                'an annotated single-label dataset (`with_label=True`) and '
                '`PackInputs` in its pipeline.'
            )
        labels = torch.cat([label.reshape(1) for label in labels]).cpu()
        validate_labels(labels.numpy(), len(self.class_counts), 'True label')
        return labels

    def scores(self, data_samples: Sequence[dict]) -> torch.Tensor:
        """Collect and check the scores of a batch.

        Args:
            data_samples (Sequence[dict]): A batch of B outputs of the model.

        Returns:
            torch.Tensor: ``pred_score`` with shape (B, K).

        Raises:
            UserError: If the model predicts no scores, the number of classes
                differs, or a score is not finite.
        """
        if any('pred_score' not in sample for sample in data_samples):
            raise UserError(
                f'{type(self).__name__} needs `pred_score`, but these predictions have none.'
            )
        scores = torch.stack([s['pred_score'] for s in data_samples])
        self.check_scores(scores, data_samples)
        return scores

    def check_scores(self, scores: torch.Tensor, data_samples: Sequence[dict]) -> None:
        """Check scores or logits of a batch.

        Args:
            scores (torch.Tensor): Scores or logits with shape (B, ..., K).
            data_samples (Sequence[dict]): Their data samples, for the message.

        Raises:
            UserError: If there are not K classes, or a score is not finite.
        """
        name = type(self).__name__
        if scores.size(-1) != len(self.class_counts):
            raise UserError(
                f'{name}: {len(self.class_counts)} class counts do not fit a '
                f'model of {scores.size(-1)} classes. Check `num_classes` of '
                'the head and the class counts.'
            )
        wrong = ~scores.isfinite().flatten(1).all(dim=1)
        if wrong.any():
            sample = data_samples[int(wrong.nonzero()[0])]
            raise UserError(
                f'{name}: the scores of {name_image(sample)} are '
                'not all finite numbers. Has the training '
                'diverged?'
            )

    def log_table(self, title: str, columns: Sequence[str], rows: list[list[str]]) -> None:
        """Write a table to the log of the run."""
        text = render_table(build_table(title, columns, rows))
        print_log('\n' + text, logger='current')

    def log_by_group(
        self,
        title: str,
        columns: dict[str, str],
        figures: dict[str, float],
        gt_label: np.ndarray,
        digits: int,
    ) -> None:
        """Write a table with a row for each group to the log of the run.

        Args:
            title (str): Title of the table.
            columns (dict[str, str]): Column heads by name of the figure.
            figures (dict[str, float]): As :func:`mean_by_group` names them.
            gt_label (np.ndarray): True labels with shape (N, ).
            digits (int): Number of decimals.
        """
        titles, groups = self.groups.titles, self.groups.of_images(gt_label)
        self.log_table(
            title,
            ['training images', 'images', *columns.values()],
            [
                [titles[group], str(np.count_nonzero(images))]
                + [f'{figures[key_prefix(group) + name]:.{digits}f}' for name in columns]
                for group, images in groups.items()
            ],
        )
