from typing import Optional, Sequence, Tuple

import torch
import torch.nn as nn
from mmpretrain.models.losses.utils import weight_reduce_loss

from ride_mm.utils.errors import UserError


class ClassificationLoss(nn.Module):
    """Base of the losses an expert may use, with mmpretrain's convention.

    A subclass gives the loss of every image; weights and reduction are the
    same for all.
    """

    def image_losses(self, cls_score: torch.Tensor, label: torch.Tensor,
                     target: torch.Tensor) -> torch.Tensor:
        """The loss of every image, (N, ).

        Args:
            cls_score (torch.Tensor): Logits, (N, K).
            label (torch.Tensor): Class indices, (N, ): what margins and
                weights follow.
            target (torch.Tensor): What is to be predicted: ``label``, or
                probabilities, (N, K), of mixed images.
        """
        raise NotImplementedError

    def forward(self,
                cls_score: torch.Tensor,
                label: torch.Tensor,
                weight: Optional[torch.Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None,
                soft_label: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Reduced loss.

        Args:
            cls_score (torch.Tensor): Logits, (N, K).
            label (torch.Tensor): Class indices, (N, ), or, as mmpretrain's
                heads give them, ``soft_label``, (N, K), whose largest share
                then is the label.
            weight (torch.Tensor, optional): Weight of every image, (N, ).
            avg_factor (float, optional): What the sum is divided by instead
                of N. Defaults to None.
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
        return weight_reduce_loss(loss, weight, reduction_override or 'mean',
                                  avg_factor)


class ClassCountsLoss(ClassificationLoss):
    """Base of the losses that follow the class counts.

    A subclass says in :meth:`values_of` what it needs of every class.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lacks_counts = False
        # Follows the data set, so it has no place in a checkpoint.
        self.register_buffer('class_values', None, persistent=False)

    def values_of(self, class_counts: Sequence[int]) -> torch.Tensor:
        """One value a class, (K, ), from its training images, (K, )."""
        raise NotImplementedError

    def set_num_classes(self, num_classes: int) -> None:
        """Make room for the values, whose shape then never changes.

        Copies of the model, as ``EMAHook`` keeps one, need that.

        Raises:
            UserError: If there are values, of another number of classes.
        """
        if self.class_values is None:
            self.class_values = torch.zeros(num_classes)
            self._lacks_counts = True
        elif len(self.class_values) != num_classes:
            raise UserError(
                f'{type(self).__name__}: class_counts has '
                f'{len(self.class_values)} entries, expected one for each of '
                f'{num_classes} classes')

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Take the training images per class, (K, ), all > 0."""
        self.set_num_classes(len(class_counts))
        self.class_values.copy_(self.values_of(class_counts))
        self._lacks_counts = False

    def forward(self, cls_score: torch.Tensor, *args,
                **kwargs) -> torch.Tensor:
        """See :meth:`ClassificationLoss.forward`.

        Raises:
            UserError: If the class counts are not known.
        """
        if self.class_values is None or self._lacks_counts:
            raise UserError(
                f'{type(self).__name__} has no class counts: add '
                'class_counts=dict(type="ClassCountsHook") to default_hooks, '
                'or set the loss its class_counts')
        return super().forward(cls_score, *args, **kwargs)


def split_soft_label(
        label: torch.Tensor,
        soft_label: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """The other class of a mixture of two, and how much of it is ``label``.

    Args:
        label (torch.Tensor): One of the two classes, (N, ).
        soft_label (torch.Tensor): Shares of the classes, (N, K).

    Returns:
        tuple[torch.Tensor, torch.Tensor]: The other class, which is
        ``label`` itself where nothing is mixed in, and the share of
        ``label``, (N, ) each.
    """
    share = soft_label.gather(1, label.unsqueeze(1)).squeeze(1)
    others = soft_label.scatter(1, label.unsqueeze(1), 0.)
    amount, other = others.max(dim=1)
    return torch.where(amount > 0, other, label), share


def classification_loss(module: nn.Module,
                        cls_score: torch.Tensor,
                        label: torch.Tensor,
                        soft_label: Optional[torch.Tensor] = None,
                        weight: Optional[torch.Tensor] = None,
                        **kwargs) -> torch.Tensor:
    """Call any loss of mmpretrain's convention, on mixed images too.

    A loss that takes class indices alone, such as mmpretrain's
    ``SeesawLoss``, is called for each of the two classes of a mixture and
    weighted by their shares.

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
        return module(
            cls_score, label, weight=weight, soft_label=soft_label, **kwargs)
    other, share = split_soft_label(label, soft_label)
    weight = 1. if weight is None else weight
    return (module(cls_score, label, weight=weight * share, **kwargs) +
            module(cls_score, other, weight=weight * (1 - share), **kwargs))
