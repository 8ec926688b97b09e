from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones import ResNet
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

from ..backbones.cifar_resnet import depth_by_block
from .arch import check_one_per_stage

INIT_CFG = [
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


def stage_factory(family: str, depth: int, **kwargs) -> ResNet:
    """Build the smallest backbone of a family, whose methods build stages.

    Args:
        family (str): Registered type of the backbone.
        depth (int): Depth of the whole network.
        **kwargs: Options of the family.

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
    mmpretrain's ``ResNet`` that uses it is supported.

    Args:
        depth (int): Depth of the whole network.
        in_channels (int): Channels of the trunk's output.
        stages (Sequence[int]): Stages of the expert, counted from 0. Defaults
            to (2, 3).
        out_channels (Sequence[int]): Channels after each stage. Defaults to
            (768, 1536), three quarters of ResNet-50's.
        strides (Sequence[int], optional): Stride of each stage. Defaults to
            None, which means 2 for each.
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
        check_one_per_stage(
            'ResNetExpert', stages=stages, out_channels=out_channels, strides=strides
        )
        factory = stage_factory(family, depth, **kwargs)
        self.in_channels = in_channels
        # Blocks of all stages, as an attribute that ResNet.get_layer_depth reads.
        self.stage_blocks = factory.arch_settings[factory.depth][1]
        self.stages: list[str] = []
        self.width_keys: list[str] = []
        for stage, channels, stride in zip(stages, out_channels, strides):
            layer = factory.make_res_layer(
                block=factory.block,
                num_blocks=self.stage_blocks[stage],
                in_channels=in_channels,
                out_channels=channels,
                expansion=factory.expansion,
                stride=stride,
                dilation=1,
                style=factory.style,
                avg_down=factory.avg_down,
                with_cp=factory.with_cp,
                conv_cfg=factory.conv_cfg,
                norm_cfg=factory.norm_cfg,
            )
            name = f'layer{stage + 1}'
            self.add_module(name, layer)
            self.stages.append(name)
            last_norm = getattr(layer[0], 'norm3_name', None) or layer[0].norm2_name
            self.width_keys.append(f'{name}.0.{last_norm}.weight')
            in_channels = channels
        self.out_channels = in_channels

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter in the whole backbone.

        It is that of mmpretrain's ``ResNet``, or, for depths that it does not
        support, see :func:`.depth_by_block`.
        """
        try:
            return ResNet.get_layer_depth(self, param_name, prefix)
        except NotImplementedError:
            return depth_by_block(param_name, prefix, self.stage_blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, D)."""
        for name in self.stages:
            x = getattr(self, name)(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
