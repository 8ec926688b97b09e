"""Load checkpoints without running what is in them.

MMEngine 0.10 reads a checkpoint with ``torch.load(path)``. With torch >= 2.6
that refuses MMEngine's own checkpoints; with an older torch, and for every
file from a URL, it runs whatever code the file holds.
:func:`install_checkpoint_loader` puts another loader in its place, which
``Runner.resume``, ``load_from``, ``get_model(pretrained=...)``, the
inferencers and ``init_cfg=dict(type='Pretrained')`` then all use.

Two places in MMEngine run a text *inside* a checkpoint as a Python config:

- ``Runner.resume`` does so with ``meta['config']``, which only old versions
  wrote: it is removed from what is loaded here.
- ``mmengine.infer.BaseInferencer`` does so with the config that MMEngine
  stores as ``message_hub['runtime_info']['cfg']`` and ``meta['cfg']``, if it
  is asked for a model by its weights alone. The inferencers of MMPretrain
  always want a config or a model name and never get there. The text is kept,
  since it says how the model was trained: do not build a model from the
  weights alone with an inferencer of another library, unless you trust them.
"""

import functools
import os
import os.path as osp
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.utils import mkdir_or_exist

from ride_mm.utils.errors import UserError, nearest

from .stand_ins import load_with_stand_ins

TRUST_VARIABLE = 'RIDE_MM_TRUST_CHECKPOINTS'

_ZIP_START = b'PK\x03\x04'
_PICKLE_START = b'\x80'
# the attribute of a folder in a zip archive
_FOLDER = 0x10
# what `Runner.resume` reads, by dotted keys
_RESUMED = {
    'state_dict': dict,
    'message_hub.log_scalars': dict,
    'message_hub.runtime_info': dict,
    'message_hub.resumed_keys': dict,
    'meta.epoch': int,
    'meta.iter': int,
}
_DAMAGE = re.compile('PytorchStreamReader|corrupt|unexpected EOF')


class CheckpointError(UserError):
    """A checkpoint is damaged, or asks for more than data."""


def find_damage(path: str) -> str | None:
    """Say what is wrong with a checkpoint file, without unpickling it.

    Reads the whole file once: the checksums of its zip archive, which
    ``torch.load`` does not look at, find a single flipped bit. They do not
    cover the archive's directory, which is therefore read as ``torch.load``
    reads it as well. The format of torch < 1.6 has no checksums, so of such
    a file only the start is checked.

    Args:
        path (str): A local path.

    Returns:
        Optional[str]: What is wrong, to follow "the file ...". None if the
        file is whole.
    """
    if not osp.isfile(path):
        return 'is a folder' if osp.isdir(path) else 'does not exist'
    with open(path, 'rb') as file:
        start = file.read(64)
    if not start:
        return 'is empty'
    if start.startswith(_PICKLE_START):
        return None
    if not start.startswith(_ZIP_START):
        return f'is not a PyTorch checkpoint: it starts with {start[:24]!r}'
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            damaged = archive.testzip()
    except Exception as error:
        # zipfile answers damage with about any exception
        return _unreadable(error)
    if damaged is not None:
        return f'is damaged: the checksum of its part {damaged!r} is wrong'
    names = {part.filename for part in parts}
    # two of one name, and a folder, are read as another part, or as zeros
    if len(names) < len(parts) or any(part.external_attr & _FOLDER for part in parts):
        return 'is damaged: the directory of its zip archive is wrong'
    if not any(name.endswith('/data.pkl') for name in names):
        return 'is a zip archive but not a PyTorch checkpoint'
    try:
        torch._C.PyTorchFileReader(path)
    except RuntimeError as error:
        return _unreadable(error)
    return None


def _unreadable(error: Exception) -> str:
    return f'is truncated or damaged: its zip archive cannot be read ({_one_line(error)})'


def find_resume_problem(path: str, optimizer: bool = False) -> str | None:
    """Say why a training cannot be resumed from a checkpoint file.

    Args:
        path (str): A local path.
        optimizer (bool): Whether the state of the optimizer has to be there.
            Defaults to False.

    Returns:
        Optional[str]: As :func:`find_damage`: damage, content that is not
        loaded as data, or not that of a training. None if all is well.
    """
    damage = find_damage(path)
    if damage is not None:
        return damage
    try:
        # without the numbers of the tensors
        content = _load_as_data(path, 'meta', _load_mmengine)
    except pickle.UnpicklingError as error:
        return None if _is_trusted() else f'is refused: {_demand(error)}'
    except CheckpointError as error:
        return f'cannot be loaded: {error}'
    needed = dict(_RESUMED, optimizer=dict) if optimizer else _RESUMED
    for key, kind in needed.items():
        found = content
        for name in key.split('.'):
            found = found.get(name) if isinstance(found, dict) else None
        is_count = type(found) is int and found >= 0
        if not (is_count if kind is int else isinstance(found, kind)):
            return f'cannot be resumed: it has no `{key}`'
    return None


