import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

STUDENTS = ('mean', 'experts')


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.5
) -> torch.Tensor:
    """Divergence of the student from the teacher.

    ``T^2 * KL(softmax(t / T) || softmax(s / T))`` (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015).

    Args:
        logits (torch.Tensor): The student's, (..., N, K).
        teacher_logits (torch.Tensor): The teacher's, (N, K).
        temperature (float): T. Defaults to 1.5, that of RIDE.

    Returns:
        torch.Tensor: Averaged over all but the classes; scalar.
    """
    log_p = F.log_softmax(teacher_logits / temperature, dim=-1)
    log_q = F.log_softmax(logits / temperature, dim=-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    return temperature**2 * divergence.mean()


@MODELS.register_module()
class DistillationLoss(nn.Module):
    """Distill the experts from a teacher.

    Args:
        weight (float): Factor on the loss. Defaults to 1.
        temperature (float): See :func:`distillation_loss`. Defaults to 1.5.
        student (str): What is compared with the teacher's mean logits: "mean",
            the mean logits of the experts, as in the official code, or
            "experts", each of them, on average. Defaults to "mean".

    Raises:
        UserError: If ``student`` is unknown.
    """

    def __init__(
        self, weight: float = 1.0, temperature: float = 1.5, student: str = 'mean'
    ) -> None:
        super().__init__()
        if student not in STUDENTS:
            raise UserError(
                f'DistillationLoss: student="{student}" is unknown, expected one of {STUDENTS}'
            )
        self.weight = weight
        self.temperature = temperature
        self.student = student

    def forward(self, logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """Loss of the experts' ``logits`` (E, N, K) for the teacher's mean
        logits (N, K); a scalar >= 0."""
        if self.student == 'mean':
            logits = logits.mean(0)
        return self.weight * distillation_loss(logits, teacher_logits, self.temperature)
