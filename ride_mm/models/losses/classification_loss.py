from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from mmpretrain.models.losses.utils import weight_reduce_loss

from ride_mm.structures import missing_class_counts
from ride_mm.utils.errors import UserError


class ClassificationLoss(nn.Module):
    """Base class of classification losses, called like mmpretrain's.

    A subclass computes the loss of each image; this class applies weights and
    reduction.
    """

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss of each image.

        Args:
            cls_score (torch.Tensor): Logits, (N, K).
            label (torch.Tensor): Class indices, (N, ), for margins and
                weights.
            target (torch.Tensor): ``label``, or class probabilities, (N, K),
                if images are mixed.

        Returns:
            torch.Tensor: Losses, (N, ).
        """
        raise NotImplementedError

    def forward(
        self,
        cls_score: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        soft_label: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the weighted, reduced loss.

        Args:
            cls_score (torch.Tensor): Logits, (N, K).
            label (torch.Tensor): Class indices, (N, ). mmpretrain's heads pass
                class probabilities, (N, K), here if images are mixed; the
                label is then the most probable class.
            weight (torch.Tensor, optional): Weight of each image, (N, ).
                Defaults to None, which means 1.
            avg_factor (float, optional): Divisor of the sum. Defaults to None,
                which means N.
            reduction_override (str, optional): "none", "mean" or "sum".
                Defaults to None, which means "mean".
            soft_label (torch.Tensor, optional): Class probabilities of mixed
                images, (N, K). Defaults to None.

        Returns:
            torch.Tensor: Scalar, or (N, ) with "none".
        """
        if label.dim() == 2:
            label, soft_label = label.argmax(dim=1), label
        target = label if soft_label is None else soft_label
        loss = self.image_losses(cls_score, label, target)
        return weight_reduce_loss(loss, weight, reduction_override or 'mean', avg_factor)


class ClassCountsLoss(ClassificationLoss):
    """Base class of losses that depend on the class counts.

    A subclass computes its values per class in :meth:`values_of`.
    """

    class_values: Any  # a tensor, (K, ), once K is known

    def __init__(self) -> None:
        super().__init__()
        self._lacks_counts = False
        # Computed from the training set, so not part of a checkpoint.
        self.register_buffer('class_values', None, persistent=False)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """Compute one value per class, (K, ), from the class counts, (K, )."""
        raise NotImplementedError

    def set_num_classes(self, num_classes: int) -> None:
        """Allocate the values, so that their shape is fixed from the start.

        Copies of the model, such as that of ``EMAHook``, need this.

        Raises:
            UserError: If class counts of another number of classes are set.
        """
        if self.class_values is None:
            self.class_values = torch.zeros(num_classes)
            self._lacks_counts = True
        elif len(self.class_values) != num_classes:
            raise UserError(
                f'{type(self).__name__}: class_counts has {len(self.class_values)} entries, '
                f'expected one for each of {num_classes} classes'
            )

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Set the training images per class, (K, ), all > 0."""
        self.set_num_classes(len(class_counts))
        self.class_values.copy_(self.values_of(class_counts))
        self._lacks_counts = False

    def forward(self, cls_score: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """See :meth:`ClassificationLoss.forward`.

        Raises:
            UserError: If the class counts are not known.
        """
        if self.class_values is None or self._lacks_counts:
            raise missing_class_counts(type(self).__name__, 'its class_counts')
        return super().forward(cls_score, *args, **kwargs)


def split_soft_label(
    label: torch.Tensor, soft_label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the class probabilities of mixtures of two images.

    Args:
        label (torch.Tensor): One of the two classes, (N, ).
        soft_label (torch.Tensor): Class probabilities, (N, K).

    Returns:
        tuple[torch.Tensor, torch.Tensor]: The other class (``label`` itself
        if nothing is mixed in) and the probability of ``label``, (N, ) each.
    """
    share = soft_label.gather(1, label.unsqueeze(1)).squeeze(1)
    others = soft_label.scatter(1, label.unsqueeze(1), 0.0)
    amount, other = others.max(dim=1)
    return torch.where(amount > 0, other, label), share


def classification_loss(
    module: nn.Module,
    cls_score: torch.Tensor,
    label: torch.Tensor,
    soft_label: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    **kwargs,
) -> torch.Tensor:
    """Call one of mmpretrain's losses or ours, also on mixed images.

    A loss that takes only class indices, such as mmpretrain's ``SeesawLoss``,
    is called for both classes of a mixture, weighted by their probabilities.

    Args:
        module (nn.Module): The loss.
        cls_score (torch.Tensor): Logits, (N, K).
        label (torch.Tensor): Class indices, (N, ).
        soft_label (torch.Tensor, optional): Class probabilities, (N, K), of at
            most two classes, one of which is ``label``. Defaults to None.
        weight (torch.Tensor, optional): Weight of each image, (N, ). Defaults
            to None, which means 1.
        **kwargs: ``avg_factor`` and ``reduction_override``.

    Returns:
        torch.Tensor: The loss, as reduced by the module.
    """
    if soft_label is None:
        return module(cls_score, label, weight=weight, **kwargs)
    if isinstance(module, ClassificationLoss):
        return module(cls_score, label, weight=weight, soft_label=soft_label, **kwargs)
    other, share = split_soft_label(label, soft_label)
    shares = (share, 1 - share)
    weights = shares if weight is None else [weight * part for part in shares]
    return module(cls_score, label, weight=weights[0], **kwargs) + module(
        cls_score, other, weight=weights[1], **kwargs
    )