def numbered_checkpoints(folder: str, filename_tmpl: str) -> list[tuple[int, str]]:
    """List the checkpoints of a folder, the newest first.

    Args:
        folder (str): A local folder.
        filename_tmpl (str): As in ``CheckpointHook``, e.g. 'epoch_{}.pth'.

    Returns:
        List[Tuple[int, str]]: The number of epochs or iterations of each
        checkpoint, and its path.
    """
    if not osp.isdir(folder):
        return []
    found = [(step_of(name, filename_tmpl), osp.join(folder, name)) for name in os.listdir(folder)]
    return sorted([(step, path) for step, path in found if step is not None], reverse=True)


def step_of(path: str, filename_tmpl: str) -> int | None:
    """Read the number of epochs or iterations from the name of a checkpoint.

    Args:
        path (str): The path of a checkpoint.
        filename_tmpl (str): As in ``CheckpointHook``, e.g. 'epoch_{}.pth'.

    Returns:
        Optional[int]: The number, or None if the name has another form.
    """
    before, after = re.split(r'\{.*?\}', filename_tmpl, maxsplit=1)
    match = re.fullmatch(re.escape(before) + r'(\d+)' + re.escape(after), osp.basename(path))
    return int(match.group(1)) if match else None


def load_checkpoint_file(path: str, map_location: Any = None) -> Any:
    """Load a local checkpoint as data only.

    First as ``torch.load(weights_only=True)`` does; then with exactly the
    further objects that a checkpoint of MMEngine holds (see
    :mod:`ride_mm.compat.stand_ins`). A file that needs more is refused, unless
    the environment says ``RIDE_MM_TRUST_CHECKPOINTS=1``.

    Args:
        path (str): A local path.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.

    Returns:
        Any: The checkpoint, without ``meta['config']``.

    Raises:
        CheckpointError: If the file is damaged or refused.
    """
    _check_damage(path)
    try:
        checkpoint = _load_as_data(path, map_location, _load_mmengine)
    except pickle.UnpicklingError as error:
        checkpoint = _load_if_trusted(path, map_location, error)
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def load_foreign_checkpoint(path: str, map_location: Any = 'cpu') -> Any:
    """Load the tensors and plain data of another program's checkpoint.

    Nothing is imported and nothing that the file names is called: objects of
    unknown classes become an ``OrderedDict`` each (see
    :class:`ride_mm.compat.stand_ins.Unknown`).

    Args:
        path (str): A local path.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            'cpu'.

    Returns:
        Any: The checkpoint.

    Raises:
        CheckpointError: If the file is damaged, or refused for what PyTorch
            allows in no file.
    """
    _check_damage(path)
    try:
        return _load_as_data(
            path, map_location, functools.partial(load_with_stand_ins, allow_unknown=True)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'Refused to load {path}: it needs {_culprit(error)}, which no '
            'checkpoint of a network needs.'
        ) from None


def _check_damage(path: str) -> None:
    damage = find_damage(path)
    if damage is not None:
        raise CheckpointError(
            f'Cannot load {path}: the file {damage}. Use another checkpoint, '
            'or copy or download it again.'
        )


def _load_mmengine(path: str, map_location: Any) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        return load_with_stand_ins(path, map_location)


def _load_as_data(path: str, map_location: Any, load: Callable) -> Any:
    try:
        return load(path, map_location)
    except Exception as error:
        if _may_load_otherwise(error):
            raise
        raise CheckpointError(
            f'Cannot load {path}: its content is not a checkpoint '
            f'({type(error).__name__}: {_last_words(error)}). Use another '
            'checkpoint, or create it again.'
        ) from None


def _may_load_otherwise(error: Exception) -> bool:
    """Whether the error is unrelated to file damage: a refused global, out of
    memory, or a missing device."""
    if _DAMAGE.search(str(error)) or isinstance(error, RecursionError):
        return False
    return isinstance(error, (pickle.UnpicklingError, MemoryError, OSError, RuntimeError))


def _is_trusted() -> bool:
    return os.environ.get(TRUST_VARIABLE, '0') not in ('', '0')


def _demand(error: pickle.UnpicklingError) -> str:
    return (
        f'it needs {_culprit(error)}, which is not part of an MMEngine '
        'checkpoint and could run code from the file. If you trust its '
        f'author, set {TRUST_VARIABLE}=1 in the environment'
    )


