from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule, ModuleDict
from mmpretrain.models.backbones import SwinTransformer, SwinTransformerV2
from mmpretrain.models.backbones.swin_transformer import SwinBlockSequence
from mmpretrain.models.backbones.swin_transformer_v2 import SwinBlockV2Sequence
from mmpretrain.models.utils import PatchMerging
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

from .arch import arch_settings, check_stages, drop_path_rates

# As in the official code of Swin Transformer.
INIT_CFG = [
    dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
]


@MODELS.register_module()
class NormPool(nn.LayerNorm):
    """LayerNorm of the tokens, then their mean.

    Args:
        channels (int): Channels C of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to (N, C)."""
        return super().forward(x).mean(1)


@MODELS.register_module()
class SwinExpert(BaseModule):
    """The last stages of a Swin Transformer: the tail of one expert.

    The patch merging before these stages belongs to the trunk, as in RIDE-Swin's
    official code: ``stage_cfgs=[dict(), dict(downsample=True,
    downsample_cfg=dict(out_channels=288))], out_after_downsample=True``.

    Args:
        arch (str | dict): The whole network, as in mmpretrain's
            ``SwinTransformer``: "tiny", "small", "base" or "large".
        in_channels (int): Channels of the trunk's output.
        stages (Sequence[int]): Stages of the expert, counted from 0. Defaults
            to (2, 3).
        out_channels (Sequence[int]): Channels of each stage; the first has
            those of the trunk's output. ``arch`` sets the numbers of heads.
            Defaults to (288, 576), three quarters of Swin-T's and Swin-S's.
        final_norm (bool): Whether the expert ends with a :class:`NormPool`.
            Otherwise it returns tokens, (N, L, D), for one that all experts
            share. Defaults to True.
        window_size (int): Height and width of a window. Defaults to 7.
        drop_path_rate (float): Stochastic depth rate of the whole network's
            last block. Defaults to 0.1.
        pad_small_map (bool): Whether feature maps smaller than a window are
            padded. Defaults to False.
        with_cp (bool): Whether to use activation checkpointing. Defaults to
            False.

    Raises:
        UserError: If ``arch`` is unknown, or stages and widths do not fit.
    """

    family = SwinTransformer
    merges_first = False

    def __init__(
        self,
        arch: str | dict,
        in_channels: int,
        stages: Sequence[int] = (2, 3),
        out_channels: Sequence[int] = (288, 576),
        final_norm: bool = True,
        window_size: int = 7,
        drop_path_rate: float = 0.1,
        pad_small_map: bool = False,
        with_cp: bool = False,
        init_cfg=INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        name = type(self).__name__
        arch = arch_settings(name, self.family.arch_zoo, arch)
        check_stages(name, len(arch['depths']), stages, out_channels)
        if in_channels != out_channels[0] and not self.merges_first:
            raise UserError(
                f'{name}: in_channels={in_channels} and out_channels[0]={out_channels[0]} must be '
                'equal: the trunk merges the patches into '
                'model.backbone.stage_cfgs[-1].downsample_cfg.out_channels channels'
            )
        self.depths = arch['depths']
        self.in_channels = in_channels
        self.out_channels = out_channels[-1]
        rates = drop_path_rates(drop_path_rate, arch['depths'])
        self.stages = ModuleDict()
        for stage, before, channels, after in zip(
            stages, (in_channels, *out_channels), out_channels, (*out_channels[1:], None)
        ):
            heads = arch['num_heads'][stage]
            if channels % heads:
                raise UserError(
                    f'{name}: out_channels: {channels} channels cannot be split among the {heads} '
                    f'heads of stage {stage}'
                )
            self.stages[str(stage)] = self._make_stage(
                arch,
                stage,
                before,
                channels,
                after,
                drop_paths=rates[stage],
                window_size=window_size,
                pad_small_map=pad_small_map,
                with_cp=with_cp,
            )
        self.width_keys = [f'stages.{stage}.blocks.0.norm1.weight' for stage in stages]
        self.norm_name = f'norm{stages[-1]}'
        # The name in checkpoints of mmpretrain's first SwinTransformer.
        self.aliases = {self.norm_name: 'norm'}
        if final_norm:
            self.add_module(self.norm_name, NormPool(self.out_channels))

    def _make_stage(
        self, arch: dict, stage: int, before: int, channels: int, after: int | None, **kwargs
    ) -> nn.Module:
        return SwinBlockSequence(
            channels,
            arch['depths'][stage],
            arch['num_heads'][stage],
            downsample=after is not None,
            downsample_cfg=dict(out_channels=after),
            **kwargs,
        )

    # Depth of a parameter in the whole backbone.
    get_layer_depth = SwinTransformer.get_layer_depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, D), or to (N, L, D) without the final norm."""
        size = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        for stage in self.stages.values():
            x, size = stage(x, size)
        norm = getattr(self, self.norm_name, None)
        return x if norm is None else norm(x)


@MODELS.register_module()
class SwinV2Expert(SwinExpert):
    """The last stages of a Swin Transformer V2: the tail of one expert.

    A stage of this family begins with its patch merging, so each expert has its
    own, from the trunk's channels to those of the expert.

    Args:
        arch (str | dict): The whole network, as in mmpretrain's
            ``SwinTransformerV2``.
        in_channels (int): Channels of the trunk's output.
        window_size (int | Sequence[int]): Height and width of a window, one
            number or one for each stage of the whole network. Defaults to 8.
        pretrained_window_sizes (Sequence[int]): Window sizes with which the
            weights to load were trained, for each stage of the whole network.
            Defaults to (0, 0, 0, 0).
        **kwargs: Other options of :class:`SwinExpert`.

    Raises:
        UserError: As in :class:`SwinExpert`.
    """

    family = SwinTransformerV2
    merges_first = True

    def __init__(
        self,
        arch: str | dict,
        in_channels: int,
        window_size: int | Sequence[int] = 8,
        pretrained_window_sizes: Sequence[int] = (0, 0, 0, 0),
        **kwargs,
    ) -> None:
        self._pretrained_window_sizes = pretrained_window_sizes
        super().__init__(
            arch,
            in_channels,
            window_size=window_size,  # type: ignore[arg-type]
            **kwargs,
        )

    def _make_stage(
        self, arch: dict, stage: int, before: int, channels: int, after: int | None, **kwargs
    ) -> nn.Module:
        window_size = kwargs.pop('window_size')
        if not isinstance(window_size, int):
            window_size = window_size[stage]
        module = SwinBlockV2Sequence(
            channels,
            arch['depths'][stage],
            arch['num_heads'][stage],
            window_size=window_size,
            extra_norm_every_n_blocks=arch['extra_norm_every_n_blocks'],
            pretrained_window_size=self._pretrained_window_sizes[stage],
            **kwargs,
        )
        # The sequence's own patch merging can only double the channels.
        module.downsample = PatchMerging(before, channels, use_post_norm=True)
        return module

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter in the whole backbone.

        As in mmpretrain's ``SwinTransformer``, patch merging is as deep as the
        block before it.
        """
        depth, num_layers = super().get_layer_depth(param_name, prefix)
        name = param_name[len(prefix) :].split('.')
        if param_name.startswith(prefix) and name[2:3] == ['downsample']:
            depth -= self.depths[int(name[1])]
        return depth, num_layers
