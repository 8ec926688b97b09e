"""Read the Python objects in a checkpoint of MMEngine without calling what the file names.

Besides tensors and plain containers, a checkpoint of MMEngine holds
:obj:`mmengine.logging.HistoryBuffer` objects, and those hold NumPy arrays and
references to their own methods. ``torch.load(weights_only=True)`` refuses
them, and allowing them by name with ``torch.serialization.add_safe_globals``
would give up what it protects from: ``builtins.getattr`` reaches every
attribute of every allowed object, and ``numpy.dtype``, ``numpy.ndarray`` and
their ``__setstate__`` build arrays of raw pointers.

Here each of these names is answered by a :class:`StandIn`, which only records
arguments and state. :func:`unwrap` then checks the records and builds the real
objects. It refuses whatever no checkpoint of MMEngine contains.

Checkpoints of other programs pickle objects of classes that are not even
installed: those of the official RIDE code hold its ``ConfigParser``, with
paths and loggers. Where only the tensors are wanted, each of these objects is
replaced by an empty dict, see :class:`Unknown`.

Needed with mmengine 0.10.7 and torch 2.4 to 2.11, see
:mod:`ride_mm.compat.checkpoint_loading`. ``torch.serialization.safe_globals``
does not replace ``_allowed``: torch 2.4 lacks it, torch < 2.6 finds an
object by its own name alone, and a user may have allowed one of these names.
"""

import inspect
import math
import pickle
import pickletools
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer


class StandIn:
    """Record of an object in a pickle: the arguments of its call, and its state."""

    args: tuple
    state: Any

    def __new__(cls, *args) -> 'StandIn':
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Unknown:
    """Stand-in of any other name: calling it returns an empty dict.

    PyTorch's safe unpickler puts the object's items and attributes into the
    ``OrderedDict`` and calls nothing.
    """

    def __new__(cls, *args, **kwargs) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


# Each builder takes the arguments and the state of a stand-in and returns the
# object, or None to refuse them.


def _bytes(args: Any, state: Any) -> bytes | None:
    """``bytes()``, which pickle protocol 2 writes for the data of empty arrays."""
    return b'' if args == () and state is None else None


def _encode(args: Any, state: Any) -> bytes | None:
    """``_codecs.encode``, as which pickle protocol 2 writes ``bytes``."""
    match args, state:
        case (str(text), 'latin1'), None:
            return text.encode('latin1')
    return None


def _dtype(args: Any, state: Any) -> np.dtype | None:
    """Numbers, booleans, bytes and text; no objects and no fields."""
    match args, state:
        # state: version, byte order, subarray, names, fields, item size, ...
        case (str(code), *_), (_, '<' | '>' | '|' | '=' as order, None, None, None, *_):
            if re.fullmatch(r'[biufc]\d{1,2}|[SU]\d{1,6}', code):
                return np.dtype(code).newbyteorder(order)
    return None


def _array(args: Any, state: Any) -> np.ndarray | None:
    match args, state:
        case (kind, *_), (
            _,
            tuple(shape),
            np.dtype() as dtype,
            int(is_fortran),
            bytes() | str() as data,
        ):
            if isinstance(data, str):  # bytes of Python 2
                data = data.encode('latin1')
            if (
                kind is np.ndarray
                and all(type(size) is int and size >= 0 for size in shape)
                and dtype.itemsize > 0
                and len(data) == math.prod(shape) * dtype.itemsize
            ):
                array = np.ndarray(shape, dtype, data, order='F' if is_fortran else 'C')
                # an array over `bytes` is read-only
                return array.copy('F' if is_fortran else 'C')
    return None


def _scalar(args: Any, state: Any) -> Any:
    match args, state:
        case (np.dtype() as dtype, bytes(data)), None if len(data) == dtype.itemsize:
            return np.ndarray((), dtype, data)[()]
    return None


def _history_buffer(args: Any, state: Any) -> HistoryBuffer | None:
    match args, state:
        case (), {
            '_log_history': np.ndarray(ndim=1) as log,
            '_count_history': np.ndarray(ndim=1) as count,
            'max_length': int(max_length),
        } if len(log) == len(count) and max_length > 0:
            # not '_statistics_methods': all buffers of the process share them
            return HistoryBuffer(log, count, max_length)
    return None


def _history_buffer_method(args: Any, state: Any) -> Callable | None:
    """``getattr(HistoryBuffer, name)`` with the name of a public method."""
    match args, state:
        case (owner, str(name)), None if owner is HistoryBuffer and not name.startswith('_'):
            method = vars(HistoryBuffer).get(name)
            return method if inspect.isfunction(method) else None
    return None


def _config_dict(args: Any, state: Any) -> ConfigDict | None:
    """A nested ``metainfo`` of a dataset, which comes from the config."""
    match args, state:
        case (dict(items),), None:
            return ConfigDict(items)
    return None


_BUILDERS: dict[str, Callable[[Any, Any], Any]] = {
    '_codecs.encode': _encode,
    'builtins.bytes': _bytes,
    'builtins.getattr': _history_buffer_method,
    'mmengine.config.config.ConfigDict': _config_dict,
    'mmengine.logging.history_buffer.HistoryBuffer': _history_buffer,
    # NumPy 1 and 2
    'numpy.core.multiarray._reconstruct': _array,
    'numpy._core.multiarray._reconstruct': _array,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.dtype': _dtype,
}
# Classes that are arguments of other calls.
_CLASSES = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'numpy.ndarray': np.ndarray,
}


