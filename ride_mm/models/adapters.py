import math
from typing import Any

import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn

from ride_mm.utils.errors import UserError


class AdaptFormer(nn.Module):
    """A bottleneck beside the MLP of a transformer layer, of zero output at first.

    ``scale * up(relu(down(norm(x))))`` with a learned scale (Chen et al.,
    "AdaptFormer: Adapting Vision Transformers for Scalable Visual
    Recognition", NeurIPS 2022), initialized as in LIFT (Shi et al.,
    "Long-Tail Learning with Foundation Model: Heavy Fine-Tuning Hurts", ICML
    2024).

    Args:
        dims (int): Dimensions D of the tokens.
        channels (int): Width of the bottleneck.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dims)
        self.down = nn.Linear(dims, channels)
        self.up = nn.Linear(channels, dims)
        self.scale = nn.Parameter(torch.ones(1))
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (N, L, D) to (N, L, D)."""
        return self.scale * self.up(self.down(self.norm(x)).relu())


class AdaptedLayer(TransformerEncoderLayer):
    """A layer of mmpretrain's ViT with an adapter, see :func:`add_adapters`."""

    adapter: AdaptFormer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (N, L, D) to (N, L, D)."""
        x = x + self.attn(self.ln1(x))
        return self.ffn(self.ln2(x), identity=x) + self.adapter(x)


def add_adapters(module: nn.Module, channels: int) -> None:
    """Add an adapter to each transformer layer and train nothing else.

    The weights keep their names, so that pretrained ones can be loaded.

    Args:
        module (nn.Module): A ViT or a part of one, changed in place.
        channels (int): Width of the bottlenecks.

    Raises:
        UserError: If the width is below 1.
    """
    if channels < 1:
        raise UserError(f'{type(module).__name__}: adapter_channels={channels}, expected >= 1')
    module.requires_grad_(False)
    layers: list[Any] = [
        layer for layer in module.modules() if type(layer) is TransformerEncoderLayer
    ]
    for layer in layers:
        layer.adapter = AdaptFormer(layer.embed_dims, channels)
        layer.__class__ = AdaptedLayer
