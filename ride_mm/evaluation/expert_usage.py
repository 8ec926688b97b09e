from collections.abc import Sequence

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import ClassGroups, GroupsLike, key_prefix
from ride_mm.utils.errors import UserError

from .by_group import validate_labels
from .class_group_metric import ClassGroupMetric


def expert_usage(
    num_experts_used: np.ndarray,
    relative_compute: np.ndarray,
    gt_label: np.ndarray,
    groups: GroupsLike,
    num_experts: int = 1,
) -> dict[str, float]:
    """Compute how many experts images use, overall and by class size.

    Args:
        num_experts_used (np.ndarray): Number of experts that each image used,
            shape (N, ), at least 1.
        relative_compute (np.ndarray): Multiply-adds of each image divided by
            those of all experts, shape (N, ).
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        num_experts (int): Minimum number E of experts in the result; raised to
            the largest number that an image used. Defaults to 1.

    Returns:
        dict[str, float]: 'used_1' to 'used_{E}' (percent of the images that
        used exactly this many experts), 'mean' (experts per image) and
        'compute' (mean relative compute, 1.0 is all experts); then the same
        with 'many\\_', 'medium\\_' and 'few\\_' in front. A group without
        images is left out.

    Raises:
        UserError: If the lengths differ or an image used no expert.
        UserError: If a label is not a class.
    """
    used, compute, gt_label = (
        np.asarray(x) for x in (num_experts_used, relative_compute, gt_label)
    )
    if not used.shape == compute.shape == gt_label.shape or used.ndim != 1:
        raise UserError(
            'num_experts_used, relative_compute and gt_label must all have '
            f'shape (N, ), but got {used.shape}, {compute.shape} and '
            f'{gt_label.shape}.'
        )
    if not used.size:
        return {}
    groups = ClassGroups.of(groups)
    validate_labels(gt_label, len(groups), 'True label')
    if used.min() < 1:
        raise UserError(
            f'num_experts_used must be 1 or more for every image, but got {used.min()}.'
        )

    most = max(num_experts, used.max())
    figures = {}
    for name, images in groups.of_images(gt_label).items():
        prefix = key_prefix(name)
        shares = np.bincount(used[images], minlength=most + 1)[1:]
        for num, share in enumerate(100.0 * shares / shares.sum(), start=1):
            figures[f'{prefix}used_{num}'] = float(share)
        figures[f'{prefix}mean'] = float(used[images].mean())
        figures[f'{prefix}compute'] = float(compute[images].mean())
    return figures


@METRICS.register_module()
class ExpertUsageMetric(ClassGroupMetric):
    """Number of experts used, overall and by class size.

    The figures are ``experts/used_1`` to ``experts/used_{E}`` (percent of the
    images that used exactly this many experts; E is the largest number that
    any image has used so far), ``experts/mean`` (experts per image) and
    ``experts/compute`` (multiply-adds relative to all experts, 1.0 is all),
    and the same for each group, such as ``experts/few_mean``. A group without
    images is left out.

    With test-time augmentation the figures are those of the first augmented
    view, the only one whose fields MMPretrain keeps.

    Args:
        thresholds (str | Sequence[int]): Class groups, see
            :class:`LongTailMetric`. Defaults to "ride".
        class_counts (Sequence[int] | str, optional): Training images per
            class, or a file to read them from. Defaults to None, which means
            ``metainfo['class_counts']`` of the evaluated dataset.
        collect_device (str): Device used to collect the results of several
            processes, 'cpu' or 'gpu'. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None,
            which means 'experts'.

    Examples:
        >>> val_evaluator = [
        ...     dict(type='LongTailMetric'),
        ...     dict(type='ExpertUsageMetric')]
    """

    default_prefix: str | None = 'experts'
    # Largest number of experts used so far; keeps the set of logged keys
    # stable across evaluations.
    _most = 1

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the label, the experts and the compute of each image.

        Args:
            data_batch: A batch of the dataloader, not used.
            data_samples (Sequence[dict]): A batch of outputs of the model.
        """
        for field in ('num_experts_used', 'relative_compute'):
            if any(field not in sample for sample in data_samples):
                raise UserError(
                    f'ExpertUsageMetric needs `{field}`, which only a '
                    '`RIDEClassifier` predicts. To evaluate another model, '
                    'remove ExpertUsageMetric from `val_evaluator` and '
                    '`test_evaluator`.'
                )
        columns = [self.gt_labels(data_samples)] + [
            _stack([sample[field] for sample in data_samples])
            for field in ('num_experts_used', 'relative_compute')
        ]
        self.results.extend(zip(*(column.tolist() for column in columns)))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the figures of the whole dataset and log them as a table.

        Args:
            results (list[tuple]): (label, experts used, relative compute) of
                every image.

        Returns:
            dict[str, float]: The figures, without prefix.
        """
        columns = np.array(results, dtype=np.float64).reshape(-1, 3).T
        gt_label, used = columns[:2].astype(np.int64)
        figures = expert_usage(used, columns[2], gt_label, self.groups, self._most)
        if results:
            self._most = most_experts(figures)
            self._log(figures, gt_label)
        return figures

    def _log(self, figures: dict, gt_label: np.ndarray) -> None:
        titles, groups = self.groups.titles, self.groups.of_images(gt_label)
        rows = [
            [titles[name], str(np.count_nonzero(images))] + usage_cells(figures, name)
            for name, images in groups.items()
        ]
        self.log_table(
            'Experts used (% of the images)',
            ['training images', 'images'] + usage_columns(figures),
            rows,
        )


def most_experts(figures: dict[str, float]) -> int:
    """The largest number of experts in :func:`expert_usage`'s figures."""
    return sum(key.startswith('used_') for key in figures)


def usage_columns(figures: dict[str, float]) -> list[str]:
    """Name the table columns for :func:`expert_usage`'s figures."""
    counts = range(2, most_experts(figures) + 1)
    return ['1 expert', *(f'{n} experts' for n in counts), 'mean', 'compute']


def usage_cells(figures: dict[str, float], group: str) -> list[str]:
    """Format :func:`expert_usage`'s figures of one group for a table."""
    prefix = key_prefix(group)
    shares = [
        f'{figures[f"{prefix}used_{num}"]:.2f}' for num in range(1, most_experts(figures) + 1)
    ]
    return shares + [f'{figures[f"{prefix}mean"]:.2f}', f'{figures[f"{prefix}compute"]:.3f}']


def _stack(values: Sequence) -> torch.Tensor:
    """Join numbers or one-element tensors of a batch into one tensor."""
    if isinstance(values[0], torch.Tensor):
        return torch.stack([value.reshape(()) for value in values])
    return torch.tensor(values, dtype=torch.float64)
