from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from .classification_loss import ClassCountsLoss


def log_prior(class_counts: Sequence[int]) -> torch.Tensor:
    """Log of each class's share of the training images.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.

    Returns:
        torch.Tensor: Log prior, (K, ), float64.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    return (counts / counts.sum()).log()


def inverse_log_prior(class_counts: Sequence[int]) -> torch.Tensor:
    """Log prior with the order of the classes reversed.

    The smallest class gets the log prior of the largest one, and so on.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.

    Returns:
        torch.Tensor: Inverse log prior, (K, ), float64.
    """
    prior = log_prior(class_counts)
    order = prior.argsort(stable=True)
    return torch.empty_like(prior).scatter_(0, order, prior[order].flip(0))


@MODELS.register_module()
class LogitAdjustmentLoss(ClassCountsLoss):
    """Cross entropy of the logits ``z + tau * log(prior)``.

    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021,
    eq. 10. Its post-hoc form is ``model.test_cfg.logit_adjustment``.

    Args:
        tau (float): Strength of the adjustment; 0 is the cross entropy.
            Defaults to 1.
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.
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
        """Logits that the loss fits to the training images, (N, K)."""
        return cls_score + self.class_values.to(cls_score.dtype)

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Cross entropies, (N, )."""
        return F.cross_entropy(self.fitted_logits(cls_score), target, reduction='none')


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustmentLoss):
    """Cross entropy of ``z + log(n)``: logit adjustment with ``tau=1``.

    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition",
    NeurIPS 2020.

    Args:
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.
    """

    def __init__(self, class_counts: Sequence[int] | None = None) -> None:
        super().__init__(1.0, class_counts)


@MODELS.register_module()
class InverseSoftmaxLoss(LogitAdjustmentLoss):
    """Cross entropy of ``z + log(prior) - tau * log(inverse prior)``.

    It prepares for a test set whose few-shot classes are the most frequent.
    Zhang et al., "Self-Supervised Aggregation of Diverse Experts for
    Test-Agnostic Long-Tailed Recognition", NeurIPS 2022.

    Args:
        tau (float): Strength of the inverse prior. Defaults to 2.
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.
    """

    def __init__(self, tau: float = 2.0, class_counts: Sequence[int] | None = None) -> None:
        super().__init__(tau, class_counts)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """Offsets of the logits, (K, )."""
        return log_prior(class_counts) - self.tau * inverse_log_prior(class_counts)
