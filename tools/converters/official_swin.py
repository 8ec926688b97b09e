"""Swin Transformers of the official RIDE-Swin code."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from key_table import Entry, State, count, size, transposed
from mmpretrain.models.backbones import SwinTransformer
from network import Network

from ride_mm.models.weight_names import PATCH_COLUMNS, merge_by_rows
from ride_mm.utils.errors import UserError

# Height and width of the first feature map: 224 pixels, in patches of 4.
_SIDE = 56
_WINDOW = 7
# Number of shared stages.
_TRUNK = 2
# Official and our keys within a block.
_BLOCK = {
    'norm1.': 'norm1.',
    'attn.': 'attn.w_msa.',
    'norm2.': 'norm2.',
    'mlp.fc1.': 'ffn.layers.0.0.',
    'mlp.fc2.': 'ffn.layers.1.',
}


def merge_by_columns(tensor: torch.Tensor) -> torch.Tensor:
    """The inverse of ``merge_by_rows``."""
    patches = tensor.unflatten(-1, (-1, 4)).transpose(-1, -2)
    return patches[..., PATCH_COLUMNS, :].flatten(-2)


def shift_mask(side: int) -> torch.Tensor:
    """Attention mask of shifted windows, a buffer in official checkpoints.

    Args:
        side (int): Height and width of the feature map.

    Returns:
        torch.Tensor: (W, L, L) for W windows of L tokens: -100 for two tokens
        that the cyclic shift brought together, else 0.
    """
    steps = torch.arange(side)
    band = (steps >= side - _WINDOW).long() + (steps >= side - _WINDOW // 2)
    region = 3 * band.unsqueeze(1) + band
    windows = region.unflatten(1, (-1, _WINDOW)).unflatten(0, (-1, _WINDOW))
    windows = windows.transpose(1, 2).reshape(-1, _WINDOW**2)
    apart = windows.unsqueeze(1) != windows.unsqueeze(2)
    return torch.where(apart, -100.0, 0.0)


class SwinLayout(NamedTuple):
    """The parts of a network on which its keys depend.

    Args:
        num_experts (int): Number of experts.
        depths (tuple[int]): Number of blocks of each of the four stages.
        cosine (bool): Whether the classifiers are cosine classifiers.
    """

    num_experts: int
    depths: tuple[int, ...]
    cosine: bool

    trunk = (1, 2)
    tail = (3, 4)

    @classmethod
    def of_official(cls, state: State) -> 'SwinLayout':
        """Read the layout from official keys."""
        return cls(
            count(state, 'heads.'),
            tuple(count(state, f'layers.{stage}.branches.0.blocks.') for stage in range(4)),
            'heads.0.bias' not in state,
        )

    @classmethod
    def of_ours(cls, state: State) -> 'SwinLayout':
        """Read the layout from our keys."""
        trunk, tail = 'backbone.stages', 'neck.experts.0.stages'
        return cls(
            count(state, 'head.classifiers.'),
            tuple(
                count(state, f'{trunk if stage < _TRUNK else tail}.{stage}.blocks.')
                for stage in range(4)
            ),
            'head.classifiers.0.bias' not in state,
        )

    def table(self) -> list[Entry]:
        """Map the official keys to ours."""
        change = (transposed, transposed) if self.cosine else ()
        table = [
            Entry('patch_embed.proj.', 'backbone.patch_embed.projection.'),
            Entry('patch_embed.norm.', 'backbone.patch_embed.norm.'),
            Entry('norm.', 'neck.shared.norm3.'),
        ]
        for stage in range(_TRUNK):
            table += self._stage(stage, 0, f'backbone.stages.{stage}.')
        for e in range(self.num_experts):
            for stage in range(_TRUNK, 4):
                table += self._stage(stage, e, f'neck.experts.{e}.stages.{stage}.')
            table.append(Entry(f'heads.{e}.', f'head.classifiers.{e}.', *change))
        return table

    def _stage(self, stage: int, branch: int, ours: str) -> list[Entry]:
        official = f'layers.{stage}.branches.{branch}.'
        blocks = [
            Entry(f'{official}blocks.{block}.{source}', f'{ours}blocks.{block}.{target}')
            for block in range(self.depths[stage])
            for source, target in _BLOCK.items()
        ]
        merging = Entry(
            official + 'downsample.', ours + 'downsample.', merge_by_rows, merge_by_columns
        )
        return blocks + [merging]


@dataclass(frozen=True)
class Swin(Network):
    """A Swin Transformer of the official RIDE-Swin code, see :class:`Network`.

    Args:
        embed_dims (int): Channels of the first stage.
        num_heads (tuple[int]): Number of attention heads of each stage.
    """

    official_sign = 'layers.0.branches.'
    our_sign = 'backbone.patch_embed.projection.'
    layout_type = SwinLayout

    embed_dims: int
    num_heads: tuple[int, ...]

    @classmethod
    def infer(cls, state: State) -> 'Swin':
        layout = SwinLayout.of_official(state)
        block = 'layers.{}.branches.0.blocks.0.'
        bias_table = block + 'attn.relative_position_bias_table'
        return cls(
            layout,
            num_classes=size(state, 'heads.0.weight', 1 if layout.cosine else 0),
            out_channels=tuple(
                size(state, block.format(stage - 1) + 'norm1.weight') for stage in layout.tail
            ),
            topk=None,
            embed_dims=size(state, 'patch_embed.proj.weight'),
            num_heads=tuple(size(state, bias_table.format(stage), 1) for stage in range(4)),
        )

    @property
    def _arch(self) -> dict:
        """The whole network, as an ``arch`` of mmpretrain."""
        return dict(
            embed_dims=self.embed_dims,
            depths=list(self.layout.depths),
            num_heads=list(self.num_heads),
        )

    @property
    def name(self) -> str:
        names = [
            name
            for name, arch in SwinTransformer.arch_zoo.items()
            if len(name) == 1 and arch == self._arch
        ]
        return f'Swin-{names[0].upper()}' if names else 'Swin'

    @property
    def recipes(self) -> dict[int, str]:
        size = 's' if self.name == 'Swin-S' else 't'
        return {1000: f'ride_swin_{size}_imagenet_lt.py'}

    @property
    def _drop_path_rate(self) -> float:
        """Stochastic depth rate of the last block in the official configs."""
        return 0.3 if self.name == 'Swin-S' else 0.2

    def backbone(self) -> dict:
        depths = self.layout.depths
        last = (sum(depths[:_TRUNK]) - 1) / (sum(depths) - 1)
        merging = dict(out_channels=self.out_channels[0])
        return dict(
            type='SwinTransformer',
            arch=dict(
                embed_dims=self.embed_dims,
                depths=list(depths[:_TRUNK]),
                num_heads=list(self.num_heads[:_TRUNK]),
            ),
            stage_cfgs=[dict(), dict(downsample=True, downsample_cfg=merging)],
            out_after_downsample=True,
            out_indices=(_TRUNK - 1,),
            norm_cfg=None,
            drop_path_rate=self._drop_path_rate * last,
        )

    def neck(self) -> dict:
        expert = dict(
            type='SwinExpert',
            arch=self._arch,
            in_channels=self.out_channels[0],
            stages=tuple(stage - 1 for stage in self.layout.tail),
            out_channels=self.out_channels,
            final_norm=False,
            drop_path_rate=self._drop_path_rate,
        )
        norm = dict(type='NormPool', channels=self.out_channels[-1])
        return dict(expert=expert, shared=dict(norm3=norm))

    def constants(self) -> State:
        """The attention masks of shifted windows."""
        return {
            f'layers.{stage}.branches.{branch}.blocks.{block}.attn_mask': shift_mask(
                _SIDE // 2**stage
            )
            # The feature map of the last stage is a single window.
            for stage in range(3)
            for branch in range(1 if stage < _TRUNK else self.layout.num_experts)
            for block in range(1, self.layout.depths[stage], 2)
        }

    def official_settings(self) -> dict:
        full = (4 * self.embed_dims, 8 * self.embed_dims)
        reduced = tuple(channels * 3 // 4 for channels in full)
        several = self.layout.num_experts > 1
        if self.out_channels not in ((full, reduced) if several else (full,)):
            raise UserError(
                f'the official code has no {self.title}, whose stages 3 and 4 have '
                f'{self.out_channels} channels'
            )
        return dict(
            MODEL=dict(
                TYPE='swin',
                NUM_CLASSES=self.num_classes,
                NUM_EXPERTS=self.layout.num_experts,
                USE_NORMED_LINEAR=self.layout.cosine,
                FORCE_ORIGINAL_FEATURE_DIM=several and self.out_channels == full,
                SWIN=dict(
                    EMBED_DIM=self.embed_dims,
                    DEPTHS=list(self.layout.depths),
                    NUM_HEADS=list(self.num_heads),
                ),
            )
        )

    def official_checkpoint(self, state: State) -> dict:
        return dict(model=state)
