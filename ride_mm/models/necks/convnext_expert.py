from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule, ModuleDict, Sequential
from mmpretrain.models.backbones import ConvNeXt
from mmpretrain.models.backbones.convnext import ConvNeXtBlock
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS

from .arch import arch_settings, check_stages, drop_path_rates

# As mmpretrain's ConvNeXt.
INIT_CFG = [
    dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
    dict(type='Constant', layer=['LayerNorm'], val=1.0, bias=0.0),
]


@MODELS.register_module()
class ConvNeXtExpert(BaseModule):
    """The last stages of a ConvNeXt (V1 or V2): the tail of one expert.

    The trunk is a ``ConvNeXt`` with fewer stages and
    ``gap_before_final_norm=False``. The norm of its output is the first layer
    of the whole network's next downsampling layer, so experts begin with the
    convolution of that layer.

    Args:
        arch (str | dict): The whole network, as in mmpretrain's
            ``ConvNeXt``: "tiny", "base", ...
        in_channels (int): Channels of the trunk's output.
        stages (Sequence[int]): Stages of the expert, counted from 0. Defaults
            to (2, 3).
        out_channels (Sequence[int]): Channels of each stage. Defaults to
            (288, 576), three quarters of ConvNeXt-T's.
        norm_cfg (dict): Config of the norms. Defaults to
            ``dict(type='LN2d', eps=1e-6)``.
        drop_path_rate (float): Stochastic depth rate of the whole network's
            last block. Defaults to 0.
        **kwargs: Other options of the blocks: ``layer_scale_init_value``,
            ``use_grn``, ``linear_pw_conv``, ``act_cfg``, ``with_cp``.

    Raises:
        UserError: If ``arch`` is unknown, or stages and widths do not fit.
    """

    def __init__(
        self,
        arch: str | dict,
        in_channels: int,
        stages: Sequence[int] = (2, 3),
        out_channels: Sequence[int] = (288, 576),
        norm_cfg: dict = dict(type='LN2d', eps=1e-6),
        drop_path_rate: float = 0.0,
        init_cfg=INIT_CFG,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg)
        arch = arch_settings('ConvNeXtExpert', ConvNeXt.arch_settings, arch)
        depths = self.depths = arch['depths']
        check_stages('ConvNeXtExpert', len(depths), stages, out_channels)
        rates = drop_path_rates(drop_path_rate, depths)
        self.in_channels = in_channels
        self.out_channels = out_channels[-1]
        self.downsample_layers = ModuleDict()
        self.stages = ModuleDict()
        for stage, channels in zip(stages, out_channels):
            # Named as in the whole backbone, also where the norm is left out.
            layers = [('1', nn.Conv2d(in_channels, channels, 2, stride=2))]
            if stage != stages[0]:
                layers.insert(0, ('0', build_norm_layer(norm_cfg, in_channels)))
            self.downsample_layers[str(stage)] = nn.Sequential(OrderedDict(layers))
            self.stages[str(stage)] = Sequential(
                *[
                    ConvNeXtBlock(channels, norm_cfg=norm_cfg, drop_path_rate=rate, **kwargs)
                    for rate in rates[stage]
                ]
            )
            in_channels = channels
        self.width_keys = [f'stages.{stage}.0.norm.weight' for stage in stages]
        self.aliases = {f'norm{stages[0] - 1}': f'downsample_layers.{stages[0]}.0'}
        self.norm_name = f'norm{stages[-1]}'
        self.add_module(self.norm_name, build_norm_layer(norm_cfg, self.out_channels))

    # Depth of a parameter in the whole backbone.
    get_layer_depth = ConvNeXt.get_layer_depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, D)."""
        for downsample, stage in zip(self.downsample_layers.values(), self.stages.values()):
            x = stage(downsample(x))
        x = x.mean([-2, -1], keepdim=True)
        return getattr(self, self.norm_name)(x).flatten(1)
