from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from .classification_loss import ClassCountsLoss


def ldam_margins(class_counts: Sequence[int], max_margin: float = 0.5) -> torch.Tensor:
    """Margins of the classes, larger for those with fewer images.

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
    return max_margin * (counts.min() / counts) ** 0.25


def ldam_loss(
    cls_score: torch.Tensor,
    label: torch.Tensor,
    margins: torch.Tensor,
    target: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross entropy after the margin is subtracted from the label's logit.

    Args:
        cls_score (torch.Tensor): Logits, (N, K).
        label (torch.Tensor): Class indices, (N, ).
        margins (torch.Tensor): Margins of the classes, in units of the logits,
            (K, ).
        target (torch.Tensor, optional): Class probabilities of mixed images,
            (N, K). Defaults to None, which means ``label``.
        label_smoothing (float): As in ``torch.nn.functional.cross_entropy``.
            Defaults to 0.

    Returns:
        torch.Tensor: Losses of the images, (N, ).
    """
    index = label.unsqueeze(1)
    lowered = cls_score.scatter_add(1, index, -margins[index])
    return F.cross_entropy(
        lowered,
        label if target is None else target,
        reduction='none',
        label_smoothing=label_smoothing,
    )


@MODELS.register_module()
class LDAMLoss(ClassCountsLoss):
    """Label-distribution-aware margin loss.

    See :func:`ldam_margins` and :func:`ldam_loss`.

    Args:
        max_margin (float): Margin of the smallest class, in cosine units.
            Defaults to 0.5.
        scale (float, optional): Factor by which the classifier multiplies its
            cosines. Defaults to None, which means that of ``RIDEHead``'s
            classifier.
        label_smoothing (float): See :func:`ldam_loss`. Defaults to 0.
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.
    """

    def __init__(
        self,
        max_margin: float = 0.5,
        scale: float | None = None,
        label_smoothing: float = 0.0,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.max_margin = max_margin
        self.scale = scale
        self.label_smoothing = label_smoothing
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """Margins of the classes, (K, )."""
        return ldam_margins(class_counts, self.max_margin)

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Losses with scaled margins, (N, )."""
        scale = 1.0 if self.scale is None else self.scale
        margins = scale * self.class_values.to(cls_score.dtype)
        return ldam_loss(cls_score, label, margins, target, self.label_smoothing)
