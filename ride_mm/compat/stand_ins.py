"""Stand-ins for the Python objects that a checkpoint of MMEngine pickles.

Besides tensors and plain containers, a checkpoint of MMEngine holds
:obj:`mmengine.logging.HistoryBuffer` objects, and those hold NumPy arrays and
references to their own methods. Unpickling them by name needs
``builtins.getattr`` and NumPy's own reconstructors, which is as much as
unpickling anything: ``getattr`` reaches every attribute of every allowed
object, and ``numpy.dtype``, ``numpy.ndarray`` and ``__setstate__`` build
arrays of raw pointers.

So none of them is ever called here. Each name is answered by a class of this
module, which only notes what the file says and refuses what a checkpoint of
MMEngine never says. :func:`unwrap` then builds the real objects from the
notes.

Checkpoints of other programs pickle objects of classes that are not even
there. Where only the tensors beside them are wanted, an :class:`Unknown` is
put in the place of each: it holds what the file says and does nothing.
"""

import inspect
import math
import pickle
import pickletools
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Literal

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer


def require(condition: bool, name: str) -> None:
    """Refuse what a file says of a name, unless a condition holds."""
    if not condition:
        raise pickle.UnpicklingError(
            f'Unsupported use of GLOBAL {name}: no checkpoint of MMEngine uses it like this'
        )


