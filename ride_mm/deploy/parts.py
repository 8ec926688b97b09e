"""The model between two decisions of its routers, as static graphs."""

from copy import deepcopy

import torch
from torch import nn

from ride_mm.models import RIDEClassifier


class ExpertPart(nn.Module):
    """Expert k + 1 and its router, for the images that reach it.

    Args:
        model (RIDEClassifier): The model, which is copied without its other
            experts.
        index (int): Index k of the expert, 0..E-1.
    """

    inputs = ('trunk', 'total')
    outputs = ('new_total', 'router_logit')

    def __init__(self, model: RIDEClassifier, index: int) -> None:
        super().__init__()
        self.routed = model.routes and index + 1 < model.num_experts
        self.index = index
        self.model = deepcopy(model)
        for others in (self.model.neck.experts, self.model.head.classifiers):
            for number in range(model.num_experts):
                if number != index:
                    others[number] = nn.Identity()
        if index > 0:
            self.model.backbone = nn.Identity()

    def forward(self, trunk: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the part.

        Args:
            trunk (torch.Tensor): The trunk's output, (N, ...).
            total (torch.Tensor): Sum of the logits of the experts before,
                (N, K).

        Returns:
            tuple[torch.Tensor, ...]: Sum of the logits with this expert's,
            (N, K), and, if a router follows, its logits, (N, ).
        """
        head = self.model.head
        feature = self.model.neck.run_expert(self.index, trunk)
        total = total + head.logits_of(self.index, feature)
        if not self.routed:
            return (total,)
        return total, head.router(self.index, feature, total / (self.index + 1))


class FirstPart(nn.Module):
    """Trunk, expert 1 and its router.

    Args:
        model (RIDEClassifier): The model.
    """

    inputs = ('images',)
    outputs = ('trunk', 'total', 'router_logit')

    def __init__(self, model: RIDEClassifier) -> None:
        super().__init__()
        self.expert = ExpertPart(model, 0)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the part.

        Args:
            images (torch.Tensor): Normalized images, (N, 3, H, W).

        Returns:
            tuple[torch.Tensor, ...]: The trunk's output, (N, ...), and the
            outputs of :class:`ExpertPart`.
        """
        model = self.expert.model
        trunk = model.backbone(images)[-1]
        total = images.new_zeros(images.size(0), model.head.num_classes)
        return trunk, *self.expert(trunk, total)
