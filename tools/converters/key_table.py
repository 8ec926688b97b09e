"""A table of names, and what is done with a state dict by it."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from ride_mm.utils.errors import UserError

State = dict[str, torch.Tensor]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    """Swap the two dimensions of a matrix."""
    return tensor.t().contiguous()


class Entry(NamedTuple):
    """One line of the table.

    Args:
        source (str): What keys begin with there.
        target (str): What they begin with here.
        change (Callable): Makes our tensor of theirs. Defaults to the same.
        undo (Callable): Makes their tensor of ours. Defaults to the same.
    """

    source: str
    target: str
    change: Callable = _same
    undo: Callable = _same

    def backward(self) -> 'Entry':
        """The same line, read from right to left."""
        return Entry(self.target, self.source, self.undo, self.change)


def rename(state: State, table: Iterable[Entry]) -> State:
    """Rename and change every tensor by the entry that its key begins with.

    Args:
        state (dict[str, torch.Tensor]): What is to be renamed.
        table (Iterable[Entry]): The table. No source begins with another.

    Returns:
        dict[str, torch.Tensor]: The tensors by their new keys.

    Raises:
        UserError: If the table has no place for a key.
    """
    table = list(table)
    renamed, unplaced = OrderedDict(), []
    for key, tensor in state.items():
        for entry in table:
            if key.startswith(entry.source):
                rest = key[len(entry.source) :]
                renamed[entry.target + rest] = entry.change(tensor)
                break
        else:
            unplaced.append(key)
    if unplaced:
        raise UserError(f'it has {_list(unplaced)}, which such a network does not have')
    return renamed


def check_same_keys(found: State, expected: State) -> None:
    """Check that a state dict has exactly the tensors of another.

    Raises:
        UserError: If keys are missing or left over, or a shape differs.
    """
    missing = [key for key in expected if key not in found]
    if missing:
        raise UserError(f'it lacks {_list(missing)}')
    extra = [key for key in found if key not in expected]
    if extra:
        raise UserError(f'it has {_list(extra)}, which such a network does not have')
    for key, tensor in found.items():
        if tensor.shape != expected[key].shape:
            raise UserError(
                f'its {key} has the shape {tuple(tensor.shape)}, expected '
                f'{tuple(expected[key].shape)}'
            )


def _list(keys: list[str], shown: int = 5) -> str:
    more = f' and {len(keys) - shown} more' if len(keys) > shown else ''
    return ', '.join(keys[:shown]) + more


def count(state: State, prefix: str) -> int:
    """Number of modules in the list that ``prefix`` names.

    Args:
        state (dict[str, torch.Tensor]): A state dict.
        prefix (str): What the keys of the list begin with, with its dot.

    Returns:
        int: How many indices there are. Should one be missing, the last one
        is left over when keys are compared.
    """
    indices = {key[len(prefix) :].split('.')[0] for key in state if key.startswith(prefix)}
    return len(indices)


def size(state: State, key: str, dim: int = 0) -> int:
    """Size of a tensor that tells what the network is.

    Raises:
        UserError: If there is no such tensor, or it lacks the dimension.
    """
    if key not in state:
        raise UserError(f'it lacks {key}')
    shape = state[key].shape
    if dim >= len(shape) or shape[dim] == 0:
        raise UserError(f'its {key} has the shape {tuple(shape)}')
    return shape[dim]
