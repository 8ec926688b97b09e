from typing import Tuple

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError


@MODELS.register_module()
class MultiExpertNeck(BaseModule):
    """The experts' tails on a shared trunk.

    Args:
        num_experts (int): Number of experts, >= 1.
        expert (dict): Config of one tail. A tail takes the trunk's last
            feature map, (N, C, H, W), and returns features, (N, D).

    Raises:
        UserError: If ``num_experts`` is below 1.
    """

    def __init__(self, num_experts: int, expert: dict, init_cfg=None) -> None:
        super().__init__(init_cfg)
        if num_experts < 1:
            raise UserError(
                f'MultiExpertNeck: num_experts={num_experts}, expected >= 1')
        # Built one by one: copies would start, and stay, identical.
        self.experts = ModuleList(
            MODELS.build(expert) for _ in range(num_experts))

    @property
    def num_experts(self) -> int:
        """int: Number of experts."""
        return len(self.experts)

    def forward(self,
                feats: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, ...]:
        """Features of every expert, E tensors (N, D).

        Args:
            feats (tuple[torch.Tensor]): Outputs of the trunk; the last one
                is used, (N, C, H, W).
        """
        return tuple(expert(feats[-1]) for expert in self.experts)
