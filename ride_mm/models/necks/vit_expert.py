from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, ModuleDict
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

from ..adapters import add_adapters
from .arch import arch_settings, drop_path_rates

OUT_TYPES = ('cls_token', 'avg_featmap')


@MODELS.register_module()
class ViTExpert(BaseModule):
    """The last layers of a ViT or DeiT: the tail of one expert.

    The trunk is a ``VisionTransformer`` (or ``DistilledVisionTransformer``)
    with fewer layers, ``out_type='raw'`` and ``final_norm=False``. All layers
    have the same number of channels, so only the feed-forward layers of an
    expert can be narrower (``feedforward_channels`` of a dict ``arch``).

    Args:
        arch (str | dict): The whole network, as in mmpretrain's
            ``VisionTransformer``: "base", "deit-small", ...
        layers (Sequence[int]): Layers of the expert, counted from 0.
        out_type (str): "cls_token", or "avg_featmap" for the mean of the patch
            tokens, followed by a norm. Defaults to "cls_token".
        final_norm (bool): Whether to normalize the tokens after the last
            layer. Defaults to True.
        num_extra_tokens (int): Number of tokens before the patch tokens: 1, or
            2 for a distilled DeiT. Defaults to 1.
        drop_rate (float): Dropout rate of the layers. Defaults to 0.
        drop_path_rate (float): Stochastic depth rate of the whole network's
            last layer. Defaults to 0.
        qkv_bias (bool): Whether queries, keys and values have a bias.
            Defaults to True.
        norm_cfg (dict): Config of the norms. Defaults to
            ``dict(type='LN', eps=1e-6)``.
        layer_scale_init_value (float): Initial layer scale; 0 means none.
            Defaults to 0.
        layer_cfgs (dict): Other options of the layers. Defaults to {}.
        adapter_channels (int, optional): Width of an adapter in each layer,
            see :class:`.AdaptFormer`; all other weights are then frozen.
            Defaults to None, which means no adapters.

    Raises:
        UserError: If ``arch`` or ``out_type`` is unknown, ``layers`` are not
            the last ones, or the width of the adapters is below 1.
    """

    def __init__(
        self,
        arch: str | dict,
        layers: Sequence[int],
        out_type: str = 'cls_token',
        final_norm: bool = True,
        num_extra_tokens: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        layer_scale_init_value: float = 0.0,
        layer_cfgs: dict = dict(),
        adapter_channels: int | None = None,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        arch = arch_settings('ViTExpert', VisionTransformer.arch_zoo, arch)
        depth = self.num_layers = arch['num_layers']
        if not layers or tuple(layers) != tuple(range(depth - len(layers), depth)):
            raise UserError(
                f'ViTExpert: layers={tuple(layers)} must be the last, counted from 0, of the '
                f'{depth} that the backbone has'
            )
        if out_type not in OUT_TYPES:
            raise UserError(
                f'ViTExpert: out_type="{out_type}" is unknown, expected one of {OUT_TYPES}'
            )
        self.out_type = out_type
        self.final_norm = final_norm
        self.num_extra_tokens = num_extra_tokens
        self.in_channels = self.out_channels = arch['embed_dims']
        (rates,) = drop_path_rates(drop_path_rate, [depth])
        self.layers = ModuleDict()
        for layer in layers:
            options = dict(
                layer_scale_init_value=layer_scale_init_value,
                drop_rate=drop_rate,
                drop_path_rate=rates[layer],
                qkv_bias=qkv_bias,
                norm_cfg=norm_cfg,
            )
            options.update(layer_cfgs)
            self.layers[str(layer)] = TransformerEncoderLayer(
                self.in_channels, arch['num_heads'], arch['feedforward_channels'], **options
            )
        if final_norm:
            self.ln1 = build_norm_layer(norm_cfg, self.out_channels)
        if out_type == 'avg_featmap':
            self.ln2 = build_norm_layer(norm_cfg, self.out_channels)
        if adapter_channels is not None:
            add_adapters(self, adapter_channels)

    # Depth of a parameter in the whole backbone.
    get_layer_depth = VisionTransformer.get_layer_depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (N, L, D) to (N, D)."""
        for layer in self.layers.values():
            x = layer(x)
        if self.final_norm:
            x = self.ln1(x)
        if self.out_type == 'cls_token':
            return x[:, 0]
        return self.ln2(x[:, self.num_extra_tokens :].mean(dim=1))
