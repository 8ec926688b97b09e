from collections.abc import Sequence

import numpy as np
import torch
from mmpretrain.registry import BATCH_AUGMENTS

from ride_mm.utils.errors import UserError


def remix_shares(
    counts: torch.Tensor,
    other_counts: torch.Tensor,
    lam: float,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> torch.Tensor:
    """Share of the first image's label in the label of a mixture.

    Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020, eq. 6: 0
    where the first class is at least ``kappa`` times the second one and
    ``lam < tau``, 1 in the mirrored case, ``lam`` otherwise.

    Args:
        counts (torch.Tensor): Training images of the first image's class,
            (N, ).
        other_counts (torch.Tensor): The same for the second image, (N, ).
        lam (float): Share of the pixels from the first image.
        kappa (float): Minimum ratio of counts for which the smaller class
            wins. Defaults to 3.
        tau (float): A smaller class that is less than ``1 - tau`` of the
            pixels does not win. Defaults to 0.5.

    Returns:
        torch.Tensor: Shares, (N, ).
    """
    shares = torch.full_like(counts, lam, dtype=torch.float)
    if lam < tau:
        shares[counts >= kappa * other_counts] = 0.0
    if 1 - lam < tau:
        shares[kappa * counts <= other_counts] = 1.0
    return shares


@BATCH_AUGMENTS.register_module()
class Remix:
    """Mixup that labels a mixture by its smaller class.

    Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020.

    Args:
        alpha (float): The share of the first image's pixels is drawn from
            Beta(alpha, alpha). Defaults to 1.
        kappa (float): See :func:`remix_shares`. Defaults to 3.
        tau (float): See :func:`remix_shares`. Defaults to 0.5.
        class_counts (Sequence[int], optional): Training images per class; None
            means that ``ClassCountsHook`` sets them. Defaults to None.

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
        """Take the training images per class, (K, )."""
        self.class_counts = torch.as_tensor(class_counts)

    def __call__(
        self, batch_inputs: torch.Tensor, batch_scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix every image with another image of the batch.

        Args:
            batch_inputs (torch.Tensor): Images, (N, C, H, W).
            batch_scores (torch.Tensor): One-hot labels, (N, K).

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Mixed images and shares of
            the classes.

        Raises:
            UserError: If the class counts are not known.
        """
        if self.class_counts is None:
            raise UserError(
                'Remix has no class counts: add '
                'class_counts=dict(type="ClassCountsHook") to '
                'default_hooks'
            )
        lam = np.random.beta(self.alpha, self.alpha)
        index = torch.randperm(len(batch_inputs))
        counts = self.class_counts.to(batch_scores.device)
        counts = counts[batch_scores.argmax(dim=1)]
        shares = remix_shares(counts, counts[index], lam, self.kappa, self.tau).unsqueeze(1)
        return (
            lam * batch_inputs + (1 - lam) * batch_inputs[index],
            shares * batch_scores + (1 - shares) * batch_scores[index],
        )
