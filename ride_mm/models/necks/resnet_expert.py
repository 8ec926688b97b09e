from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones import ResNet
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

from ..backbones.cifar_resnet import depth_by_block

INIT_CFG = [
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


def stage_factory(family: str, depth: int, **kwargs) -> ResNet:
    """The smallest backbone of ``family``, used to build stages.

    Raises:
        UserError: If ``family`` is not a subclass of mmpretrain's ``ResNet``.
    """
    backbone_type = MODELS.get(family)
    if backbone_type is None or not issubclass(backbone_type, ResNet):
        raise UserError(
            f'ResNetExpert: family="{family}" is not a ResNet of mmpretrain; '
            'expected "ResNet", "ResNet10", "ResNeXt", "SEResNet", ...'
        )
    return backbone_type(
        depth=depth, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,), **kwargs
    )


@MODELS.register_module()
class ResNetExpert(BaseModule):
    """The last stages of a ResNet, pooled: the tail of one expert.

    The family's own ``make_res_layer`` builds the stages, so any subclass of
    mmpretrain's ``ResNet`` that uses it can be a tail.

    Args:
        depth (int): Depth of the network whose stages these are.
        in_channels (int): Channels of the trunk's output.
        stages (Sequence[int]): Which stages, counted from 0. Defaults to
            (2, 3).
        out_channels (Sequence[int]): Channels after each stage. Defaults to
            (768, 1536), three quarters of ResNet-50's.
        strides (Sequence[int], optional): Stride of each stage; 2 for every
            stage by default.
        family (str): Registered type of the backbone. Defaults to "ResNet".
        **kwargs: Options of the family, such as ``groups`` or ``norm_cfg``.

    Raises:
        UserError: If the options do not fit together, or ``family`` is
            unknown.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        stages: Sequence[int] = (2, 3),
        out_channels: Sequence[int] = (768, 1536),
        strides: Sequence[int] | None = None,
        family: str = 'ResNet',
        init_cfg=INIT_CFG,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg)
        strides = (2,) * len(stages) if strides is None else strides
        if not len(stages) == len(out_channels) == len(strides):
            raise UserError(
                f'ResNetExpert: stages={tuple(stages)}, '
                f'out_channels={tuple(out_channels)} and '
                f'strides={tuple(strides)} must each have one entry per stage'
            )
        factory = stage_factory(family, depth, **kwargs)
        self.in_channels = in_channels
        # As a ResNet has it, but for the whole backbone.
        self.stage_blocks = factory.arch_settings[factory.depth][1]
        self.stages: list[str] = []
        for stage, channels, stride in zip(stages, out_channels, strides):
            name = f'layer{stage + 1}'
            self.add_module(name, self._make_stage(factory, stage, in_channels, channels, stride))
            self.stages.append(name)
            in_channels = channels
        self.out_channels = in_channels
        self.width_keys = [f'{name}.0.{self._last_norm(name)}.weight' for name in self.stages]

    def _last_norm(self, stage: str) -> str:
        block = getattr(self, stage)[0]
        return getattr(block, 'norm3_name', None) or block.norm2_name

    @staticmethod
    def _make_stage(
        factory: ResNet, stage: int, in_channels: int, out_channels: int, stride: int
    ) -> nn.Sequential:
        return factory.make_res_layer(
            block=factory.block,
            num_blocks=factory.arch_settings[factory.depth][1][stage],
            in_channels=in_channels,
            out_channels=out_channels,
            expansion=factory.expansion,
            stride=stride,
            dilation=1,
            style=factory.style,
            avg_down=factory.avg_down,
            with_cp=factory.with_cp,
            conv_cfg=factory.conv_cfg,
            norm_cfg=factory.norm_cfg,
        )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth in the whole backbone, as in mmpretrain's ``ResNet``, with one
        layer per block for the depths that it lacks."""
        try:
            return ResNet.get_layer_depth(self, param_name, prefix)
        except NotImplementedError:
            return depth_by_block(param_name, prefix, self.stage_blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, D)."""
        for name in self.stages:
            x = getattr(self, name)(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
