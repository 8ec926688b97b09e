from typing import Optional

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models.losses.utils import weight_reduce_loss
from mmpretrain.registry import MODELS


def softmax_focal_loss(cls_score: torch.Tensor,
                       label: torch.Tensor,
                       gamma: float = 2.0,
                       weight: Optional[torch.Tensor] = None,
                       reduction: str = 'mean',
                       avg_factor: Optional[float] = None) -> torch.Tensor:
    """Focal loss on softmax probabilities: ``(1 - p_y)^gamma * -log(p_y)``.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4.
    mmpretrain's ``FocalLoss`` is the sigmoid form of it.

    Args:
        cls_score (torch.Tensor): Logits, (N, K).
        label (torch.Tensor): Class indices, (N, ).
        gamma (float): Focusing parameter; 0 is the cross entropy. Defaults
            to 2.0.
        weight (torch.Tensor, optional): Weight of every sample, (N, ).
        reduction (str): "none", "mean" or "sum". Defaults to "mean".
        avg_factor (float, optional): What the sum is divided by instead of
            N. Defaults to None.

    Returns:
        torch.Tensor: The reduced loss.
    """
    cross_entropy = F.cross_entropy(cls_score, label, reduction='none')
    # 1 - p_y as -expm1(log p_y) keeps its digits when p_y is close to 1; the
    # clamp keeps the gradient of x^gamma finite at 0 for gamma < 1.
    rest = -torch.expm1(-cross_entropy)
    rest = rest.clamp(min=torch.finfo(rest.dtype).tiny)
    loss = rest**gamma * cross_entropy
    return weight_reduce_loss(loss, weight, reduction, avg_factor)


@MODELS.register_module()
class SoftmaxFocalLoss(nn.Module):
    """Focal loss for one label per image.

    Args:
        gamma (float): Focusing parameter, >= 0. Defaults to 2.0.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self,
                cls_score: torch.Tensor,
                label: torch.Tensor,
                weight: Optional[torch.Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> torch.Tensor:
        """See :func:`softmax_focal_loss`."""
        return softmax_focal_loss(cls_score, label, self.gamma, weight,
                                  reduction_override or 'mean', avg_factor)
