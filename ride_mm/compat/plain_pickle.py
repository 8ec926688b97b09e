"""Read pickles of plain data without calling anything that they name.

A pickle is a program: it names functions and calls them. Here each name is
answered by a stand-in of :mod:`ride_mm.compat.stand_ins`, which only notes
what the file says, and what has no stand-in is refused. Arrays and tensors
are built from the notes, once their sizes are those of their data.
"""

import io
import math
import pickle
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np
import torch

from .stand_ins import STAND_INS, StandIn, require, unwrap


class _Buffer(StandIn):
    """An array as protocol 5 of pickle writes it."""

    def __init__(self, data, dtype, shape, order) -> None:
        name = 'numpy._core.numeric._frombuffer'
        require(isinstance(data, (bytes, bytearray)), name)
        require(order in ('C', 'F') and _are_sizes(shape), name)
        self.array = STAND_INS['numpy.core.multiarray._reconstruct'](
            STAND_INS['numpy.ndarray'], (0,), b'b'
        )
        self.array.__setstate__((1, shape, dtype, order == 'F', bytes(data)))

    def build(self, memo: dict) -> np.ndarray:
        return self.array.build(memo)


class _Storage(StandIn):
    """The numbers of a tensor, a pickle within the pickle."""

    def __init__(self, content) -> None:
        require(type(content) is bytes, 'torch.storage._load_from_bytes')
        self.content = content

    def build(self, memo: dict) -> Any:
        storage = torch.load(io.BytesIO(self.content), map_location='cpu', weights_only=True)
        require(isinstance(storage, torch.storage.TypedStorage), 'torch.storage._load_from_bytes')
        return storage


class _Tensor(StandIn):
    def __init__(self, storage, offset, size, stride, *_) -> None:
        require(
            isinstance(storage, _Storage)
            and _are_sizes((offset,))
            and _are_sizes(size)
            and _are_sizes(stride)
            and len(size) == len(stride),
            'torch._utils._rebuild_tensor_v2',
        )
        self.storage = storage
        self.layout = offset, size, stride

    def build(self, memo: dict) -> torch.Tensor:
        storage = unwrap(self.storage, memo)
        offset, size, stride = self.layout
        # PyTorch would make the storage as large as it takes
        end = offset + sum((n - 1) * step for n, step in zip(size, stride)) + 1
        numbers = max(end, math.prod(size)) if math.prod(size) else 0
        require(
            numbers * storage._element_size() <= storage._untyped_storage.nbytes(),
            'torch._utils._rebuild_tensor_v2',
        )
        return torch._utils._rebuild_tensor_v2(
            storage, offset if numbers else 0, size, stride, False, OrderedDict()
        )


def _are_sizes(numbers: Any) -> bool:
    return type(numbers) is tuple and all(type(n) is int and n >= 0 for n in numbers)


_KNOWN = {
    'builtins.set': set,
    'collections.OrderedDict': OrderedDict,
    'torch.storage._load_from_bytes': _Storage,
    'torch._utils._rebuild_tensor_v2': _Tensor,
    'numpy.core.numeric._frombuffer': _Buffer,
    'numpy._core.numeric._frombuffer': _Buffer,
    **{
        path: stand_in
        for path, stand_in in STAND_INS.items()
        if path.startswith(('numpy.', '_codecs.'))
    },
    'builtins.bytes': STAND_INS['builtins.bytes'],
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # the name of `builtins` in pickle protocol 2 is Python 2's
        path = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
        if path not in _KNOWN:
            raise pickle.UnpicklingError(f'it needs `{path}`, which is not plain data')
        return _KNOWN[path]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError('it needs objects of another file')


def load_plain_pickle(file: BinaryIO, encoding: str = 'ASCII') -> Any:
    """Unpickle tensors, arrays, numbers, texts and containers of these.

    Args:
        file (BinaryIO): Where to read from.
        encoding (str): Of the texts of Python 2, as in :func:`pickle.load`.
            Defaults to 'ASCII'.

    Returns:
        Any: The content.

    Raises:
        pickle.UnpicklingError: If it needs anything else.
        Exception: Any other one, of a damaged file.
    """
    return unwrap(_PlainUnpickler(file, encoding=encoding).load(), {})
