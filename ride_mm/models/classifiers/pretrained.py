"""Pretrained weights of a whole backbone, for the trunk and every expert."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmpretrain.models import LoRAModel

from ride_mm.utils.errors import UserError

from ..weight_names import as_mmpretrain
from .state_check import HEAD, head_differs, keep_own, without_prefix

# Buffers computed from the window size, which may differ from the checkpoint's.
COMPUTED = ('relative_position_index', 'relative_coords_table', 'attn_mask')
# Old checkpoints lack it.
COUNTS = ('num_batches_tracked',)
HEADS = ('fc.', '_fc.', 'head.', 'heads.', 'head_dist.', 'classifier.', 'mask_token')


@contextmanager
def naming_missing_prefix() -> Iterator[None]:
    """Turn mmengine's assertion about a missing prefix into a helpful error.

    Raises:
        UserError: If no key of a pretrained checkpoint has the ``prefix``.
    """
    try:
        yield
    except AssertionError as error:
        if 'is not in the pretrained model' not in str(error):
            raise
        raise UserError(
            f'init_cfg=dict(type="Pretrained", prefix=...): {error}, no key starts with it. Omit '
            '`prefix` if the checkpoint holds only a backbone.'
        ) from error


def spread_backbone(module: Any, state_dict: dict[str, torch.Tensor], prefix: str, *args) -> None:
    """Load a whole backbone into the trunk, every expert and the shared layers.

    A hook for ``register_load_state_dict_pre_hook``. It acts only while
    ``init_cfg=dict(type='Pretrained', ...)`` initializes the classifier. The
    experts' weights have the names of the whole backbone, so one checkpoint
    provides the weights of all parts but the head. A checkpoint that has
    experts is loaded unchanged, except for a head that differs.

    Args:
        module (RIDEClassifier): The classifier.
        state_dict (dict[str, torch.Tensor]): The weights to load, replaced in
            place by all weights of the classifier.
        prefix (str): Prefix of the classifier's keys.

    Raises:
        UserError: If the weights belong to another backbone or width.
    """
    # mmengine sets this attribute during initialization.
    if not hasattr(module, '_params_init_info'):
        return
    tail = module.neck.experts[0]
    aliases = getattr(tail, 'aliases', {})
    whole = without_prefix(state_dict, prefix)
    if any(key.startswith('neck.experts.') for key in whole):
        if head_differs(module, whole):
            print_log(
                'model.init_cfg: the head of the checkpoint has other classes or another type; '
                'the model keeps its own head',
                logger='current',
                level=logging.WARNING,
            )
            keep_own(HEAD, state_dict, module, prefix)
        return
    if any(isinstance(part, LoRAModel) for part in (module.backbone, tail)):
        raise UserError(
            'model.init_cfg loads a whole backbone, whose weights have other names in a '
            'LoRAModel: give init_cfg to its `module` instead, see docs/backbones.md'
        )
    whole = _as_backbone(whole, module.backbone, aliases)
    # The experts come first, since their error message names the right widths.
    parts = [('neck.expert', expert) for expert in module.neck.experts]
    parts += [('neck.shared', module.neck.shared), ('backbone', module.backbone)]
    for name, part in parts:
        _load(name, part, whole, tail)
    used = {key for _, part in parts for key in part.state_dict()}
    ignored = HEADS + tuple(f'{old}.' for old in aliases.values())
    _refuse_or_warn(
        'the checkpoint has, but the model lacks',
        {
            key: value.dim()
            for key, value in whole.items()
            if key not in used and not key.startswith(ignored)
        },
    )
    state_dict.clear()
    state_dict.update({prefix + key: value for key, value in module.state_dict().items()})


def _as_backbone(
    whole: dict[str, torch.Tensor], trunk: nn.Module, aliases: dict[str, str]
) -> dict[str, torch.Tensor]:
    """The backbone of a checkpoint, by all names that trunk and experts use."""
    if any(key.startswith('backbone.') for key in whole):
        whole = without_prefix(whole, 'backbone.')
    whole = as_mmpretrain(whole, trunk)
    whole = {key: value for key, value in whole.items() if not key.endswith(COMPUTED)}
    for new, old in aliases.items():
        whole.update(
            {f'{new}.{key}': value for key, value in without_prefix(whole, f'{old}.').items()}
        )
    return whole


def _load(name: str, part: nn.Module, whole: dict[str, torch.Tensor], tail: nn.Module) -> None:
    own = {key: value.shape for key, value in part.state_dict().items()}
    try:
        # Hooks of the part may rename or resize weights.
        missing = part.load_state_dict(whole, strict=False).missing_keys
    except RuntimeError as error:
        lines = [
            f'{key} is {tuple(whole[key].shape)} in the checkpoint and {tuple(shape)} in the model'
            for key, shape in own.items()
            if key in whole and whole[key].shape != shape
        ] or [str(error)]
        raise UserError(
            f'model.init_cfg: the checkpoint does not fit model.{name} ({type(part).__name__}): '
            f'{lines[0]}. {_advice(tail, whole)}'
        ) from None
    _refuse_or_warn(
        f'model.{name} ({type(part).__name__}) needs, but the checkpoint lacks',
        {key: len(own[key]) for key in missing},
    )


def _advice(tail: nn.Module, whole: dict[str, torch.Tensor]) -> str:
    keys = getattr(tail, 'width_keys', [])
    found = tuple(len(whole[key]) for key in keys if key in whole)
    own = tuple(len(tail.state_dict()[key]) for key in keys)
    if found == own:
        return 'Is it the checkpoint of another backbone?'
    return (
        f'Experts of full width fit it, model.neck.expert.out_channels={found}, not {own}; with '
        'narrower ones, only the trunk can be loaded, by model.backbone.init_cfg'
    )


def _refuse_or_warn(what: str, dims: dict[str, int]) -> None:
    """Handle missing or unexpected keys.

    Only norms may differ, such as those at the end of a fine-tuned ViT; a
    weight of 2 or more dimensions belongs to another network.

    Args:
        what (str): What is wrong with the keys.
        dims (dict[str, int]): Number of dimensions of each weight.
    """
    dims = {
        key: dim
        for key, dim in dims.items()
        if not key.endswith(COMPUTED + COUNTS) and '.adapter.' not in key
    }
    if not dims:
        return
    shown = ', '.join(list(dims)[:3]) + (', ...' if len(dims) > 3 else '')
    if max(dims.values()) > 1:
        raise UserError(f'model.init_cfg: {what} {shown}: the checkpoint has another backbone')
    print_log(f'model.init_cfg: {what} {shown}', logger='current', level=logging.WARNING)
