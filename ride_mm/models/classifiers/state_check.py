from typing import Any, Dict, List

import torch
import torch.nn as nn

from ride_mm.utils.errors import UserError

# What a checkpoint may lack or have in excess: a model without a trained
# router, learned scales, a temperature or what a loss has counted is whole,
# and old BatchNorms did not count their batches.
OPTIONAL = ('head.router.', 'head.scales', 'head.temperature', 'head.losses.',
            'num_batches_tracked')
CLASSIFIERS = 'head.classifiers.'


def _required(key: str) -> bool:
    return not any(part in key for part in OPTIONAL)


def _are_alike(own: torch.Tensor, found: Any) -> bool:
    """Whether these are numbers of one shape and kind, of any precision."""
    return (isinstance(found, torch.Tensor) and own.shape == found.shape
            and own.is_floating_point() == found.is_floating_point()
            and own.is_complex() == found.is_complex())


def _describe(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f'a {type(value).__name__}'
    return f'{str(value.dtype)[6:]} {tuple(value.shape)}'


def _differences(own: Dict[str, torch.Tensor],
                 found: Dict[str, torch.Tensor]) -> List[str]:
    lines = [
        f'{key}: the model has {_describe(own[key])}, the checkpoint '
        f'{_describe(found[key])}' for key in own
        if key in found and not _are_alike(own[key], found[key])
    ]
    lines += [
        f'{key}: not in the checkpoint' for key in own
        if key not in found and _required(key)
    ]
    lines += [
        f'{key}: only in the checkpoint' for key in found
        if key not in own and _required(key)
    ]
    return lines


def check_state_dict(module: nn.Module, state_dict: Dict[str, torch.Tensor],
                     prefix: str, *args) -> None:
    """Refuse the weights of another architecture.

    mmengine loads what fits and warns about the rest, so that a test of the
    wrong checkpoint ends in a bad figure instead of an error. A hook for
    ``register_load_state_dict_pre_hook``.

    Args:
        module (nn.Module): The classifier.
        state_dict (dict[str, torch.Tensor]): What is to be loaded into it.
        prefix (str): What the classifier's keys begin with there.

    Raises:
        UserError: If a shape differs, or keys are missing or left over
            (the router's apart).
    """
    own = module.state_dict()
    found = {
        key[len(prefix):]: value
        for key, value in state_dict.items() if key.startswith(prefix)
    }
    lines = _differences(own, found)
    if lines:
        shown = '; '.join(lines[:3])
        more = f'; and {len(lines) - 3} more' if len(lines) > 3 else ''
        raise UserError(
            f'the checkpoint is of another architecture: {shown}{more}. '
            'Check backbone, num_experts, widths, num_classes and topk; to '
            'start from a pretrained backbone use model.init_cfg')


def keep_own_classifiers(state_dict: Dict[str, torch.Tensor],
                         module: nn.Module) -> None:
    """Put a classifier's own last layers in the place of those of a
    checkpoint, which may be of another type.

    Args:
        state_dict (dict[str, torch.Tensor]): What is to be loaded; changed.
        module (nn.Module): The classifier it is to be loaded into.
    """
    own = module.state_dict()
    for key in [key for key in state_dict if CLASSIFIERS in key]:
        del state_dict[key]
    state_dict.update(
        (key, value) for key, value in own.items() if CLASSIFIERS in key)
