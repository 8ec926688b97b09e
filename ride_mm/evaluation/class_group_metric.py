import io
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from rich import box
from rich.console import Console
from rich.table import Table

from ride_mm.datasets.class_counts import group_masks, read_class_counts
from ride_mm.utils.errors import UserError


def validate_thresholds(thresholds: Sequence[int]) -> Tuple[int, int]:
    """Check the class sizes between few-, medium- and many-shot.

    Args:
        thresholds (Sequence[int]): The smallest and the largest number of
            training images of a medium-shot class.

    Returns:
        tuple[int, int]: The same two numbers.

    Raises:
        UserError: If these are not two numbers with ``0 <= low <= high``.
    """
    if len(thresholds) != 2 or not 0 <= thresholds[0] <= thresholds[1]:
        raise UserError(
            f'thresholds must be two class sizes (low, high) with '
            f'0 <= low <= high, for example (20, 100), but got {thresholds}.')
    return tuple(thresholds)


def validate_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Check that labels are classes.

    Args:
        labels (np.ndarray): Labels with shape (N, ).
        num_classes (int): The number of classes K.
        name (str): What the labels are, for the message.

    Raises:
        UserError: If a label lies outside ``[0, num_classes)``.
    """
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise UserError(
            f'{name} {outside[0]} is not one of the {num_classes} classes '
            f'(0 to {num_classes - 1}) that the class counts describe. Is '
            'this the right dataset, or do the class counts come from '
            'another one?')


def resolve_class_counts(class_counts: Union[Sequence[int], str, None],
                         dataset_meta: Optional[dict],
                         owner: str) -> np.ndarray:
    """Find the training images per class.

    Args:
        class_counts (Sequence[int] | str, optional): The counts, or a file
            to read them from. None means those of the dataset.
        dataset_meta (dict, optional): ``metainfo`` of the evaluated dataset.
        owner (str): Who asks, for the message.

    Returns:
        np.ndarray: The counts with shape (K, ).

    Raises:
        UserError: If there are no counts, or if they do not fit the classes
            of the dataset.
    """
    meta = dataset_meta or {}
    if isinstance(class_counts, str):
        class_counts = _read_counts(class_counts, owner)
    elif class_counts is None:
        class_counts = meta.get('class_counts')
    if class_counts is None:
        raise UserError(
            f'{owner} needs the number of training images of each class, but '
            "the evaluated dataset has no metainfo['class_counts']. Use a "
            'dataset of ride_mm, or add `metainfo=dict(class_counts=[...])` '
            f'to the dataset, or `class_counts=[...]` (a list or a file) to '
            f'{owner}.')
    counts = np.asarray(class_counts)
    if counts.ndim != 1 or counts.dtype.kind not in 'iu' or not counts.size \
            or counts.min() < 0:
        raise UserError(
            f'{owner}: class_counts must be a list of whole numbers, one for '
            f'each class, none below 0, but got {class_counts!r:.80}.')
    classes = meta.get('classes')
    if classes is not None and len(classes) != counts.size:
        raise UserError(
            f'{owner}: {counts.size} class counts do not fit the '
            f'{len(classes)} classes of the evaluated dataset.')
    return counts


def _read_counts(path: str, owner: str) -> List[int]:
    try:
        return read_class_counts(path)
    except (OSError, ValueError) as e:
        raise UserError(f'{owner}.class_counts: {e}') from e


def sample_groups(gt_label: np.ndarray,
                  class_counts: Sequence[int],
                  thresholds: Sequence[int] = (20, 100)
                  ) -> Dict[str, np.ndarray]:
    """Say which images belong to the many-, medium- and few-shot classes.

    Args:
        gt_label (np.ndarray): True labels with shape (N, ).
        class_counts (Sequence[int]): Training images per class, K numbers.
        thresholds (Sequence[int]): The smallest and the largest medium-shot
            class. Defaults to (20, 100).

    Returns:
        dict[str, np.ndarray]: Bool masks with shape (N, ) under 'overall',
        'many', 'medium' and 'few'. A group without images is left out.
    """
    groups = {'overall': np.ones(len(gt_label), dtype=bool)}
    for name, classes in group_masks(class_counts, thresholds).items():
        groups[name] = np.asarray(classes)[gt_label]
    return {name: images for name, images in groups.items() if images.any()}


def group_titles(thresholds: Sequence[int]) -> Dict[str, str]:
    """Name the groups with their class sizes, for tables and plots."""
    low, high = thresholds
    return dict(
        overall='overall',
        balanced='balanced (class mean)',
        many=f'many (> {high})',
        medium=f'medium ({low} to {high})',
        few=f'few (< {low})')


def build_table(title: str, columns: Sequence[str],
                rows: Sequence[Sequence[str]]) -> Table:
    """Build a table: the first column left, the numbers right.

    Args:
        title (str): What the table shows.
        columns (Sequence[str]): The column heads.
        rows (Sequence[Sequence[str]]): The cells, already formatted.

    Returns:
        rich.table.Table: The table, plain ASCII so that any log takes it.
    """
    table = Table(title=title, box=box.ASCII, title_justify='left')
    for i, column in enumerate(columns):
        table.add_column(
            column, justify='right' if i else 'left', no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def render_table(table: Table) -> str:
    """Render a table as plain text, however narrow the terminal is."""
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return '\n'.join(line.rstrip() for line in lines)


class ClassGroupMetric(BaseMetric):
    """Base of the metrics that look at many-, medium- and few-shot classes.

    It finds and checks the class counts as soon as the dataset is known,
    which is before the training starts.

    Args:
        thresholds (Sequence[int]): The smallest and the largest number of
            training images of a medium-shot class. Defaults to (20, 100).
        class_counts (Sequence[int] | str, optional): Training images per
            class, or a file to read them from. Defaults to None, which means
            ``metainfo['class_counts']`` of the evaluated dataset.
        collect_device (str): Device used to collect the results of several
            processes, 'cpu' or 'gpu'. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None,
            which means ``default_prefix``.
    """

    def __init__(self,
                 thresholds: Sequence[int] = (20, 100),
                 class_counts: Union[Sequence[int], str, None] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.thresholds = validate_thresholds(thresholds)
        self._class_counts = class_counts
        self._resolved: Optional[np.ndarray] = None

    @property
    def dataset_meta(self) -> Optional[dict]:
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

    def _resolve(self, dataset_meta: Optional[dict]) -> np.ndarray:
        return resolve_class_counts(self._class_counts, dataset_meta,
                                    type(self).__name__)

    def gt_labels(self, data_samples: Sequence[dict]) -> torch.Tensor:
        """Collect and check the true labels of a batch.

        Args:
            data_samples (Sequence[dict]): A batch of B outputs of the model.

        Returns:
            torch.Tensor: Labels with shape (B, ), on the CPU.

        Raises:
            UserError: If an image does not have exactly one true label, or
                one outside the classes.
        """
        labels = [sample.get('gt_label') for sample in data_samples]
        if any(label is None or label.numel() != 1 for label in labels):
            raise UserError(
                f'{type(self).__name__} needs one true label per image: use '
                'an annotated single-label dataset (`with_label=True`) and '
                '`PackInputs` in its pipeline.')
        labels = torch.cat([label.reshape(1) for label in labels]).cpu()
        validate_labels(labels.numpy(), len(self.class_counts), 'True label')
        return labels

    def log_table(self, title: str, columns: Sequence[str],
                  rows: List[List[str]]) -> None:
        """Write a table into the log of the run."""
        text = render_table(build_table(title, columns, rows))
        print_log('\n' + text, logger='current')
