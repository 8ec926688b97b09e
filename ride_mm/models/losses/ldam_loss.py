from typing import Optional, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models.losses.utils import weight_reduce_loss
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError


def ldam_margins(class_counts: Sequence[int],
                 max_margin: float = 0.5) -> torch.Tensor:
    """Margins that grow as classes get smaller.

    ``m_j = max_margin * (n_min / n_j) ** (1 / 4)`` (Cao et al., "Learning
    Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS
    2019, eq. 12).

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ), > 0.
        max_margin (float): Margin of the smallest class, in cosine units.
            Defaults to 0.5.

    Returns:
        torch.Tensor: Margins, (K, ), float64.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    return max_margin * (counts.min() / counts)**0.25


def ldam_loss(cls_score: torch.Tensor,
              label: torch.Tensor,
              margins: torch.Tensor,
              weight: Optional[torch.Tensor] = None,
              reduction: str = 'mean',
              avg_factor: Optional[float] = None) -> torch.Tensor:
    """Cross entropy after the target's logit is lowered by its margin.

    Args:
        cls_score (torch.Tensor): Logits, (N, K).
        label (torch.Tensor): Class indices, (N, ).
        margins (torch.Tensor): Margin of every class in logit units, (K, ).
        weight (torch.Tensor, optional): Weight of every sample, (N, ).
        reduction (str): "none", "mean" or "sum". Defaults to "mean".
        avg_factor (float, optional): What the sum is divided by instead of
            N. Defaults to None.

    Returns:
        torch.Tensor: The reduced loss.
    """
    target = label.unsqueeze(1)
    lowered = cls_score.scatter_add(1, target, -margins[target])
    loss = F.cross_entropy(lowered, label, reduction='none')
    return weight_reduce_loss(loss, weight, reduction, avg_factor)


@MODELS.register_module()
class LDAMLoss(nn.Module):
    """Label-distribution-aware margin loss.

    ``RIDEHead`` supplies the scale of its classifier and, through
    ``ClassCountsHook``, the class counts.

    Args:
        max_margin (float): Margin of the smallest class, in units of the
            unscaled (cosine) logit. Defaults to 0.5.
        scale (float, optional): Factor by which the classifier multiplies
            its cosines. None takes the classifier's own. Defaults to None.
        class_counts (Sequence[int], optional): Training images per class;
            None waits for :meth:`set_class_counts`. Defaults to None.
    """

    def __init__(self,
                 max_margin: float = 0.5,
                 scale: Optional[float] = None,
                 class_counts: Optional[Sequence[int]] = None) -> None:
        super().__init__()
        self.max_margin = max_margin
        self.scale = scale
        # Follows the data set, so it has no place in a checkpoint.
        self.register_buffer('margins', None, persistent=False)
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Compute the margins of ``class_counts``, (K, )."""
        self.margins = ldam_margins(class_counts, self.max_margin).float()

    def forward(self,
                cls_score: torch.Tensor,
                label: torch.Tensor,
                weight: Optional[torch.Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> torch.Tensor:
        """See :func:`ldam_loss`; ``cls_score`` (N, K), ``label`` (N, )."""
        if self.margins is None:
            raise UserError(
                'LDAMLoss knows no class counts: add '
                'dict(type="ClassCountsHook") to custom_hooks, or give '
                'model.head.loss.class_counts')
        scale = 1. if self.scale is None else self.scale
        margins = scale * self.margins.to(cls_score.dtype)
        return ldam_loss(cls_score, label, margins, weight,
                         reduction_override or 'mean', avg_factor)
