import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from .classification_loss import ClassificationLoss


def softmax_focal_loss(
    cls_score: torch.Tensor, target: torch.Tensor, gamma: float = 2.0
) -> torch.Tensor:
    """Focal loss of softmax probabilities, ``-(1 - p_y)^gamma * log(p_y)``.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4.
    mmpretrain's ``FocalLoss`` is the sigmoid form.

    Args:
        cls_score (torch.Tensor): Logits, (N, K).
        target (torch.Tensor): Class indices, (N, ), or class probabilities,
            (N, K), which weight the losses of the classes.
        gamma (float): Focusing parameter; 0 is the cross entropy. Defaults
            to 2.0.

    Returns:
        torch.Tensor: Losses of the images, (N, ).
    """
    log_p = F.log_softmax(cls_score, dim=1)
    if target.dim() == 1:
        log_p = log_p.gather(1, target.unsqueeze(1))
    # 1 - p_y, precise if p_y is close to 1. The clamp keeps the gradient of
    # x^gamma finite at 0 for gamma < 1.
    rest = -torch.expm1(log_p)
    rest = rest.clamp(min=torch.finfo(rest.dtype).tiny)
    losses = -(rest**gamma) * log_p
    if target.dim() == 2:
        losses = target * losses
    return losses.sum(1)


@MODELS.register_module()
class SoftmaxFocalLoss(ClassificationLoss):
    """Focal loss for one label per image.

    Args:
        gamma (float): Focusing parameter, >= 0. Defaults to 2.0.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Focal losses, (N, )."""
        return softmax_focal_loss(cls_score, target, self.gamma)