class _Sealed(type):
    """A class that a pickle's BUILD cannot change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f'a file sets {cls.__name__}.{name}')


class StandIn(metaclass=_Sealed):
    """What a file says about one object. Subclasses say how to build it."""

    def build(self, memo: dict) -> Any:
        """Build the object that the file meant.

        Args:
            memo (dict): The memo of :func:`unwrap`.
        """
        raise NotImplementedError

    def __setstate__(self, state) -> None:
        # or a file could put anything into its attributes
        require(False, type(self).__name__)


class _Bytes(StandIn):
    """``bytes()``, which protocol 2 writes for the data of empty arrays."""

    # What it stands for is made at once.
    def __new__(cls, *args) -> bytes:  # type: ignore[misc]
        require(not args, 'builtins.bytes')
        return b''


class _Encode(StandIn):
    """``_codecs.encode``, as which protocol 2 writes ``bytes``."""

    def __new__(cls, text, encoding) -> bytes:  # type: ignore[misc]
        require(type(text) is str and encoding == 'latin1', '_codecs.encode')
        return text.encode('latin1')


class _Dtype(StandIn):
    """Plain numbers, truth values, bytes and text: no objects, no fields."""

    def __init__(self, code, align=False, copy=False) -> None:
        require(
            type(code) is str and re.fullmatch(r'[biufc]\d{1,2}|[SU]\d{1,6}', code) is not None,
            'numpy.dtype',
        )
        self.dtype = np.dtype(code)

    def __setstate__(self, state) -> None:
        # (version, byte order, subarray, names, fields, itemsize, ...)
        require(
            type(state) is tuple
            and len(state) >= 5
            and state[1] in ('<', '>', '|', '=')
            and state[2:5] == (None, None, None),
            'numpy.dtype',
        )
        self.dtype = self.dtype.newbyteorder(state[1])

    def build(self, memo: dict) -> np.dtype:
        return self.dtype


class _ArrayType(StandIn):
    """``numpy.ndarray`` itself, named as an argument of ``_reconstruct``."""

    def __init__(self, *args) -> None:
        require(False, 'numpy.ndarray')


class _Array(StandIn):
    def __init__(self, subtype, shape, code) -> None:
        require(
            isinstance(subtype, type) and issubclass(subtype, _ArrayType),
            'numpy._core.multiarray._reconstruct',
        )

    def __setstate__(self, state) -> None:
        name = 'numpy.ndarray'
        require(type(state) is tuple and len(state) == 5, name)
        _, shape, dtype, is_fortran, data = state
        if type(data) is str:  # as Python 2 wrote `bytes`
            data = data.encode('latin1')
        require(isinstance(dtype, _Dtype) and type(data) is bytes, name)
        require(
            type(shape) is tuple
            and all(type(size) is int and size >= 0 for size in shape)
            and len(data) == math.prod(shape) * dtype.dtype.itemsize,
            name,
        )
        order: Literal['F', 'C'] = 'F' if is_fortran else 'C'
        # `.copy()` because an array over `bytes` cannot be written to
        self.array = np.ndarray(shape, dtype.dtype, data, order=order).copy(order)

    def build(self, memo: dict) -> np.ndarray:
        return self.array


class _Scalar(StandIn):
    def __init__(self, dtype, data) -> None:
        require(
            isinstance(dtype, _Dtype) and type(data) is bytes and len(data) == dtype.dtype.itemsize,
            'numpy._core.multiarray.scalar',
        )
        self.scalar = np.ndarray((), dtype.dtype, data)[()]

    def build(self, memo: dict) -> Any:
        return self.scalar


class _HistoryBuffer(StandIn):
    def __setstate__(self, state) -> None:
        # 'statistics_methods' is left out on purpose: `HistoryBuffer` would
        # put them in a dict shared by all buffers of the process
        name = 'mmengine.logging.history_buffer.HistoryBuffer'
        require(type(state) is dict, name)
        self.log = state.get('_log_history')
        self.count = state.get('_count_history')
        self.max_length = state.get('max_length')
        require(
            isinstance(self.log, _Array)
            and isinstance(self.count, _Array)
            and self.log.array.ndim == self.count.array.ndim == 1
            and len(self.log.array) == len(self.count.array)
            and type(self.max_length) is int
            and self.max_length > 0,
            name,
        )

    def build(self, memo: dict) -> HistoryBuffer:
        return HistoryBuffer(self.log.array, self.count.array, self.max_length)


class _HistoryBufferMethod(StandIn):
    """``getattr``, when all it is asked for is a method of HistoryBuffer."""

    def __init__(self, owner, name) -> None:
        require(
            isinstance(owner, type)
            and issubclass(owner, _HistoryBuffer)
            and type(name) is str
            and not name.startswith('_')
            and inspect.isfunction(vars(HistoryBuffer).get(name)),
            'builtins.getattr',
        )
        self.name = name

    def build(self, memo: dict) -> Any:
        return vars(HistoryBuffer)[self.name]


class _ConfigDict(StandIn):
    """A nested ``metainfo`` of a dataset comes from the config."""

    def __init__(self, items) -> None:
        require(type(items) is dict, 'mmengine.config.config.ConfigDict')
        self.items = items

    def build(self, memo: dict) -> ConfigDict:
        return ConfigDict(unwrap(self.items, memo))


class Unknown:
    """Whatever an unknown name makes: an empty dict that takes all data.

    PyTorch's safe unpickler puts items and attributes into an
    ``OrderedDict``, and calls nothing of it.
    """

    def __new__(cls, *args, **kwargs) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


def _named(stand_in: type, path: str) -> type:
    """Subclass ``stand_in`` under the full name that it answers to.

    ``torch.serialization.add_safe_globals`` of torch < 2.7 knows no other way
    to say by which name an object is found.
    """
    module, _, name = path.rpartition('.')
    return type(name, (stand_in,), dict(__module__=module, __qualname__=name))


STAND_INS: dict[str, type[StandIn]] = {
    path: _named(stand_in, path)
    for stand_in, paths in {
        _HistoryBuffer: ('mmengine.logging.history_buffer.HistoryBuffer',),
        # the name of `builtins` in pickle protocol 2 is Python 2's
        _HistoryBufferMethod: ('builtins.getattr', '__builtin__.getattr'),
        _Bytes: ('builtins.bytes', '__builtin__.bytes'),
        # newer versions of torch allow it already
        _Encode: ('_codecs.encode',),
        _ConfigDict: ('mmengine.config.config.ConfigDict',),
        _Dtype: ('numpy.dtype',),
        _ArrayType: ('numpy.ndarray',),
        # NumPy 1 and 2
        _Array: ('numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct'),
        _Scalar: ('numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar'),
    }.items()
    for path in paths
}


def unwrap(value: Any, memo: dict) -> Any:
    """Replace every stand-in in nested containers by what it stands for.

    Args:
        value (Any): An unpickled object. Its dicts, lists and sets are
            changed in place.
        memo (dict): Results by ``id``, for shared and recursive objects.
            Start with an empty one.

    Returns:
        Any: ``value``, or what stands in its place.
    """
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, StandIn):
        memo[id(value)] = value.build(memo)
    elif type(value) in (dict, OrderedDict, Counter):
        memo[id(value)] = value
        # of the class: an unknown object may have an attribute of this name
        kind = type(value)
        items = [(unwrap(k, memo), unwrap(v, memo)) for k, v in kind.items(value)]
        kind.clear(value)
        kind.update(value, dict(items))
    elif type(value) is list:
        memo[id(value)] = value
        value[:] = [unwrap(item, memo) for item in value]
    elif type(value) is set:
        memo[id(value)] = value
        items = [unwrap(item, memo) for item in value]
        value.clear()
        value.update(items)
    elif type(value) is tuple:
        memo[id(value)] = tuple(unwrap(item, memo) for item in value)
    else:
        return value
    return memo[id(value)]


@contextmanager
def _allowed(stand_ins: dict[str, type]) -> Iterator[None]:
    """Allow stand-ins, and what the user has allowed, for a while."""
    serialization = torch.serialization
    by_user = serialization.get_safe_globals()

    def path(item):
        return item[1] if isinstance(item, tuple) else (f'{item.__module__}.{item.__qualname__}')

    serialization.clear_safe_globals()
    serialization.add_safe_globals(
        [item for item in by_user if path(item) not in stand_ins] + list(stand_ins.values())
    )
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(by_user)


def _unknown_names(path: str) -> dict[str, type]:
    """An :class:`Unknown` for every name in a file that is no stand-in's."""
    with open(path, 'rb') as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                (name,) = [n for n in archive.namelist() if n.endswith('/data.pkl')]
                with archive.open(name) as pickled:
                    names = _names_in_pickle(pickled)
        else:
            # the format of torch < 1.6: a magic number, a version, a
            # description of the system, the checkpoint
            file.seek(0)
            names = [_names_in_pickle(file) for _ in range(4)][-1]
    return {name: _named(Unknown, name) for name in names if name not in STAND_INS}


