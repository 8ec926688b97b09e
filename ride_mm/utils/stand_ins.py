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
"""
import inspect
import math
import pickle
import re
import types
import zipfile
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Type

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer


def _require(condition: bool, name: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(
            f'Unsupported use of GLOBAL {name}: no checkpoint of MMEngine '
            'uses it like this')


class StandIn:
    """What a file says about one object. Subclasses say how to build it."""

    def build(self, memo: dict) -> Any:
        """Build the object that the file meant.

        Args:
            memo (dict): The memo of :func:`unwrap`.
        """
        raise NotImplementedError


class _Bytes(StandIn):
    """``bytes()``, which protocol 2 writes for the data of empty arrays."""

    def __new__(cls, *args) -> bytes:
        _require(not args, 'builtins.bytes')
        return b''


class _Encode(StandIn):
    """``_codecs.encode``, as which protocol 2 writes ``bytes``."""

    def __new__(cls, text, encoding) -> bytes:
        _require(type(text) is str and encoding == 'latin1', '_codecs.encode')
        return text.encode('latin1')


class _Dtype(StandIn):
    """Plain numbers, truth values, bytes and text: no objects, no fields."""

    def __init__(self, code, align=False, copy=False) -> None:
        _require(
            type(code) is str
            and re.fullmatch(r'[biufc]\d{1,2}|[SU]\d{1,6}', code) is not None,
            'numpy.dtype')
        self.dtype = np.dtype(code)

    def __setstate__(self, state) -> None:
        # (version, byte order, subarray, names, fields, itemsize, ...)
        _require(
            type(state) is tuple and len(state) >= 5
            and state[1] in ('<', '>', '|', '=')
            and state[2:5] == (None, None, None), 'numpy.dtype')
        self.dtype = self.dtype.newbyteorder(state[1])

    def build(self, memo: dict) -> np.dtype:
        return self.dtype


class _ArrayType(StandIn):
    """``numpy.ndarray`` itself, named as an argument of ``_reconstruct``."""

    def __init__(self, *args) -> None:
        _require(False, 'numpy.ndarray')


class _Array(StandIn):

    def __init__(self, subtype, shape, code) -> None:
        _require(
            isinstance(subtype, type) and issubclass(subtype, _ArrayType),
            'numpy._core.multiarray._reconstruct')

    def __setstate__(self, state) -> None:
        name = 'numpy.ndarray'
        _require(type(state) is tuple and len(state) == 5, name)
        _, shape, dtype, is_fortran, data = state
        _require(isinstance(dtype, _Dtype) and type(data) is bytes, name)
        _require(
            type(shape) is tuple
            and all(type(size) is int and size >= 0 for size in shape)
            and len(data) == math.prod(shape) * dtype.dtype.itemsize, name)
        order = 'F' if is_fortran else 'C'
        # `.copy()` because an array over `bytes` cannot be written to
        self.array = np.ndarray(
            shape, dtype.dtype, data, order=order).copy(order)

    def build(self, memo: dict) -> np.ndarray:
        return self.array


class _Scalar(StandIn):

    def __init__(self, dtype, data) -> None:
        _require(
            isinstance(dtype, _Dtype) and type(data) is bytes
            and len(data) == dtype.dtype.itemsize,
            'numpy._core.multiarray.scalar')
        self.scalar = np.ndarray((), dtype.dtype, data)[()]

    def build(self, memo: dict) -> np.generic:
        return self.scalar


class _HistoryBuffer(StandIn):

    def __setstate__(self, state) -> None:
        # 'statistics_methods' is left out on purpose: `HistoryBuffer` would
        # put them in a dict shared by all buffers of the process
        name = 'mmengine.logging.history_buffer.HistoryBuffer'
        _require(type(state) is dict, name)
        self.log = state.get('_log_history')
        self.count = state.get('_count_history')
        self.max_length = state.get('max_length')
        _require(
            isinstance(self.log, _Array) and isinstance(self.count, _Array)
            and self.log.array.ndim == self.count.array.ndim == 1
            and len(self.log.array) == len(self.count.array)
            and type(self.max_length) is int and self.max_length > 0, name)

    def build(self, memo: dict) -> HistoryBuffer:
        return HistoryBuffer(self.log.array, self.count.array, self.max_length)


class _HistoryBufferMethod(StandIn):
    """``getattr``, when all it is asked for is a method of HistoryBuffer."""

    def __init__(self, owner, name) -> None:
        _require(
            isinstance(owner, type) and issubclass(owner, _HistoryBuffer)
            and type(name) is str and not name.startswith('_')
            and inspect.isfunction(vars(HistoryBuffer).get(name)),
            'builtins.getattr')
        self.name = name

    def build(self, memo: dict) -> Any:
        return vars(HistoryBuffer)[self.name]


class _ConfigDict(StandIn):
    """A nested ``metainfo`` of a dataset comes from the config."""

    def __init__(self, items) -> None:
        _require(type(items) is dict, 'mmengine.config.config.ConfigDict')
        self.items = items

    def build(self, memo: dict) -> ConfigDict:
        return ConfigDict(unwrap(self.items, memo))


def _named(stand_in: Type[StandIn], path: str) -> Type[StandIn]:
    """Subclass ``stand_in`` under the full name that it answers to.

    ``torch.serialization.add_safe_globals`` of torch < 2.7 knows no other way
    to say by which name an object is found.
    """
    module, _, name = path.rpartition('.')
    return type(name, (stand_in, ), dict(__module__=module, __qualname__=name))


STAND_INS: Dict[str, Type[StandIn]] = {
    path: _named(stand_in, path)
    for stand_in, paths in {
        _HistoryBuffer: ('mmengine.logging.history_buffer.HistoryBuffer', ),
        # the name of `builtins` in pickle protocol 2 is Python 2's
        _HistoryBufferMethod: ('builtins.getattr', '__builtin__.getattr'),
        _Bytes: ('builtins.bytes', '__builtin__.bytes'),
        # newer versions of torch allow it already
        _Encode: ('_codecs.encode', ),
        _ConfigDict: ('mmengine.config.config.ConfigDict', ),
        _Dtype: ('numpy.dtype', ),
        _ArrayType: ('numpy.ndarray', ),
        # NumPy 1 and 2
        _Array: ('numpy.core.multiarray._reconstruct',
                 'numpy._core.multiarray._reconstruct'),
        _Scalar: ('numpy.core.multiarray.scalar',
                  'numpy._core.multiarray.scalar'),
    }.items() for path in paths
}  # yapf: disable


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
        items = [(unwrap(k, memo), unwrap(v, memo)) for k, v in value.items()]
        value.clear()
        value.update(dict(items))
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
def _stand_ins_allowed() -> Iterator[None]:
    """Allow the stand-ins, and what the user has allowed, for a while."""
    serialization = torch.serialization
    by_user = serialization.get_safe_globals()

    def path(item):
        return item[1] if isinstance(
            item, tuple) else (f'{item.__module__}.{item.__qualname__}')

    serialization.clear_safe_globals()
    serialization.add_safe_globals(
        [item for item in by_user if path(item) not in STAND_INS] +
        list(STAND_INS.values()))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(by_user)


class _StrictUnpickler(pickle._Unpickler):
    """What ``weights_only`` does, with the stand-ins, for torch < 2.4.

    Its own list of allowed globals cannot be extended.
    """
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        path = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
        allowed = torch._weights_only_unpickler._get_allowed_globals()
        if path in STAND_INS:
            return STAND_INS[path]
        if path in allowed:
            return allowed[path]
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {path}')

    def load_build(self) -> None:
        target = self.stack[-2]
        if not isinstance(target, StandIn) and type(target) not in (
                OrderedDict, torch.Tensor, torch.nn.Parameter):
            raise pickle.UnpicklingError(
                f'Unsupported state for {type(target)}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


_STRICT_PICKLE = types.SimpleNamespace(
    __name__='strict_pickle', Unpickler=_StrictUnpickler)


def load_with_stand_ins(path: str, map_location: Any = None) -> Any:
    """Load a checkpoint of MMEngine without calling anything it names.

    Args:
        path (str): A file written by ``torch.save``.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.

    Returns:
        Any: The checkpoint.

    Raises:
        pickle.UnpicklingError: If the file needs other globals.
    """
    if hasattr(torch.serialization, 'clear_safe_globals'):
        with _stand_ins_allowed():
            loaded = torch.load(
                path, map_location=map_location, weights_only=True)
    elif zipfile.is_zipfile(path):
        loaded = torch.load(
            path,
            map_location=map_location,
            weights_only=False,
            pickle_module=_STRICT_PICKLE)
    else:
        # the format of torch < 1.6, which MMEngine never wrote, may be a tar
        # archive that `weights_only=False` would unpack
        loaded = torch.load(path, map_location=map_location, weights_only=True)
    return unwrap(loaded, {})
