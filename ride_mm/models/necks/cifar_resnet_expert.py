from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS

from ..backbones.cifar_resnet import INIT_CFG, blocks_per_stage, depth_by_block, make_stage
from .arch import check_one_per_stage


@MODELS.register_module()
class CIFARResNetExpert(BaseModule):
    """The last stages of a CIFAR ResNet, pooled: the tail of one expert.

    Args:
        depth (int): Depth of the whole network.
        in_channels (int): Channels of the trunk's output. Defaults to 16.
        stages (Sequence[int]): Stages of the expert, counted from 0. Defaults
            to (1, 2).
        out_channels (Sequence[int]): Channels after each stage. Defaults to
            (24, 48), three quarters of the full network's.
        shortcut (str): "A" or "B", as in ``CIFARResNet``. Defaults to "A".

    Raises:
        UserError: If ``depth`` or ``shortcut`` is unknown, or the widths do
            not suit the stages or the shortcut.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 16,
        stages: Sequence[int] = (1, 2),
        out_channels: Sequence[int] = (24, 48),
        shortcut: str = 'A',
        init_cfg=INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        num_blocks = self.num_blocks = blocks_per_stage(depth)
        check_one_per_stage('CIFARResNetExpert', stages=stages, out_channels=out_channels)
        self.in_channels = in_channels
        self.stages = [f'layer{stage + 1}' for stage in stages]
        for stage, name, width in zip(stages, self.stages, out_channels):
            stride = 1 if stage == 0 else 2
            self.add_module(name, make_stage(in_channels, width, num_blocks, stride, shortcut))
            in_channels = width
        self.out_channels = in_channels
        self.width_keys = [f'{name}.0.bn2.weight' for name in self.stages]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter in the whole backbone, see :func:`.depth_by_block`."""
        return depth_by_block(param_name, prefix, [self.num_blocks] * 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, D)."""
        for name in self.stages:
            x = getattr(self, name)(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
