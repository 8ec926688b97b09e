"""This plugin's configs, weights and models by name.

``ride_mm::NAME.py``, ``ride_mm://NAME`` and ``get_model('NAME', pretrained=True)``.
"""

from functools import lru_cache
from pathlib import Path

from mmpretrain.apis.model import ModelHub

from .errors import UserError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
PREFIX = f'{PACKAGE.name}::'
WEIGHTS_PREFIX = f'{PACKAGE.name}://'


def home() -> Path:
    """Folder of ``configs/``, ``weights/`` and ``model-index.yml``: the root of the
    repository, or ``.mim`` of an installed package."""
    root = PACKAGE.parent
    return root if (root / 'model-index.yml').is_file() else PACKAGE / '.mim'


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


def own_weights() -> dict[str, str]:
    """Weights that the repository and the package hold.

    Returns:
        dict[str, str]: The paths by name: ``weights/ride_r32_digits_lt/model.safetensors``
        is ``'ride_mm://ride_r32_digits_lt'``.
    """
    files = (home() / 'weights').glob('*/model.safetensors')
    return {WEIGHTS_PREFIX + file.parent.name: str(file) for file in files}


@lru_cache
def register_models() -> None:
    """Register the models of ``model-index.yml`` in MMPretrain's hub, once."""
    index = home() / 'model-index.yml'
    if index.is_file():
        ModelHub.register_model_index(index, config_prefix=home())
