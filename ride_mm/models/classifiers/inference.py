"""The outputs of a model for a batch of images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Inference(NamedTuple):
    """Outputs for N images.

    Args:
        mean_logits (torch.Tensor): Mean logits of the experts used, (N, K).
        used (torch.Tensor): Number of experts used, (N, ).
        expert_logits (torch.Tensor, optional): Logits of every expert, (E,
            N, K), on request.
        router_logits (torch.Tensor, optional): Logits of every trained router,
            (E - 1, N), on the same request, as if every image reached it.
    """

    mean_logits: torch.Tensor
    used: torch.Tensor
    expert_logits: torch.Tensor | None = None
    router_logits: torch.Tensor | None = None


def join(parts: Sequence[Inference]) -> Inference:
    """Concatenate the outputs of the parts of a batch."""
    return Inference(
        *(
            None if columns[0] is None else torch.cat(columns, dim=dim)
            for columns, dim in zip(zip(*parts), (0, 0, 1, 1))
        )
    )
