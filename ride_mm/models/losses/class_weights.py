"""Weights of classes by their number of training images."""

from collections.abc import Sequence

import torch


def effective_number_weights(class_counts: Sequence[int], beta: float = 0.9999) -> torch.Tensor:
    """Weights by the effective number of images, ``(1 - b) / (1 - b^n)``.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
    CVPR 2019, eq. 4, scaled to sum to the number of classes as they and
    LDAM-DRW do.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.
        beta (float): 0 weights all classes alike, towards 1 by the inverse
            count. Defaults to 0.9999.

    Returns:
        torch.Tensor: Weights, (K, ), float64.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(counts) / weights.sum()
