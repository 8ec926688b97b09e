from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS

from ..backbones.efficientnet_lite import (
    HEAD_CHANNELS,
    INIT_CFG,
    layer_depth,
    make_head,
    make_stage,
    stages_of,
)
from .arch import check_stages


@MODELS.register_module()
class EfficientNetLiteExpert(BaseModule):
    """The last stages of an EfficientNet-Lite, pooled: the tail of one expert.

    Args:
        arch (str): The whole network, "lite0" to "lite4".
        in_channels (int): Channels of the trunk's output.
        stages (Sequence[int]): Stages of the expert, counted from 0. Defaults
            to (5, 6).
        out_channels (Sequence[int]): Channels of each stage. Defaults to
            (192, 320), those of Lite0 and Lite1.
        head_channels (int): Channels D of the last convolution. Defaults to
            1280.

    Raises:
        UserError: If ``arch`` is unknown, or stages and widths do not fit.
    """

    def __init__(
        self,
        arch: str,
        in_channels: int,
        stages: Sequence[int] = (5, 6),
        out_channels: Sequence[int] = (192, 320),
        head_channels: int = HEAD_CHANNELS,
        init_cfg=INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        settings = stages_of(arch)
        check_stages('EfficientNetLiteExpert', len(settings), stages, out_channels)
        self.arch = arch
        self.in_channels, self.out_channels = in_channels, head_channels
        self.stages = [f'layer{stage + 1}' for stage in stages]
        for stage, name, channels in zip(stages, self.stages, out_channels):
            self.add_module(
                name, make_stage(settings[stage]._replace(channels=channels), in_channels)
            )
            in_channels = channels
        self.conv2 = make_head(in_channels, head_channels)
        self.width_keys = [f'{name}.0.linear_conv.bn.weight' for name in self.stages]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`.efficientnet_lite.layer_depth`; called by mmpretrain."""
        return layer_depth(param_name, prefix, self.arch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, D)."""
        for name in self.stages:
            x = getattr(self, name)(x)
        return F.adaptive_avg_pool2d(self.conv2(x), 1).flatten(1)
