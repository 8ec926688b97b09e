from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import Sequential
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

from .frozen_stages import FrozenStages

DEPTHS = (20, 32, 44, 56, 110)
# He initialization by fan-in, as in the publication.
INIT_CFG = [
    dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
    dict(type='Constant', layer='_BatchNorm', val=1),
]


def blocks_per_stage(depth: int) -> int:
    """Number of blocks in each of the three stages, ``(depth - 2) / 6``.

    Raises:
        UserError: If ``depth`` is not one of the published depths.
    """
    if depth not in DEPTHS:
        raise UserError(f'CIFAR ResNet: depth={depth} is unknown, expected one of {DEPTHS}')
    return (depth - 2) // 6


def depth_by_block(param_name: str, prefix: str, blocks: Sequence[int]) -> tuple[int, int]:
    """Depth of a parameter of a ResNet whose blocks each count as a layer.

    mmpretrain's layer-wise learning-rate decay uses it.

    Args:
        param_name (str): Name of the parameter.
        prefix (str): Prefix of the ResNet's parameters.
        blocks (Sequence[int]): Number of blocks of each stage.

    Returns:
        tuple[int, int]: The depth (0 for the stem, 1 for the first block, ...,
        the largest for layers after the ResNet) and the number of depths.
    """
    num_layers = sum(blocks) + 2
    if not param_name.startswith(prefix):
        return num_layers - 1, num_layers
    name, block, *_ = param_name[len(prefix) :].split('.')
    if not name.startswith('layer'):
        return 0, num_layers
    before = sum(blocks[: int(name[len('layer') :]) - 1])
    return before + int(block) + 1, num_layers


class CIFARBasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the first convolution. Defaults to 1.
        shortcut (str): Shortcut where the shape changes: "A" subsamples and
            pads with zero channels, without parameters; "B" is a 1x1
            convolution with BatchNorm (He et al., "Deep Residual Learning for
            Image Recognition", CVPR 2016, section 3.3). Defaults to "A".
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, shortcut: str = 'A'
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2
        self.downsample = None
        if shortcut == 'B' and (stride != 1 or in_channels != out_channels):
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.downsample is not None:
            return self.downsample(x)
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.padding:
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self._shortcut(x)
        return F.relu(out, inplace=True)


def make_stage(
    in_channels: int, out_channels: int, num_blocks: int, stride: int, shortcut: str = 'A'
) -> Sequential:
    """Build a stage, whose first block changes resolution and width.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        num_blocks (int): Number of blocks.
        stride (int): Stride of the first block.
        shortcut (str): See :class:`CIFARBasicBlock`. Defaults to "A".

    Raises:
        UserError: If ``shortcut`` is unknown, or "A" cannot pad the channels
            evenly.
    """
    if shortcut not in ('A', 'B'):
        raise UserError(f'CIFAR ResNet: shortcut="{shortcut}" is unknown, expected "A" or "B"')
    growth = out_channels - in_channels
    if shortcut == 'A' and (growth < 0 or growth % 2):
        raise UserError(
            f'CIFAR ResNet: shortcut "A" cannot pad {in_channels} to {out_channels} channels: use '
            'shortcut="B", or a growth that is even and >= 0'
        )
    return Sequential(
        CIFARBasicBlock(in_channels, out_channels, stride, shortcut),
        *(
            CIFARBasicBlock(out_channels, out_channels, shortcut=shortcut)
            for _ in range(num_blocks - 1)
        ),
    )


@MODELS.register_module()
class CIFARResNet(FrozenStages):
    """The ResNet for 32x32 images.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
    section 4.2: three stages of 16, 32 and 64 channels. mmpretrain's
    ``ResNet_CIFAR`` is the ImageNet network with another stem.

    Args:
        depth (int): 20, 32, 44, 56 or 110.
        num_stages (int): Number of stages to build, 0 to 3; RIDE's trunk has
            1, and 0 is only the first convolution. Defaults to 3.
        out_indices (Sequence[int]): Stages whose outputs are returned; -1 is
            the last. Defaults to (-1, ).
        shortcut (str): "A" or "B", see :class:`CIFARBasicBlock`. Defaults
            to "A".
        in_channels (int): Channels of the images. Defaults to 3.
        base_channels (int): Channels of the first stage. Defaults to 16.
        frozen_stages (int): Number of frozen stages, in addition to the stem;
            0 freezes only the stem, -1 nothing. Defaults to -1.

    Raises:
        UserError: If ``depth``, ``num_stages``, ``shortcut`` or
            ``frozen_stages`` is unknown.
    """

    def __init__(
        self,
        depth: int,
        num_stages: int = 3,
        out_indices: Sequence[int] = (-1,),
        shortcut: str = 'A',
        in_channels: int = 3,
        base_channels: int = 16,
        frozen_stages: int = -1,
        init_cfg=INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        num_blocks = self.num_blocks = blocks_per_stage(depth)
        if not 0 <= num_stages <= 3:
            raise UserError(f'CIFARResNet: num_stages={num_stages}, expected 0 to 3')
        self.out_indices = [index % num_stages for index in out_indices if num_stages]
        self.conv1 = nn.Conv2d(in_channels, base_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base_channels)
        channels = base_channels
        self.stages = []
        for stage in range(num_stages):
            width = base_channels * 2**stage
            stride = 1 if stage == 0 else 2
            name = f'layer{stage + 1}'
            self.add_module(name, make_stage(channels, width, num_blocks, stride, shortcut))
            self.stages.append(name)
            channels = width
        self.freeze(frozen_stages, ('conv1', 'bn1'), self.stages)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`depth_by_block`; called by mmpretrain."""
        return depth_by_block(param_name, prefix, [self.num_blocks] * len(self.stages))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Feature maps of ``out_indices``, or without stages that of the first
        convolution, for images (N, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        outs = []
        for index, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs) or (x,)
