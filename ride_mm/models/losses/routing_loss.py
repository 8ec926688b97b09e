import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.registry import MODELS


def router_targets(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which images need another expert.

    Router i should continue if and only if the ensemble of experts 0..i is
    wrong and that of experts 0..j is right for some j > i, as in the official
    code. An ensemble predicts the class of the largest mean logit.

    Args:
        logits (torch.Tensor): Logits of the experts, (E, N, K).
        labels (torch.Tensor): Class indices, (N, ).

    Returns:
        torch.Tensor: Bool, (E - 1, N).
    """
    # Sums have the same largest class as means.
    correct = logits.cumsum(0).argmax(-1) == labels
    later = correct.flip(0).cummax(0).values.flip(0)
    return ~correct[:-1] & later[1:]


def routing_loss(
    router_logits: torch.Tensor,
    targets: torch.Tensor,
    pos_weight: float = 100.0,
    neg_weight: float = 1.0,
) -> torch.Tensor:
    """Weighted binary cross entropy of the routers.

    ``-w_p * y * log(sigmoid(z)) - w_n * (1 - y) * log(1 - sigmoid(z))``,
    averaged over images and routers.

    Args:
        router_logits (torch.Tensor): Logits z, (E - 1, N).
        targets (torch.Tensor): Targets y, bool, (E - 1, N).
        pos_weight (float): w_p, weight of images that need another expert.
            Defaults to 100.
        neg_weight (float): w_n, weight of the other images. Defaults to 1.

    Returns:
        torch.Tensor: Scalar.
    """
    targets = targets.to(router_logits.dtype)
    weight = neg_weight + (pos_weight - neg_weight) * targets
    return F.binary_cross_entropy_with_logits(router_logits, targets, weight)


@MODELS.register_module()
class RoutingLoss(nn.Module):
    """Loss of the routers, see :func:`routing_loss`.

    Args:
        pos_weight (float): Weight of images that need another expert; the
            larger, the more experts are used. Defaults to 100.
        neg_weight (float): Weight of the other images. Defaults to 1.
    """

    def __init__(self, pos_weight: float = 100.0, neg_weight: float = 1.0) -> None:
        super().__init__()
        self.pos_weight = pos_weight
        self.neg_weight = neg_weight

    def forward(self, router_logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Loss, a scalar, for logits and targets, (E - 1, N) each."""
        return routing_loss(router_logits, targets, self.pos_weight, self.neg_weight)
