from collections.abc import Sequence

import torch
from mmpretrain.registry import MODELS

from .class_weights import effective_number_weights
from .classification_loss import ClassCountsLoss, classification_loss


@MODELS.register_module()
class ClassBalancedLoss(ClassCountsLoss):
    """Any loss, weighted by the effective number of images of each class.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
    CVPR 2019. The weighted sum is divided by the number of images, not by the
    sum of the weights as with ``DeferredReweightingHook``.

    Args:
        loss (dict): Config of the loss, such as ``SoftmaxFocalLoss``.
            Defaults to ``dict(type='CrossEntropyLoss')``.
        beta (float): See :func:`.effective_number_weights`. Defaults to
            0.9999.
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.
    """

    def __init__(
        self,
        loss: dict = dict(type='CrossEntropyLoss'),
        beta: float = 0.9999,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.loss_module = MODELS.build(loss)
        self.beta = beta
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def set_num_classes(self, num_classes: int) -> None:
        """Allocate the weights and the buffers of the inner loss."""
        super().set_num_classes(num_classes)
        if hasattr(self.loss_module, 'set_num_classes'):
            self.loss_module.set_num_classes(num_classes)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """Class weights, (K, ); also sets the class counts of the inner loss."""
        if hasattr(self.loss_module, 'set_class_counts'):
            self.loss_module.set_class_counts(class_counts)
        return effective_number_weights(class_counts, self.beta)

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Weighted losses, (N, )."""
        losses = classification_loss(
            self.loss_module,
            cls_score,
            label,
            soft_label=None if target is label else target,
            reduction_override='none',
        )
        return self.class_values[label].to(losses.dtype) * losses
