"""Read checkpoints of the official code and of ride_mm, and convert their weights."""

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
from ride_mm.utils.errors import UserError, name_some, user_message

ARCHITECTURES: tuple[type[Network], ...] = (ResNet, Swin)
# Old BatchNorms lack this buffer.
_COUNTER = '.num_batches_tracked'
# Old and present prefix of the router's keys.
_OLD_NAMES = ('backbone.ensemble_help_pred_', 'backbone.expert_help_pred_')
_ROUTER = 'head.router.'
# Not in official checkpoints, whose routers are always trained.
_UPDATES = 'head.router.num_updates'


class OfficialFile(NamedTuple):
    """Content of an official checkpoint.

    Args:
        state (dict[str, torch.Tensor]): The weights, by present keys.
        epoch (int, optional): The epoch after which it was saved.
        notes (tuple[str]): Changes that were made to get the present keys.
    """

    state: State
    epoch: Any
    notes: tuple[str, ...]


def read_official(path: str) -> OfficialFile:
    """Read a checkpoint of the official code.

    Args:
        path (str): A local path.

    Returns:
        OfficialFile: The weights, without ``module.`` and old keys.

    Raises:
        UserError: If the file is damaged or not such a checkpoint.
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
            f'it is no checkpoint of the official RIDE code, whose keys begin with {signs}; it '
            f'has {name_some(list(state), 3)}'
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
    """The architecture whose ``official_sign`` or ``our_sign`` is in the keys."""
    for kind in ARCHITECTURES:
        if any(key.startswith(getattr(kind, sign)) for key in state):
            return kind
    return None


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
        tuple[Network, dict[str, torch.Tensor]]: The network, and its weights
        for a ``RIDEClassifier``.

    Raises:
        UserError: If the network is unknown, or keys are missing or
            unexpected.
    """
    network = _architecture(state, 'official_sign').infer(state)
    table, constants = network.layout.table(), network.constants()
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
    """Whether there are BatchNorms, but none counts its batches."""
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
        dict[str, torch.Tensor]: The weights, without those of an untrained
        router.

    Raises:
        UserError: If the file is damaged or not such a checkpoint.
    """
    state = _state_dict(load_checkpoint_file(path, 'cpu'), 'state_dict')
    if not any(key.startswith('neck.experts.') for key in state):
        raise UserError(
            'it is no checkpoint of ride_mm, which has neck.experts; it has '
            f'{name_some(list(state), 3)}'
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
        tuple[Network, dict[str, torch.Tensor]]: The network, and its weights
        for the official code.

    Raises:
        UserError: If the official code has no such network, or keys are
            missing or unexpected.
    """
    state = OrderedDict(state)
    state.pop(_UPDATES, None)
    kind = _architecture(state, 'our_sign')
    if kind is None:
        raise UserError(
            f'the official code has no network with the keys {name_some(list(state), 3)}'
        )
    table = kind.layout_type.of_ours(state).table()
    converted = rename(state, [entry.backward() for entry in table])
    network = kind.infer(converted)
    expected = _expected(network)
    expected.pop(_UPDATES, None)
    check_same_keys(state, expected)
    converted.update(network.constants())
    return network, converted


class _Weightless(TorchFunctionMode):
    """Build modules on the meta device, without memory for their weights.

    ``torch.device('meta')`` would also affect tensors whose values backbones
    need, such as stochastic depth rates.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.empty:
            kwargs = dict(kwargs or {}, device='meta')
        return func(*args, **(kwargs or {}))


def _expected(network: Network) -> State:
    """The state dict of our model, with keys and shapes but without values."""
    init_default_scope('mmpretrain')
    with _Weightless():
        return MODELS.build(network.model()).state_dict()


@contextmanager
def about(path: str) -> Iterator[None]:
    """Add the file to the message of a :class:`UserError`."""
    try:
        yield
    except CheckpointError:
        raise
    except UserError as error:
        raise UserError(f'{path}: {user_message(error)}') from None
