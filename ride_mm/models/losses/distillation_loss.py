import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

STUDENTS = ('mean', 'experts')


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.5
) -> torch.Tensor:
    """Divergence of the student's softmax from the teacher's.

    ``T^2 * KL(softmax(t / T) || softmax(s / T))`` (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015).

    Args:
        logits (torch.Tensor): Logits s of the student, (..., N, K).
        teacher_logits (torch.Tensor): Logits t of the teacher, (N, K).
        temperature (float): T. Defaults to 1.5, as in RIDE.

    Returns:
        torch.Tensor: Mean over all dimensions but the classes, a scalar.
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
        student (str): "mean" compares the mean logits of the experts with the
            teacher, as in the official code; "experts" compares each expert
            and averages the losses. Defaults to "mean".

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
        """Compute the loss.

        Args:
            logits (torch.Tensor): Logits of the experts, (E, N, K).
            teacher_logits (torch.Tensor): Logits of the teacher, (N, K).

        Returns:
            torch.Tensor: Scalar >= 0.
        """
        if self.student == 'mean':
            logits = logits.mean(0)
        return self.weight * distillation_loss(logits, teacher_logits, self.temperature)
