from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from ride_mm.datasets.class_groups import ClassGroups, Thresholds, resolve_thresholds
from ride_mm.utils.errors import UserError

from .by_group import resolve_class_counts, validate_labels
from .tables import build_table, render_table


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

    @property
    def dataset_meta(self) -> dict | None:
        """dict, optional: Meta information of the evaluated dataset."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        self.class_counts = self._resolve_counts()

    @cached_property
    def class_counts(self) -> np.ndarray:
        """np.ndarray: Training images per class, (K, )."""
        return self._resolve_counts()

    def _resolve_counts(self) -> np.ndarray:
        return resolve_class_counts(self._class_counts, self.dataset_meta, type(self).__name__)

    @property
    def groups(self) -> ClassGroups:
        """ClassGroups: Groups of the evaluated dataset's classes."""
        return ClassGroups(self.class_counts, self.thresholds)

    def gt_labels(self, data_samples: Sequence[dict]) -> torch.Tensor:
        """Collect and check the true labels of a batch.

        Args:
            data_samples (Sequence[dict]): Outputs of the model for B images.

        Returns:
            torch.Tensor: Labels, (B, ), on the CPU.

        Raises:
            UserError: If an image does not have exactly one true label, or its
                label is not a class.
        """
        found = [sample.get('gt_label', torch.empty(0)) for sample in data_samples]
        if any(label.numel() != 1 for label in found):
            raise UserError(
                f'{type(self).__name__} needs one true label per image: use '
                'an annotated single-label dataset (`with_label=True`) and '
                '`PackInputs` in its pipeline.'
            )
        labels = torch.cat([label.reshape(1) for label in found]).cpu()
        validate_labels(labels.numpy(), len(self.class_counts), 'True label')
        return labels

    def values(self, data_samples: Sequence[dict], field: str, hint: str = '') -> list:
        """Collect a field of the predictions of a batch.

        Args:
            data_samples (Sequence[dict]): Outputs of the model for B images.
            field (str): Name of the field.
            hint (str): End of the message if it is missing. Defaults to ''.

        Returns:
            list: The B values.

        Raises:
            UserError: If a prediction does not have the field.
        """
        if any(field not in sample for sample in data_samples):
            raise UserError(
                f'{type(self).__name__} needs `{field}`, which is missing in the predictions.{hint}'
            )
        return [sample[field] for sample in data_samples]

    def scores(
        self, data_samples: Sequence[dict], field: str = 'pred_score', hint: str = ''
    ) -> torch.Tensor:
        """Collect and check scores or logits of a batch.

        Args:
            data_samples (Sequence[dict]): Outputs of the model for B images.
            field (str): Name of the field. Defaults to 'pred_score'.
            hint (str): End of the message if it is missing. Defaults to ''.

        Returns:
            torch.Tensor: Scores or logits, (B, ..., K).

        Raises:
            UserError: If a prediction does not have the field, the number of
                classes differs, or a score is not finite.
        """
        scores = torch.stack(self.values(data_samples, field, hint))
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
            image = sample.get('img_path') or f'image {sample.get("sample_idx", "(unnumbered)")}'
            raise UserError(
                f'{name}: the scores of {image} are not all finite numbers. '
                'Has the training diverged?'
            )
        return scores

    def log_table(self, title: str, columns: Sequence[str], rows: list[list[str]]) -> None:
        """Write a table to the log of the run."""
        print_log('\n' + render_table(build_table(title, columns, rows)), logger='current')

    def log_by_group(
        self,
        title: str,
        columns: Iterable[str],
        cells: Callable[[str], list[str]],
        gt_label: np.ndarray,
    ) -> None:
        """Write a table with a row for each group to the log of the run.

        Args:
            title (str): Title of the table.
            columns (Iterable[str]): Column heads.
            cells (Callable): Return the cells of these columns for a group.
            gt_label (np.ndarray): True labels, (N, ).
        """
        groups = self.groups
        self.log_table(
            title,
            ['training images', 'images', *columns],
            [
                [groups.titles[group], str(np.count_nonzero(images)), *cells(group)]
                for group, images in groups.of_images(gt_label).items()
            ],
        )
