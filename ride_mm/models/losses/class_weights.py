"""Class weights from the number of training images."""

from collections.abc import Sequence

import torch


def effective_number_weights(class_counts: Sequence[int], beta: float = 0.9999) -> torch.Tensor:
    """Class weights by the effective number of images.

    ``(1 - beta) / (1 - beta^n_c)``, scaled to sum to the number of classes, as
    in LDAM-DRW (Cui et al., "Class-Balanced Loss Based on Effective Number of
    Samples", CVPR 2019, eq. 4).

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.
        beta (float): 0 gives equal weights; towards 1, weights become
            proportional to ``1 / n_c``. Defaults to 0.9999.

    Returns:
        torch.Tensor: Weights, (K, ), float64.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(counts) / weights.sum()
