from typing import Any

import torch
import torch.nn as nn

from ride_mm.utils.errors import UserError

# Keys that a checkpoint may lack, or have although the model does not: router,
# learned scales, temperature, sets and the state of losses are optional, and old
# BatchNorms have no counter.
OPTIONAL = (
    'head.router.',
    'head.scales',
    'head.temperature',
    'head.set_',
    'head.losses.',
    'num_batches_tracked',
)
HEAD = 'head.'
ROUTER = 'head.router.'


def _required(key: str) -> bool:
    return not any(part in key for part in OPTIONAL)


def _are_alike(own: torch.Tensor, found: Any) -> bool:
    """Whether two tensors agree in shape and kind of number, whatever the precision."""
    return (
        isinstance(found, torch.Tensor)
        and own.shape == found.shape
        and own.is_floating_point() == found.is_floating_point()
        and own.is_complex() == found.is_complex()
    )


def _describe(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f'a {type(value).__name__}'
    return f'{str(value.dtype)[6:]} {tuple(value.shape)}'


def _differences(own: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> list[str]:
    lines = [
        f'{key}: the model has {_describe(own[key])}, the checkpoint {_describe(found[key])}'
        for key in own
        if key in found and not _are_alike(own[key], found[key])
    ]
    lines += [f'{key}: not in the checkpoint' for key in own if key not in found and _required(key)]
    lines += [
        f'{key}: only in the checkpoint' for key in found if key not in own and _required(key)
    ]
    return lines


def check_state_dict(
    module: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *args
) -> None:
    """Refuse the weights of another architecture.

    A hook for ``register_load_state_dict_pre_hook``. mmengine loads the weights
    that fit and warns about the rest, so testing the wrong checkpoint would give
    a bad accuracy instead of an error.

    Args:
        module (nn.Module): The classifier.
        state_dict (dict[str, torch.Tensor]): The weights to load.
        prefix (str): Prefix of the classifier's keys.

    Raises:
        UserError: If a shape or a kind of number differs, or keys other than
            ``OPTIONAL`` are missing or unexpected.
    """
    own = module.state_dict()
    found = without_prefix(state_dict, prefix)
    lines = _differences(own, found)
    if (
        lines
        and all(line.startswith(ROUTER) for line in lines)
        and found.get(f'{ROUTER}num_updates') == 0
    ):
        # The checkpoint's router has not been trained, so nothing is lost.
        keep_own(ROUTER, state_dict, module, prefix)
        return
    if lines:
        shown = '; '.join(lines[:3])
        more = f'; and {len(lines) - 3} more' if len(lines) > 3 else ''
        raise UserError(
            f'the checkpoint has another architecture: {shown}{more}. {_advice(lines, own, found)}'
        )


def _advice(lines: list[str], own: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> str:
    """How to change the config."""
    if not all(line.startswith(HEAD) for line in lines):
        if not any(key.startswith('neck.experts.') for key in found):
            return 'It has no experts: to start from a pretrained backbone, use model.init_cfg'
        return 'Check backbone, num_experts, widths and num_classes'
    if all(line.startswith(ROUTER) for line in lines):
        return 'Its router takes another number of logits: check model.head.router.topk'
    classes, other = (len(state.get(f'{HEAD}classifiers.0.weight', ())) for state in (own, found))
    difference = 'Its head differs'
    if classes != other and other:
        difference = f'It has {other} classes, but model.head.num_classes={classes}'
    return (
        f'{difference}: to fine-tune it with a new head, add default_hooks=dict('
        'new_classifiers=dict(type="NewClassifiersHook")) beside load_from'
    )


def head_differs(module: nn.Module, found: dict[str, torch.Tensor]) -> bool:
    """Whether the weights differ from the model's only in the head.

    A router alone is no different head.

    Args:
        module (nn.Module): The classifier.
        found (dict[str, torch.Tensor]): Weights by the classifier's keys.
    """
    lines = _differences(module.state_dict(), found)
    return any(not line.startswith(ROUTER) for line in lines) and all(
        line.startswith(HEAD) for line in lines
    )


def without_prefix(state_dict: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Entries whose key has a prefix, with the prefix removed."""
    return {
        key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
    }


def keep_own(
    part: str, state_dict: dict[str, torch.Tensor], module: nn.Module, prefix: str = ''
) -> None:
    """Replace a part of a checkpoint, such as its head, by the classifier's own.

    Args:
        part (str): Prefix of the part's keys in the classifier.
        state_dict (dict[str, torch.Tensor]): The weights to load, changed in
            place.
        module (nn.Module): The classifier that loads the weights.
        prefix (str): Prefix of the classifier's keys. Defaults to ''.
    """
    for key in [key for key in state_dict if key.startswith(prefix + part)]:
        del state_dict[key]
    state_dict.update(
        (prefix + key, value) for key, value in module.state_dict().items() if key.startswith(part)
    )