def _named(stand_in: type, path: str) -> type:
    """Subclass ``stand_in`` under the name that it answers to.

    torch < 2.6 takes the name of an allowed object from the object itself.
    """
    module, _, name = path.rpartition('.')
    return type(name, (stand_in,), dict(__module__=module, __qualname__=name))


STAND_INS = {path: _named(StandIn, path) for path in [*_BUILDERS, 'numpy.ndarray']}


def unwrap(value: Any, memo: dict | None = None) -> Any:
    """Replace every stand-in in nested containers by the object that it stands for.

    Args:
        value (Any): An unpickled object. Its dicts, lists and sets are
            changed in place.
        memo (dict, optional): Results by ``id``, for shared and recursive
            objects. Defaults to None.

    Returns:
        Any: ``value``, or the object that it stands for.

    Raises:
        pickle.UnpicklingError: If a stand-in is used as in no checkpoint of
            MMEngine.
    """
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, StandIn):
        memo[id(value)] = _build(value, memo)
    elif isinstance(value, type) and issubclass(value, StandIn):
        if _path(value) not in _CLASSES:
            raise _refusal(value)
        return _CLASSES[_path(value)]
    elif type(value) in (dict, OrderedDict, Counter):
        memo[id(value)] = value
        # methods of the class: an unknown object may have an attribute of this name
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


def _build(stand_in: StandIn, memo: dict) -> Any:
    args, state = unwrap(stand_in.args, memo), unwrap(stand_in.state, memo)
    builder = _BUILDERS.get(_path(type(stand_in)))
    try:
        built = builder and builder(args, state)
    except (TypeError, ValueError):
        built = None
    if built is None:
        raise _refusal(type(stand_in))
    return built


def _refusal(kind: type[StandIn]) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(
        f'Unsupported use of GLOBAL {_path(kind)}: no checkpoint of MMEngine uses it like this'
    )


def _path(item: Any) -> str:
    """Full name of an allowed object; newer versions of torch take a pair with the name."""
    return item[1] if isinstance(item, tuple) else f'{item.__module__}.{item.__qualname__}'


@contextmanager
def _allowed(stand_ins: dict[str, type]) -> Iterator[None]:
    """Temporarily allow stand-ins beside what the user has allowed."""
    serialization = torch.serialization
    by_user = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(
        [item for item in by_user if _path(item) not in stand_ins] + list(stand_ins.values())
    )
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(by_user)


def _unknown_names(path: str) -> dict[str, type]:
    """An :class:`Unknown` for every name in a file that has no stand-in."""
    with open(path, 'rb') as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                (name,) = [n for n in archive.namelist() if n.endswith('/data.pkl')]
                with archive.open(name) as pickled:
                    names = _names_in_pickle(pickled)
        else:
            # The format of torch < 1.6: a magic number, a version, a
            # description of the system, the checkpoint.
            file.seek(0)
            names = [_names_in_pickle(file) for _ in range(4)][-1]
    return {name: _named(Unknown, name) for name in names if name not in STAND_INS}


def _names_in_pickle(file: IO[bytes]) -> set[str]:
    return {
        _python_3(str(argument).replace(' ', '.'))
        for opcode, argument, _ in pickletools.genops(file)
        if opcode.name == 'GLOBAL'
    }


def _python_3(path: str) -> str:
    """Pickle protocol 2 has Python 2's name of ``builtins``."""
    return path.replace('__builtin__.', 'builtins.')


def load_with_stand_ins(path: str, map_location: Any = None, allow_unknown: bool = False) -> Any:
    """Load a checkpoint of MMEngine without calling anything it names.

    Args:
        path (str): A file written by ``torch.save``.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.
        allow_unknown (bool): Whether names that are in no checkpoint of
            MMEngine are answered by :class:`Unknown`. Defaults to False.

    Returns:
        Any: The checkpoint.

    Raises:
        pickle.UnpicklingError: If the file needs other globals.
    """
    unknown = _unknown_names(path) if allow_unknown else {}
    with _allowed(STAND_INS | unknown):
        loaded = torch.load(path, map_location=map_location, weights_only=True)
    return unwrap(loaded)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[StandIn]:
        path = _python_3(f'{module}.{name}')
        if path not in STAND_INS:
            raise pickle.UnpicklingError(f'it needs `{path}`, which is not plain data')
        return STAND_INS[path]


def load_arrays(file: BinaryIO) -> Any:
    """Unpickle NumPy arrays, numbers, text and containers of these.

    The files of CIFAR are such pickles; MMPretrain 1.2.0 reads them with
    ``pickle.load``, which runs what they hold.

    Args:
        file (BinaryIO): A pickle, which Python 2 may have written.

    Returns:
        Any: The content.

    Raises:
        pickle.UnpicklingError: If the pickle needs anything else.
        Exception: Any other, if the file is damaged.
    """
    return unwrap(_ArrayUnpickler(file, encoding='latin1').load())
