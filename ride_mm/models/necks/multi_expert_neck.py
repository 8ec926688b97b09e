import torch
from mmengine.model import BaseModule, ModuleList, Sequential
from mmpretrain.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from ride_mm.utils.errors import UserError


@MODELS.register_module()
class MultiExpertNeck(BaseModule):
    """The experts' tails on a shared trunk.

    Args:
        num_experts (int): Number of experts, >= 1.
        expert (dict): Config of one tail. It takes the trunk's last output,
            returns features, (N, D), and has the attributes ``in_channels``
            and ``out_channels``. docs/backbones.md shows how to write one.
        shared (dict[str, dict], optional): Configs, by name, of layers that
            all experts share. They are applied one after the other to the
            output of a tail, and the last one returns features, (N, D).
            Defaults to None.
        norm_eval (bool): Whether all BatchNorm layers stay in eval mode, with
            the statistics that they were loaded with, as in mmpretrain's
            ``ResNet``. Defaults to False.

    Raises:
        UserError: If ``num_experts`` is below 1.
    """

    def __init__(
        self,
        num_experts: int,
        expert: dict,
        shared: dict[str, dict] | None = None,
        norm_eval: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        if num_experts < 1:
            raise UserError(f'MultiExpertNeck: num_experts={num_experts}, expected >= 1')
        # Built one by one, since copies would start with equal weights.
        self.experts = ModuleList(MODELS.build(expert) for _ in range(num_experts))
        self.shared = Sequential()
        for name, layer in (shared or {}).items():
            self.shared.add_module(name, MODELS.build(layer))
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> 'MultiExpertNeck':
        """Set the mode; with ``norm_eval``, not that of BatchNorm."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def num_experts(self) -> int:
        """int: Number of experts."""
        return len(self.experts)

    def run_expert(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Features of one expert, (N, D).

        Args:
            index (int): Index of the expert, 0..E-1.
            x (torch.Tensor): The trunk's last output, (N, ...).
        """
        return self.shared(self.experts[index](x))

    def forward(self, feats: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Features of all experts, E tensors (N, D).

        Args:
            feats (tuple[torch.Tensor]): Outputs of the trunk, of which the
                last one is used, (N, ...).
        """
        return tuple(self.run_expert(index, feats[-1]) for index in range(self.num_experts))
