from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from .classification_loss import ClassCountsLoss


def log_prior(class_counts: Sequence[int]) -> torch.Tensor:
    """Log of the classes' shares of the training images.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.

    Returns:
        torch.Tensor: (K, ), float64.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    return (counts / counts.sum()).log()


def inverse_log_prior(class_counts: Sequence[int]) -> torch.Tensor:
    """Log shares in reverse order: the smallest class gets the largest.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.

    Returns:
        torch.Tensor: (K, ), float64.
    """
    prior = log_prior(class_counts)
    order = prior.argsort(stable=True)
    return torch.empty_like(prior).scatter_(0, order, prior[order].flip(0))


@MODELS.register_module()
class LogitAdjustmentLoss(ClassCountsLoss):
    """Cross entropy of ``z + tau * log(prior)``.

    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021,
    eq. 10. Its post-hoc form is ``model.test_cfg.logit_adjustment``.

    Args:
        tau (float): Strength of the adjustment; 0 is the cross entropy.
            Defaults to 1.
        class_counts (Sequence[int], optional): Training images per class; None
            means that :meth:`set_class_counts` sets them. Defaults to None.
    """

    def __init__(self, tau: float = 1.0, class_counts: Sequence[int] | None = None) -> None:
        super().__init__()
        self.tau = tau
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """Offsets of the logits, (K, )."""
        return self.tau * log_prior(class_counts)

    def fitted_logits(self, cls_score: torch.Tensor) -> torch.Tensor:
        """The logits that are fitted to the training images, (N, K)."""
        return cls_score + self.class_values.to(cls_score.dtype)

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Cross entropies, (N, )."""
        return F.cross_entropy(self.fitted_logits(cls_score), target, reduction='none')


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustmentLoss):
    """Cross entropy of ``z + log(n)``, the prior's with ``tau=1``.

    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition",
    NeurIPS 2020.

    Args:
        class_counts (Sequence[int], optional): Training images per class; None
            means that :meth:`set_class_counts` sets them. Defaults to None.
    """

    def __init__(self, class_counts: Sequence[int] | None = None) -> None:
        super().__init__(1.0, class_counts)


@MODELS.register_module()
class InverseSoftmaxLoss(LogitAdjustmentLoss):
    """Cross entropy of ``z + log(prior) - tau * log(inverse prior)``.

    It trains for a test set with a reversed long tail. Zhang et al.,
    "Self-Supervised Aggregation of Diverse Experts for Test-Agnostic
    Long-Tailed Recognition", NeurIPS 2022.

    Args:
        tau (float): Strength of the inverse prior. Defaults to 2.
        class_counts (Sequence[int], optional): Training images per class; None
            means that :meth:`set_class_counts` sets them. Defaults to None.
    """

    def __init__(self, tau: float = 2.0, class_counts: Sequence[int] | None = None) -> None:
        super().__init__(tau, class_counts)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """Offsets of the logits, (K, )."""
        return log_prior(class_counts) - self.tau * inverse_log_prior(class_counts)
