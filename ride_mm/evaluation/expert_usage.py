from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import GroupsLike, key_prefix
from ride_mm.utils.errors import UserError

from .by_group import mean_by_group
from .class_group_metric import ClassGroupMetric


def expert_usage(
    num_experts_used: np.ndarray,
    relative_compute: np.ndarray,
    gt_label: np.ndarray,
    groups: GroupsLike,
    num_experts: int = 1,
) -> dict[str, float]:
    """Compute how many experts images use, overall and by group.

    Args:
        num_experts_used (np.ndarray): Number of experts that each image used,
            at least 1, (N, ).
        relative_compute (np.ndarray): Multiply-adds of each image divided by
            those of all experts, (N, ).
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): Class groups or class counts, (K, ).
        num_experts (int): Minimum number E of experts in the result; raised to
            the largest number that an image used. Defaults to 1.

    Returns:
        dict[str, float]: 'used_1' to 'used_{E}' (percent of the images that
        used exactly this many experts), 'mean' (experts per image) and
        'compute' (mean relative compute, 1.0 is all experts), then the same
        with the prefixes 'many\\_', 'medium\\_' and 'few\\_'. A group without
        images is left out.

    Raises:
        UserError: If the lengths differ, an image used no expert or a label is
            not a class.
    """
    used, compute, gt_label = map(np.asarray, (num_experts_used, relative_compute, gt_label))
    if not used.shape == compute.shape == gt_label.shape or used.ndim != 1:
        raise UserError(
            'num_experts_used, relative_compute and gt_label must all have '
            f'shape (N, ), but got {used.shape}, {compute.shape} and '
            f'{gt_label.shape}.'
        )
    if not used.size:
        return {}
    if used.min() < 1:
        raise UserError(
            f'num_experts_used must be 1 or more for every image, but got {used.min()}.'
        )
    counts = range(1, max(num_experts, used.max()) + 1)
    columns = {f'used_{num}': 100.0 * (used == num) for num in counts}
    return mean_by_group(columns | dict(mean=used, compute=compute), gt_label, groups)


@METRICS.register_module()
class ExpertUsageMetric(ClassGroupMetric):
    """Number of experts used, overall and by class group.

    The metrics are ``experts/used_1`` to ``experts/used_{E}`` (percent of the
    images that used exactly this many experts; E is the largest number that
    any image has used so far), ``experts/mean`` (experts per image) and
    ``experts/compute`` (multiply-adds relative to all experts, 1.0 is all),
    and the same for each group, such as ``experts/few_mean``. A group without
    images is left out.

    With test-time augmentation, the metrics describe the first augmented
    view, the only one whose fields MMPretrain keeps.

    The arguments are those of :class:`.ClassGroupMetric`; the prefix defaults
    to 'experts'.

    Examples:
        >>> val_evaluator = [
        ...     dict(type='LongTailMetric'),
        ...     dict(type='ExpertUsageMetric')]
    """

    default_prefix: str | None = 'experts'
    # Largest number of experts used so far; keeps the set of logged keys
    # stable across evaluations.
    _most = 1

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the label, the experts and the compute of each image."""
        hint = (
            ' Only a `RIDEClassifier` predicts it. To evaluate another model, '
            'remove ExpertUsageMetric from `val_evaluator` and `test_evaluator`.'
        )
        used = map(int, self.values(data_samples, 'num_experts_used', hint))
        compute = map(float, self.values(data_samples, 'relative_compute', hint))
        self.results.extend(zip(self.gt_labels(data_samples).tolist(), used, compute))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the metrics of the whole dataset and log them as a table."""
        if not results:
            return {}
        gt_label, used, compute = map(np.array, zip(*results))
        figures = expert_usage(used, compute, gt_label, self.groups, self._most)
        self._most = most_experts(figures)
        self.log_by_group(
            'Experts used (% of the images)',
            usage_columns(figures),
            lambda group: usage_cells(figures, group),
            gt_label,
        )
        return figures


def most_experts(figures: dict[str, float]) -> int:
    """Return the largest number of experts in the result of :func:`expert_usage`."""
    return sum(key.startswith('used_') for key in figures)


def usage_columns(figures: dict[str, float]) -> list[str]:
    """Name the table columns for the result of :func:`expert_usage`."""
    counts = range(2, most_experts(figures) + 1)
    return ['1 expert', *(f'{n} experts' for n in counts), 'mean', 'compute']


def usage_cells(figures: dict[str, float], group: str) -> list[str]:
    """Format the result of :func:`expert_usage` for one group in a table."""
    prefix = key_prefix(group)
    counts = range(1, most_experts(figures) + 1)
    shares = [f'{figures[f"{prefix}used_{num}"]:.2f}' for num in counts]
    return shares + [f'{figures[f"{prefix}mean"]:.2f}', f'{figures[f"{prefix}compute"]:.3f}']
