import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.logging import print_log
from mmpretrain.registry import MODELS

from ride_mm.structures import missing_class_counts
from ride_mm.utils.errors import UserError

FORMS = ('official', 'paper')
# 1 / scale of the cosine classifiers. Above it, the gradient of the paper's form
# can exceed that of the cross entropy.
_PAPER_WEIGHT = 1 / 30


def class_temperature(
    class_counts: Sequence[int], form: str = 'official', eta: float = 1.0, gamma: float = 0.05
) -> torch.Tensor:
    """Temperatures of the classes, higher for those with more images.

    With ``psi_c = gamma * K * n_c / sum(n) + 1 - gamma``,

    - official code: ``T_c = eta * psi_c / max(psi)``;
    - paper: ``T_c = eta * (psi_c + 1 - max(psi))``.

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ).
        form (str): "official" or "paper". Defaults to "official".
        eta (float): Base temperature. Defaults to 1.0.
        gamma (float): How strongly temperatures follow the class distribution.
            Defaults to 0.05.

    Returns:
        torch.Tensor: Temperatures, (K, ), float64, all > 0.

    Raises:
        UserError: If a temperature is not > 0, since ``gamma`` is too large.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    psi = gamma * len(counts) * counts / counts.sum() + 1 - gamma
    if form == 'official':
        temperature = eta * psi / psi.max()
    else:
        temperature = eta * (psi + 1 - psi.max())
    if not (temperature > 0).all():
        raise UserError(
            f'DiversityLoss: gamma={gamma} and eta={eta} give a temperature of '
            f'{temperature.min():.3g} for the smallest class; it must be above 0: lower gamma'
        )
    return temperature


def mean_divergence(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Divergence of the experts as in the official code.

    ``mean(T)^2 * sum_i KL(softmax(z_mean / T) || softmax(z_i / T))``, where
    z_mean is the mean of the logits, without gradient.

    Args:
        logits (torch.Tensor): Logits of the experts, (E, N, K).
        temperature (torch.Tensor): T, (1, ), or one per class, (K, ).

    Returns:
        torch.Tensor: Summed over experts, averaged over images; scalar.
    """
    log_mean = F.log_softmax(logits.detach().mean(0) / temperature, dim=-1)
    log_p = F.log_softmax(logits / temperature, dim=-1)
    divergence = (log_mean.exp() * (log_mean - log_p)).sum()
    return temperature.mean() ** 2 * divergence / logits.size(1)


def pairwise_divergence(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Divergence of the experts as in the paper.

    ``1 / (E - 1) * sum_i sum_{j != i} KL(p_i || p_j)`` with
    ``p_i = softmax(z_i / T)``. Written as ``E * sum_i <p_i, log p_i> -
    <sum_i p_i, sum_j log p_j>``, its cost is linear in the number of experts.

    Args:
        logits (torch.Tensor): Logits of the experts, (E, N, K).
        temperature (torch.Tensor): T, (1, ), or one per class, (K, ).

    Returns:
        torch.Tensor: Summed over experts, averaged over images; scalar, 0
        for a single expert.
    """
    num_experts, num_samples = logits.shape[:2]
    log_p = F.log_softmax(logits / temperature, dim=-1)
    p = log_p.exp()
    divergence = num_experts * (p * log_p).sum() - (p.sum(0) * log_p.sum(0)).sum()
    return divergence / (max(num_experts - 1, 1) * num_samples)


@MODELS.register_module()
class DiversityLoss(nn.Module):
    """RIDE's distribution-aware diversity loss, which pushes experts apart.

    Wang et al., "Long-tailed Recognition by Routing Diverse Distribution-Aware
    Experts", ICLR 2021. ``RIDEHead`` passes logits with the prior added if the
    classification loss adds it. Code and paper of the authors differ:

    - ``form="official"``, their code: :func:`mean_divergence`, with the
      temperature ``eta`` for all classes until re-weighting begins
      (``DeferredReweightingHook``) and :func:`class_temperature` from then on;
    - ``form="paper"``: :func:`pairwise_divergence` with class temperatures from
      the start. Its gradient is bounded only by the scale of the logits: above
      a weight of about 1 / scale, the experts diverge to opposite predictions,
      see docs/recipes.md. A weight above 1 / 30, for the default scale, logs a
      warning.

    Args:
        weight (float): lambda >= 0; the loss is ``-weight * divergence``. The
            official code states -weight. Defaults to 0.2.
        form (str): "official" or "paper". Defaults to "official".
        eta (float): Base temperature. Defaults to 1.0.
        gamma (float): How strongly temperatures follow the class distribution.
            Defaults to 0.05.

    Raises:
        UserError: If ``form`` is unknown.
    """

    temperature: torch.Tensor
    class_temperature: Any  # a tensor, (K, ), once K is known

    def __init__(
        self, weight: float = 0.2, form: str = 'official', eta: float = 1.0, gamma: float = 0.05
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise UserError(f'DiversityLoss: form="{form}" is unknown, expected one of {FORMS}')
        if form == 'paper' and weight > _PAPER_WEIGHT:
            print_log(
                f'DiversityLoss(form="paper", weight={weight}): above 1 / (scale of the '
                f'classifiers), {_PAPER_WEIGHT:.3f} for a scale of 30, this form can drive the '
                'experts apart without bound; 0.02 trained well on CIFAR-100-LT',
                logger='current',
                level=logging.WARNING,
            )
        self.weight = weight
        self.form = form
        self.eta = eta
        self.gamma = gamma
        self.reweighting = False
        self._knows_counts = False
        # Computed from the training set, so not part of a checkpoint.
        self.register_buffer('class_temperature', None, persistent=False)
        self.register_buffer('temperature', torch.full((1,), float(eta)), persistent=False)

    def set_num_classes(self, num_classes: int) -> None:
        """Allocate the temperatures, see :meth:`.ClassCountsLoss.set_num_classes`."""
        self.class_temperature = self.temperature.new_zeros(num_classes)
        self.temperature = torch.full_like(self.class_temperature, self.eta)

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Set the training images per class, (K, )."""
        if self.class_temperature is None:
            self.set_num_classes(len(class_counts))
        self.class_temperature.copy_(
            class_temperature(class_counts, self.form, self.eta, self.gamma)
        )
        self._knows_counts = True
        self.set_reweighting(self.reweighting)

    def set_reweighting(self, enabled: bool) -> None:
        """Set whether the current epochs are re-weighted."""
        self.reweighting = enabled
        if not self._knows_counts:
            return
        if enabled or self.form == 'paper':
            self.temperature.copy_(self.class_temperature)
        else:
            self.temperature.fill_(self.eta)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits (torch.Tensor): Logits of the experts, (E, N, K).

        Returns:
            torch.Tensor: Scalar <= 0.

        Raises:
            UserError: If ``form="paper"`` and the class counts are not known.
        """
        if not self._knows_counts and self.form == 'paper':
            raise missing_class_counts('DiversityLoss(form="paper")')
        divergence = mean_divergence if self.form == 'official' else pairwise_divergence
        return -self.weight * divergence(logits, self.temperature.to(logits.dtype))
