from math import ceil
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmengine.model import Sequential
from mmpretrain.models.utils import InvertedResidual, make_divisible
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError, nearest

from .cifar_resnet import depth_by_block
from .frozen_stages import FrozenStages

# Factors of width and depth, and the published image size.
SCALES = dict(
    lite0=(1.0, 1.0, 224),
    lite1=(1.0, 1.1, 240),
    lite2=(1.1, 1.2, 260),
    lite3=(1.2, 1.4, 280),
    lite4=(1.4, 1.8, 300),
)
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
# As TensorFlow pads: more at the end where an even size is halved. Other
# convolutions pad alike on both sides, which is faster as their own option.
PADDING = dict(type='Conv2dAdaptivePadding')
LAYERS = dict(
    norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
    act_cfg=dict(type='ReLU6'),
)
INIT_CFG = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', layer='_BatchNorm', val=1),
]


class Stage(NamedTuple):
    """A stage of inverted residual blocks.

    Args:
        kernel_size (int): Of the depthwise convolutions.
        channels (int): Channels of the output.
        stride (int): Stride of the first block.
        expansion (int): Expanded over input channels of a block.
        depth (int): Number of blocks.
    """

    kernel_size: int
    channels: int
    stride: int
    expansion: int
    depth: int


LITE0 = (
    Stage(3, 16, 1, 1, 1),
    Stage(3, 24, 2, 6, 2),
    Stage(5, 40, 2, 6, 2),
    Stage(3, 80, 2, 6, 3),
    Stage(5, 112, 1, 6, 3),
    Stage(5, 192, 2, 6, 4),
    Stage(3, 320, 1, 6, 1),
)


def stages_of(arch: str) -> list[Stage]:
    """Look up the stages of an EfficientNet-Lite.

    Unlike in an EfficientNet, stem, head, and the depths of the first and the
    last stage are not scaled.

    Args:
        arch (str): "lite0" to "lite4".

    Raises:
        UserError: If ``arch`` is unknown.
    """
    if arch not in SCALES:
        raise UserError(
            f'EfficientNetLite: arch="{arch}" is unknown, expected one of {sorted(SCALES)}.'
            f'{nearest(arch, SCALES)}'
        )
    width, depth, _ = SCALES[arch]
    scaled = [
        stage._replace(
            channels=make_divisible(stage.channels * width, 8),
            depth=ceil(stage.depth * depth),
        )
        for stage in LITE0
    ]
    ends = {index: LITE0[index].depth for index in (0, -1)}
    for index, unscaled in ends.items():
        scaled[index] = scaled[index]._replace(depth=unscaled)
    return scaled


def make_stage(stage: Stage, in_channels: int) -> Sequential:
    """Build a stage.

    Args:
        stage (Stage): What to build.
        in_channels (int): Channels of the input.
    """
    blocks = []
    for index in range(stage.depth):
        stride = 1 if index else stage.stride
        blocks.append(
            InvertedResidual(
                in_channels,
                stage.channels,
                mid_channels=in_channels * stage.expansion,
                kernel_size=stage.kernel_size,
                stride=stride,
                conv_cfg=None if stride == 1 else PADDING,
                **LAYERS,
            )
        )
        in_channels = stage.channels
    return Sequential(*blocks)


def make_head(in_channels: int, out_channels: int = HEAD_CHANNELS) -> ConvModule:
    """Build the last convolution."""
    return ConvModule(in_channels, out_channels, 1, **LAYERS)


def layer_depth(param_name: str, prefix: str, arch: str) -> tuple[int, int]:
    """See :func:`.depth_by_block`; the last convolution counts to the last block."""
    depths = [stage.depth for stage in stages_of(arch)]
    if param_name.startswith(f'{prefix}conv2.'):
        return sum(depths), sum(depths) + 2
    return depth_by_block(param_name, prefix, depths)


@MODELS.register_module()
class EfficientNetLite(FrozenStages):
    """EfficientNet-Lite: without squeeze-and-excitation, with ReLU6.

    Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020
    (https://blog.tensorflow.org/2020/03/), which follows Tan and Le,
    "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    ICML 2019. Its published weights expect RGB images with mean 127 and
    standard deviation 128.

    Args:
        arch (str): "lite0" to "lite4". Defaults to "lite0".
        num_stages (int): Number of stages to build, 0 to 7; only the whole
            network, with 7, has the last convolution. Defaults to 7.
        frozen_stages (int): Number of frozen stages, in addition to the stem;
            0 freezes only the stem, -1 nothing. Defaults to -1.

    Raises:
        UserError: If ``arch``, ``num_stages`` or ``frozen_stages`` is unknown.
    """

    def __init__(
        self,
        arch: str = 'lite0',
        num_stages: int = 7,
        frozen_stages: int = -1,
        init_cfg=INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = arch
        stages = stages_of(arch)
        if not 0 <= num_stages <= len(stages):
            raise UserError(
                f'EfficientNetLite: num_stages={num_stages}, expected 0 to {len(stages)}'
            )
        whole = num_stages == len(stages)
        stages = stages[:num_stages]
        self.conv1 = ConvModule(3, STEM_CHANNELS, 3, stride=2, conv_cfg=PADDING, **LAYERS)
        channels = STEM_CHANNELS
        self.stages = []
        for number, stage in enumerate(stages, 1):
            name = f'layer{number}'
            self.add_module(name, make_stage(stage, channels))
            self.stages.append(name)
            channels = stage.channels
        self.conv2 = make_head(channels) if whole else None
        self.freeze(frozen_stages, ('conv1',), self.stages)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`layer_depth`; called by mmpretrain."""
        return layer_depth(param_name, prefix, self.arch)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """The last feature map for images (N, 3, H, W), in a tuple."""
        x = self.conv1(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        return (x,) if self.conv2 is None else (self.conv2(x),)
