"""This plugin's configs and models by name: ``ride_mm::NAME.py`` and ``get_model('NAME')``."""

from functools import lru_cache
from pathlib import Path

from mmpretrain.apis.model import ModelHub

from .errors import UserError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
PREFIX = f'{PACKAGE.name}::'


def home() -> Path:
    """Folder of ``configs/`` and ``model-index.yml``: ``.mim`` of an installed
    package, or the root of the repository."""
    mim = PACKAGE / '.mim'
    return mim if (mim / 'configs').is_dir() else PACKAGE.parent


def config_file(name: str) -> str:
    """Find the file of a config.

    Args:
        name (str): A path, which is returned unchanged, or a name such as
            ``'ride_mm::ride_r50_imagenet_lt.py'``, relative to ``configs/``.
            ``.py`` may be omitted.

    Returns:
        str: The path.

    Raises:
        UserError: If there is no config of this name.
    """
    if not name.startswith(PREFIX):
        return name
    configs = home() / 'configs'
    path = configs / name[len(PREFIX) :]
    path = path if path.suffix == '.py' else Path(f'{path}.py')
    if not path.is_file():
        known = [PREFIX + file.relative_to(configs).as_posix() for file in configs.rglob('*.py')]
        raise UserError(
            f'{name}: there is no such config in {configs}.'
            f'{nearest(PREFIX + path.relative_to(configs).as_posix(), known)}'
        )
    return str(path)


@lru_cache
def register_models() -> None:
    """Register the models of ``model-index.yml`` in MMPretrain's hub, once."""
    index = home() / 'model-index.yml'
    if index.is_file():
        ModelHub.register_model_index(index, config_prefix=home())
