from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import nn

from ride_mm.utils.errors import UserError

from ..losses.routing_loss import router_targets
from ..utils import full_precision


class RouterInputs(NamedTuple):
    """Inputs and targets of the routers for a batch.

    They depend on frozen experts only, so they can be cached.

    Args:
        features (torch.Tensor): Features of experts 0..E-2, (N, E - 1, D).
        top_logits (torch.Tensor): For router k = 0..E-2, the largest mean
            logits of experts 0..k, (N, E - 1, topk).
        targets (torch.Tensor): Whether the image needs another expert, bool,
            (N, E - 1).
    """

    features: torch.Tensor
    top_logits: torch.Tensor
    targets: torch.Tensor


@MODELS.register_module()
class ExpertRouter(BaseModule):
    """The E - 1 routers, which decide after each expert who needs the next one.

    Router k takes the pooled feature of expert k and the ``topk`` largest mean
    logits of experts 0..k. Each router has its own first layer; all share the
    second, as in the official code.

    Args:
        num_experts (int): Number of experts E, >= 2.
        in_channels (int): Dimensions D of an expert's feature.
        num_classes (int): Number of classes K.
        topk (int): Number of mean logits as input, 1 to K. Defaults to 30.
        hidden_channels (int): Width of the first layer. Defaults to 16.
        loss (dict): Config of the loss. Defaults to
            ``dict(type='RoutingLoss')``.

    Raises:
        UserError: If there is only one expert, or ``topk`` is not 1 to K.
    """

    def __init__(
        self,
        num_experts: int,
        in_channels: int,
        num_classes: int,
        topk: int = 30,
        hidden_channels: int = 16,
        loss: dict = dict(type='RoutingLoss'),
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        if num_experts < 2:
            raise UserError(
                'model.head.router needs at least 2 experts to route between, found '
                f'num_experts={num_experts}: set model.head.router=None'
            )
        if not 1 <= topk <= num_classes:
            raise UserError(
                f'model.head.router.topk={topk} must be between 1 and the number of classes, '
                f'{num_classes}'
            )
        self.topk = topk
        self.hidden_fcs = nn.ModuleList(
            nn.Linear(in_channels, hidden_channels) for _ in range(num_experts - 1)
        )
        self.fc = nn.Linear(topk + hidden_channels, 1)
        self.loss_module = MODELS.build(loss)
        # Saved in checkpoints, so that a trained router can be recognized.
        self.register_buffer('num_updates', torch.zeros((), dtype=torch.long))

    @property
    def trained(self) -> bool:
        """bool: Whether the routers have been trained."""
        return self.num_updates.item() > 0

    def forward(self, index: int, feature: torch.Tensor, mean_logits: torch.Tensor) -> torch.Tensor:
        """Logits for continuing to expert ``index + 1``.

        Args:
            index (int): Index of the router, 0..E-2.
            feature (torch.Tensor): Feature of expert ``index``, (N, D).
            mean_logits (torch.Tensor): Mean logits of experts 0 to ``index``,
                (N, K).

        Returns:
            torch.Tensor: (N, ).
        """
        return self._decide(index, feature, self._top(mean_logits))

    def _top(self, mean_logits: torch.Tensor) -> torch.Tensor:
        return mean_logits.topk(self.topk, dim=1).values

    def _mean_logits(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """Mean logits of experts 0..k for each router k: E - 1 tensors (N, K)."""
        totals = logits.cumsum(0)
        return [totals[index] / (index + 1) for index in range(len(self.hidden_fcs))]

    def _decide(self, index: int, feature: torch.Tensor, top_logits: torch.Tensor) -> torch.Tensor:
        with full_precision(feature):
            feature = feature.to(self.fc.weight.dtype)
            hidden = F.relu(self.hidden_fcs[index](F.normalize(feature)))
            return self.fc(torch.cat((top_logits, hidden), dim=1)).squeeze(1)

    def all_logits(self, feats: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        """Logits of all routers for all images.

        Args:
            feats (Sequence[torch.Tensor]): Features of the experts, E
                tensors (N, D).
            logits (torch.Tensor): Logits of the experts, (E, N, K).

        Returns:
            torch.Tensor: (E - 1, N).
        """
        means = self._mean_logits(logits)
        return torch.stack([self(index, feats[index], mean) for index, mean in enumerate(means)])

    def inputs(
        self, feats: Sequence[torch.Tensor], logits: torch.Tensor, labels: torch.Tensor
    ) -> RouterInputs:
        """Compute the inputs of :meth:`loss` for a batch.

        Args:
            feats (Sequence[torch.Tensor]): Features of the experts, E
                tensors (N, D).
            logits (torch.Tensor): Logits of the experts, (E, N, K).
            labels (torch.Tensor): Class indices, (N, ).

        Returns:
            RouterInputs: Router inputs of the N images.
        """
        top_logits = [self._top(mean) for mean in self._mean_logits(logits)]
        return RouterInputs(
            torch.stack(tuple(feats[: len(top_logits)]), dim=1),
            torch.stack(top_logits, dim=1),
            router_targets(logits, labels).T,
        )

    def loss(self, inputs: RouterInputs) -> torch.Tensor:
        """Loss of all routers on all images; also counts the update.

        Args:
            inputs (RouterInputs): See :meth:`inputs`.

        Returns:
            torch.Tensor: Scalar.
        """
        # `+=` would also register the buffer again. A failed torch.export leaves a
        # hook on that behind, which the compiler cannot trace.
        self.num_updates.add_(1)
        router_logits = torch.stack(
            [
                self._decide(index, inputs.features[:, index], inputs.top_logits[:, index])
                for index in range(len(self.hidden_fcs))
            ]
        )
        return self.loss_module(router_logits, inputs.targets.T)
