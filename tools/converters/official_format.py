"""The checkpoints of the official repository and ours, in both directions."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from key_table import State, check_same_keys, rename
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from network import Network
from official_resnet import ResNet
from official_swin import Swin
from torch.overrides import TorchFunctionMode

import ride_mm  # noqa: F401
from ride_mm.compat.checkpoint_loading import (
    CheckpointError,
    load_checkpoint_file,
    load_foreign_checkpoint,
)
from ride_mm.utils.errors import UserError, user_message

ARCHITECTURES: tuple[type[Network], ...] = (ResNet, Swin)
# What old BatchNorms did not count, and old versions named otherwise.
_COUNTER = '.num_batches_tracked'
_OLD_NAMES = ('backbone.ensemble_help_pred_', 'backbone.expert_help_pred_')
# Says that the router has been trained; the official code has no such thing.
_UPDATES = 'head.router.num_updates'
_ROUTER = 'head.router.'


class OfficialFile(NamedTuple):
    """What is in a checkpoint of the official code.

    Args:
        state (dict[str, torch.Tensor]): The weights, by their present names.
        epoch (int, optional): The epoch that it was saved after.
        notes (tuple[str]): What was changed to get the present names.
    """

    state: State
    epoch: Any
    notes: tuple[str, ...]


def read_official(path: str) -> OfficialFile:
    """Read a checkpoint of the official code.

    Args:
        path (str): A local path.

    Returns:
        OfficialFile: Its weights, without ``module.`` and old names.

    Raises:
        UserError: If the file is damaged or no such checkpoint.
    """
    checkpoint = load_foreign_checkpoint(path)
    state = _state_dict(checkpoint, 'state_dict', 'model')
    notes = []
    if all(key.startswith('module.') for key in state):
        notes.append('"module." of DataParallel left out')
        state = _renamed(state, 'module.', '')
    if any(key.startswith('neck.experts.') for key in state):
        raise UserError('it is already a checkpoint of ride_mm')
    if _architecture(state, 'official_sign') is None:
        signs = ' or '.join(kind.official_sign for kind in ARCHITECTURES)
        raise UserError(
            'it is no checkpoint of the official RIDE code, whose '
            f'keys begin with {signs}; it has {_some(state)}'
        )
    if any(key.startswith(_OLD_NAMES[0]) for key in state):
        notes.append('router under its old name, "ensemble_help_pred"')
        state = _renamed(state, *_OLD_NAMES)
    if _lacks_counters(state):
        notes.append('BatchNorm counters missing: set to 0')
    return OfficialFile(state, checkpoint.get('epoch'), tuple(notes))


def _state_dict(checkpoint: Any, *names: str) -> State:
    found = checkpoint if isinstance(checkpoint, dict) else {}
    state = next((found[name] for name in names if name in found), None)
    if not isinstance(state, dict) or not state:
        raise UserError(f'it has no {" or ".join(names)}')
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise UserError(f'among its weights is {key!r}, which is no tensor')
    return state


def _architecture(state: State, sign: str) -> type[Network] | None:
    """The architecture whose sign one of the keys begins with."""
    for kind in ARCHITECTURES:
        if any(key.startswith(getattr(kind, sign)) for key in state):
            return kind
    return None


def _some(state: State) -> str:
    return ', '.join(list(state)[:3]) + ', ...'


def _renamed(state: State, old: str, new: str) -> State:
    renamed = OrderedDict()
    for key, tensor in state.items():
        name = new + key[len(old) :] if key.startswith(old) else key
        if name in renamed:
            raise UserError(f'it has {name} under two names')
        renamed[name] = tensor
    return renamed


def to_ours(state: State) -> tuple[Network, State]:
    """Convert official weights; every key is used exactly once.

    Args:
        state (dict[str, torch.Tensor]): From :func:`read_official`.

    Returns:
        tuple[Network, dict[str, torch.Tensor]]: What the network is, and its
        weights for a ``RIDEClassifier``.

    Raises:
        UserError: If the network is unknown, or keys are missing or left
            over.
    """
    network = _architecture(state, 'official_sign').infer(state)
    table, constants = network.table(), network.constants()
    expected = _expected(network)
    has_router = expected.pop(_UPDATES, None) is not None
    expected = rename(expected, [entry.backward() for entry in table])
    expected.update(constants)
    state = _with_counters(state, expected)
    check_same_keys(state, expected)
    for key, tensor in constants.items():
        if not torch.equal(state.pop(key), tensor):
            raise UserError(f'its {key} differs from that of the official code')
    converted = rename(state, table)
    if has_router:
        converted[_UPDATES] = torch.tensor(1)
    return network, converted


def _lacks_counters(state: State) -> bool:
    """Whether there are BatchNorms, old ones that did not count batches."""
    return any(key.endswith('.running_mean') for key in state) and not any(
        key.endswith(_COUNTER) for key in state
    )


def _with_counters(state: State, expected: State) -> State:
    if not _lacks_counters(state):
        return OrderedDict(state)
    counters = {key: torch.tensor(0) for key in expected if key.endswith(_COUNTER)}
    return OrderedDict(state, **counters)


def read_ours(path: str) -> State:
    """Read the weights of a checkpoint of ride_mm.

    Args:
        path (str): A local path.

    Returns:
        dict[str, torch.Tensor]: Its weights. A router that has not been
        trained is left out.

    Raises:
        UserError: If the file is damaged or no such checkpoint.
    """
    state = _state_dict(load_checkpoint_file(path, 'cpu'), 'state_dict')
    if not any(key.startswith('neck.experts.') for key in state):
        raise UserError(
            f'it is no checkpoint of ride_mm, which has neck.experts; it has {_some(state)}'
        )
    if state.get(_UPDATES, 0) == 0:
        state = OrderedDict(
            (key, tensor) for key, tensor in state.items() if not key.startswith(_ROUTER)
        )
    return state


def to_official(state: State) -> tuple[Network, State]:
    """Convert our weights; every key is used exactly once.

    Args:
        state (dict[str, torch.Tensor]): From :func:`read_ours`.

    Returns:
        tuple[Network, dict[str, torch.Tensor]]: What the network is, and its
        weights for the official code.

    Raises:
        UserError: If the official code has no such network, or keys are
            missing or left over.
    """
    state = OrderedDict(state)
    state.pop(_UPDATES, None)
    kind = _architecture(state, 'our_sign')
    if kind is None:
        raise UserError(f'the official code has no network with the keys {_some(state)}')
    table = kind.layout_type.of_ours(state).table()
    converted = rename(state, [entry.backward() for entry in table])
    network = kind.infer(converted)
    expected = _expected(network)
    expected.pop(_UPDATES, None)
    check_same_keys(state, expected)
    converted.update(network.constants())
    return network, converted


class _Weightless(TorchFunctionMode):
    """Modules are made without memory for their weights.

    Not ``torch.device('meta')``: backbones compute a few numbers as tensors.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.empty:
            kwargs = dict(kwargs or {}, device='meta')
        return func(*args, **(kwargs or {}))


def _expected(network: Network) -> State:
    """The state dict of our model; only its keys and shapes mean anything."""
    init_default_scope('mmpretrain')
    with _Weightless():
        return MODELS.build(network.model()).state_dict()


@contextmanager
def about(path: str) -> Iterator[None]:
    """Name the file in the message of every :class:`UserError`."""
    try:
        yield
    except CheckpointError:
        raise
    except UserError as error:
        raise UserError(f'{path}: {user_message(error)}') from None