def _load_if_trusted(path: str, map_location: Any, error: pickle.UnpicklingError) -> Any:
    if not _is_trusted():
        raise CheckpointError(f'Refused to load {path}: {_demand(error)}.') from None
    warnings.warn(
        f'{path} needs {_culprit(error)}. It is loaded, including any code in '
        f'it, because {TRUST_VARIABLE} is set.',
        stacklevel=2,
    )
    return torch.load(path, map_location=map_location, weights_only=False)


def _culprit(error: pickle.UnpicklingError) -> str:
    """Find the global that torch names in a page of text."""
    match = re.search(r'(?:GLOBAL|Unsupported class) ([\w.]+)', str(error))
    if match is None:
        return f'an unusual pickle ({_last_words(error)})'
    # torch leaves out the module of builtins
    name = match.group(1)
    return f'`{name}`' if '.' in name else f'`builtins.{name}`'


def _last_words(error: Exception) -> str:
    """The message without the advice that torch puts around it."""
    message = str(error).split('\n\nCheck the documentation')[0]
    message = message.split('WeightsUnpickler error:')[-1]
    return _one_line(message.strip().split('\n')[-1])


def _one_line(message: object) -> str:
    """Without what torch adds about itself, and without odd characters."""
    text = str(message).split('. This is an internal')[0]
    printable = ''.join(c if c.isprintable() else ' ' for c in text)
    return ' '.join(printable.split())


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a checkpoint from a local path, for ``CheckpointLoader``.

    Args:
        filename (str): A local path; ``~`` is the home folder.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.

    Returns:
        Any: See :func:`load_checkpoint_file`.

    Raises:
        CheckpointError: If there is no such file, or it is damaged or
            refused.
    """
    filename = osp.expanduser(filename)
    if not osp.isfile(filename):
        folder, name = osp.split(filename)
        others = os.listdir(folder or '.') if osp.isdir(folder or '.') else []
        found = (
            'it is a folder.'
            if osp.isdir(filename)
            else (f'there is no such file.{nearest(name, others)}')
        )
        raise CheckpointError(f'Cannot load the checkpoint {filename}: {found}')
    return _load_weights(filename, map_location)


def _load_weights(path: str, map_location: Any) -> dict:
    checkpoint = load_checkpoint_file(path, map_location)
    weights = checkpoint
    if isinstance(checkpoint, dict):
        weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise CheckpointError(
            f'Cannot load {path}: it holds a {type(weights).__name__} instead '
            'of a state dict. Use another checkpoint.'
        )
    if not isinstance(checkpoint.get('meta', {}), dict):
        raise CheckpointError(f'Cannot load {path}: its `meta` is no dict. Use another checkpoint.')
    return checkpoint


def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | None = None,
    progress: bool = os.isatty(0),
) -> Any:
    """Download a checkpoint once and load it, for ``CheckpointLoader``.

    The file is kept where ``torch.hub`` keeps it, and rank 0 downloads it for
    all.

    Args:
        filename (str): A URL.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.
        model_dir (str, optional): The folder to keep the file in. Defaults to
            None, which means that of ``torch.hub``.
        progress (bool): Whether to show a progress bar. Defaults to whether
            there is a terminal.

    Returns:
        Any: See :func:`load_checkpoint_file`.
    """
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(filename).path))
    rank, _ = get_dist_info()
    if rank == 0:
        _download(filename, path, progress)
    barrier()
    # other machines have another disk
    _download(filename, path, progress)
    return _load_weights(path, map_location)


def _download(url: str, path: str, progress: bool) -> None:
    if not osp.exists(path):
        mkdir_or_exist(osp.dirname(path))
        torch.hub.download_url_to_file(url, path, progress=progress)


def _tell_misfit(resume: Callable) -> Callable:
    """Let ``Runner.resume`` end in one line where a state does not fit."""

    @functools.wraps(resume)
    def wrapper(self, filename: str, *args, **kwargs) -> None:
        try:
            resume(self, filename, *args, **kwargs)
        except UserError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f'Cannot resume from {filename}: its content does not fit '
                f'this run ({type(error).__name__}: {_last_words(error)}). Is '
                'it a checkpoint of this config?'
            ) from error

    return wrapper


def install_checkpoint_loader() -> None:
    """Make MMEngine load local and downloaded checkpoints through here."""
    if not hasattr(Runner.resume, '__wrapped__'):
        Runner.resume = _tell_misfit(Runner.resume)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(
        prefixes=('http://', 'https://'), loader=load_from_http, force=True
    )
    # 'torchvision://', 'open-mmlab://' and 'mmcls://' look a URL up and call
    # this function by its name
    mmengine_checkpoint.load_from_http = load_from_http
