from collections.abc import Sequence

import numpy as np
import torch
from mmpretrain.registry import BATCH_AUGMENTS

from ride_mm.structures import missing_class_counts
from ride_mm.utils.errors import UserError


def remix_shares(
    counts: torch.Tensor,
    other_counts: torch.Tensor,
    lam: float,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> torch.Tensor:
    """Weight of the first image's label in the label of a mixed image.

    Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020, eq. 6: 0 if
    the first class has at least ``kappa`` times as many training images as the
    second one and ``lam < tau``; 1 in the mirrored case; ``lam`` otherwise.

    Args:
        counts (torch.Tensor): Training images of the first image's class,
            (N, ).
        other_counts (torch.Tensor): Training images of the second image's
            class, (N, ).
        lam (float): Mixing weight of the first image's pixels, from 0 to 1.
        kappa (float): Ratio of class counts from which the smaller class takes
            the whole label. Defaults to 3.
        tau (float): The smaller class takes the whole label only if the other
            class has less than this weight. Defaults to 0.5.

    Returns:
        torch.Tensor: Weights, (N, ).
    """
    shares = torch.full_like(counts, lam, dtype=torch.float)
    if lam < tau:
        shares[counts >= kappa * other_counts] = 0.0
    if 1 - lam < tau:
        shares[kappa * counts <= other_counts] = 1.0
    return shares


@BATCH_AUGMENTS.register_module()
class Remix:
    """Mixup that favors the class with fewer training images in the label.

    Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020.

    Args:
        alpha (float): The mixing weight is drawn from Beta(alpha, alpha).
            Defaults to 1.
        kappa (float): See :func:`remix_shares`. Defaults to 3.
        tau (float): See :func:`remix_shares`. Defaults to 0.5.
        class_counts (Sequence[int], optional): Training images per class.
            Defaults to None, which means that ``ClassCountsHook`` sets them.

    Raises:
        UserError: If ``alpha`` is not above 0.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        kappa: float = 3.0,
        tau: float = 0.5,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        if alpha <= 0:
            raise UserError(f'Remix: alpha={alpha} must be above 0')
        self.alpha = alpha
        self.kappa = kappa
        self.tau = tau
        self.class_counts: torch.Tensor | None = None
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Set the training images per class, (K, )."""
        self.class_counts = torch.as_tensor(class_counts)

    def __call__(
        self, batch_inputs: torch.Tensor, batch_scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix every image with another image of the batch.

        Args:
            batch_inputs (torch.Tensor): Images, (N, C, H, W).
            batch_scores (torch.Tensor): One-hot labels, (N, K).

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Mixed images, (N, C, H, W), and
            class probabilities, (N, K).

        Raises:
            UserError: If the class counts are not known.
        """
        if self.class_counts is None:
            raise missing_class_counts('Remix', 'its class_counts')
        lam = np.random.beta(self.alpha, self.alpha)
        index = torch.randperm(len(batch_inputs))
        counts = self.class_counts.to(batch_scores.device)[batch_scores.argmax(dim=1)]
        shares = remix_shares(counts, counts[index], lam, self.kappa, self.tau).unsqueeze(1)
        return (
            lam * batch_inputs + (1 - lam) * batch_inputs[index],
            shares * batch_scores + (1 - shares) * batch_scores[index],
        )