def _names_in_pickle(file: IO[bytes]) -> set[str]:
    return {
        str(argument).replace(' ', '.').replace('__builtin__.', 'builtins.')
        for opcode, argument, _ in pickletools.genops(file)
        if opcode.name == 'GLOBAL'
    }


def load_with_stand_ins(path: str, map_location: Any = None, allow_unknown: bool = False) -> Any:
    """Load a checkpoint of MMEngine without calling anything it names.

    Args:
        path (str): A file written by ``torch.save``.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.
        allow_unknown (bool): Whether names that no checkpoint of MMEngine
            has are answered by :class:`Unknown`. Defaults to False.

    Returns:
        Any: The checkpoint.

    Raises:
        pickle.UnpicklingError: If the file needs other globals.
    """
    stand_ins = dict(STAND_INS)
    if allow_unknown:
        stand_ins.update(_unknown_names(path))
    with _allowed(stand_ins):
        loaded = torch.load(path, map_location=map_location, weights_only=True)
    return unwrap(loaded, {})


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        path = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
        if not path.startswith(('numpy.', '_codecs.', 'builtins.bytes')) or path not in STAND_INS:
            raise pickle.UnpicklingError(f'it needs `{path}`, which is not plain data')
        return STAND_INS[path]


def load_arrays(file: BinaryIO) -> Any:
    """Unpickle NumPy arrays, numbers, texts and containers of these, as CIFAR's files hold.

    Args:
        file (BinaryIO): A pickle, also one that Python 2 wrote.

    Returns:
        Any: The content.

    Raises:
        pickle.UnpicklingError: If it needs anything else.
        Exception: Any other one, if the file is damaged.
    """
    return unwrap(_ArrayUnpickler(file, encoding='latin1').load(), {})
