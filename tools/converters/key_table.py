"""Tables that map the keys of one state dict to those of another."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from ride_mm.utils.errors import UserError, name_some

State = dict[str, torch.Tensor]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    """Transpose a matrix."""
    return tensor.t().contiguous()


class Entry(NamedTuple):
    """A row of the table: how to convert all keys with a prefix.

    Args:
        source (str): Prefix of the official keys.
        target (str): Prefix of our keys.
        change (Callable): Converts an official tensor to ours. Defaults to the
            identity.
        undo (Callable): Inverse of ``change``. Defaults to the identity.
    """

    source: str
    target: str
    change: Callable = _same
    undo: Callable = _same

    def backward(self) -> 'Entry':
        """The row for the opposite direction."""
        return Entry(self.target, self.source, self.undo, self.change)


def rename(state: State, table: Iterable[Entry]) -> State:
    """Convert all keys and tensors of a state dict by a table.

    Args:
        state (dict[str, torch.Tensor]): The state dict.
        table (Iterable[Entry]): The table. No source is a prefix of another.

    Returns:
        dict[str, torch.Tensor]: The converted state dict.

    Raises:
        UserError: If a key is not in the table.
    """
    table = list(table)
    renamed, unexpected = OrderedDict(), []
    for key, tensor in state.items():
        for entry in table:
            if key.startswith(entry.source):
                renamed[entry.target + key[len(entry.source) :]] = entry.change(tensor)
                break
        else:
            unexpected.append(key)
    _refuse_unexpected(unexpected)
    return renamed


def _refuse_unexpected(keys: list[str]) -> None:
    if keys:
        raise UserError(f'it has {name_some(keys, 5)}, which such a network does not have')


def check_same_keys(found: State, expected: State) -> None:
    """Check that two state dicts have the same keys and shapes.

    Raises:
        UserError: If keys are missing or unexpected, or a shape differs.
    """
    missing = [key for key in expected if key not in found]
    if missing:
        raise UserError(f'it lacks {name_some(missing, 5)}')
    _refuse_unexpected([key for key in found if key not in expected])
    for key, tensor in found.items():
        if tensor.shape != expected[key].shape:
            raise UserError(
                f'its {key} has the shape {tuple(tensor.shape)}, expected '
                f'{tuple(expected[key].shape)}'
            )


def count(state: State, prefix: str) -> int:
    """Count the modules in a module list.

    A gap in the indices is not noticed here, but by :func:`check_same_keys`.

    Args:
        state (dict[str, torch.Tensor]): The state dict.
        prefix (str): Prefix of the list's keys, including the last dot.
    """
    return len({key[len(prefix) :].split('.')[0] for key in state if key.startswith(prefix)})


def size(state: State, key: str, dim: int = 0) -> int:
    """Size of a dimension of a tensor.

    Args:
        state (dict[str, torch.Tensor]): The state dict.
        key (str): Key of the tensor.
        dim (int): The dimension. Defaults to 0.

    Raises:
        UserError: If there is no such tensor, or it lacks the dimension.
    """
    if key not in state:
        raise UserError(f'it lacks {key}')
    shape = state[key].shape
    if dim >= len(shape) or shape[dim] == 0:
        raise UserError(f'its {key} has the shape {tuple(shape)}')
    return shape[dim]
