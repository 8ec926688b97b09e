from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from mmpretrain.models.losses.utils import weight_reduce_loss

from ride_mm.utils.errors import UserError


class ClassificationLoss(nn.Module):
    """Base of the expert losses, with mmpretrain's calling convention.

    A subclass defines the loss of every image; this class applies weights and
    reduction.
    """

    def image_losses(
        self, cls_score: torch.Tensor, label: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """The loss of every image, (N, ).

        Args:
            cls_score (torch.Tensor): Logits, (N, K).
            label (torch.Tensor): Class indices, (N, ), for margins and
                weights.
            target (torch.Tensor): ``label``, or probabilities, (N, K), of
                mixed images.
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
        """Reduced loss.

        Args:
            cls_score (torch.Tensor): Logits, (N, K).
            label (torch.Tensor): Class indices, (N, ), or, as mmpretrain's
                heads give them, ``soft_label``, (N, K), whose largest share
                then is the label.
            weight (torch.Tensor, optional): Weight of every image, (N, ).
            avg_factor (float, optional): Divisor of the sum instead of N.
                Defaults to None.
            reduction_override (str, optional): "none", "mean" or "sum".
                None means "mean". Defaults to None.
            soft_label (torch.Tensor, optional): Probabilities of the
                classes, (N, K), where images are mixed. Defaults to None.

        Returns:
            torch.Tensor: Scalar, or (N, ) with "none".
        """
        if label.dim() == 2:
            label, soft_label = label.argmax(dim=1), label
        target = label if soft_label is None else soft_label
        loss = self.image_losses(cls_score, label, target)
        return weight_reduce_loss(loss, weight, reduction_override or 'mean', avg_factor)


class ClassCountsLoss(ClassificationLoss):
    """Base of the losses that depend on the class counts.

    A subclass computes its values per class in :meth:`values_of`.
    """

    class_values: Any  # a tensor, (K, ), as soon as K is known

    def __init__(self) -> None:
        super().__init__()
        self._lacks_counts = False
        # Follows the dataset, so it has no place in a checkpoint.
        self.register_buffer('class_values', None, persistent=False)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """One value per class, (K, ), from the class counts, (K, )."""
        raise NotImplementedError

    def set_num_classes(self, num_classes: int) -> None:
        """Allocate the values with a fixed shape.

        Copies of the model, such as that of ``EMAHook``, need this.

        Raises:
            UserError: If there are already values for another number of
                classes.
        """
        if self.class_values is None:
            self.class_values = torch.zeros(num_classes)
            self._lacks_counts = True
        elif len(self.class_values) != num_classes:
            raise UserError(
                f'{type(self).__name__}: class_counts has '
                f'{len(self.class_values)} entries, expected one for each of '
                f'{num_classes} classes'
            )

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Take the training images per class, (K, ), all > 0."""
        self.set_num_classes(len(class_counts))
        self.class_values.copy_(self.values_of(class_counts))
        self._lacks_counts = False

    def forward(self, cls_score: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """See :meth:`ClassificationLoss.forward`.

        Raises:
            UserError: If the class counts are not known.
        """
        if self.class_values is None or self._lacks_counts:
            raise UserError(
                f'{type(self).__name__} has no class counts: add '
                'class_counts=dict(type="ClassCountsHook") to default_hooks, '
                'or set the loss its class_counts'
            )
        return super().forward(cls_score, *args, **kwargs)


def split_soft_label(
    label: torch.Tensor, soft_label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The other class of a mixture of two, and the share of ``label``.

    Args:
        label (torch.Tensor): One of the two classes, (N, ).
        soft_label (torch.Tensor): Shares of the classes, (N, K).

    Returns:
        tuple[torch.Tensor, torch.Tensor]: The other class, which is
        ``label`` itself where nothing is mixed in, and the share of
        ``label``, (N, ) each.
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
    """Call any loss with mmpretrain's convention, also on mixed images.

    A loss that takes only class indices, such as mmpretrain's ``SeesawLoss``,
    is called for both classes of a mixture and weighted by their shares.

    Args:
        module (nn.Module): The loss.
        cls_score (torch.Tensor): Logits, (N, K).
        label (torch.Tensor): Class indices, (N, ).
        soft_label (torch.Tensor, optional): Shares of at most two classes,
            ``label`` among them, (N, K). Defaults to None.
        weight (torch.Tensor, optional): Weight of every image, (N, ).
        **kwargs: ``avg_factor`` and ``reduction_override``.

    Returns:
        torch.Tensor: What the module returns.
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
