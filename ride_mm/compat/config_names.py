"""Find this plugin's configs and models by name, as those of OpenMMLab's packages.

In mmengine 0.10.7 and onedl-mmengine 0.10.12, ``_base_ = 'PACKAGE::NAME.py'``
and ``mmengine.hub.get_config`` accept only a fixed list of packages and
require a folder in every name. mmengine also searches packages with
``pkg_resources``, which setuptools 82 has removed; the fork does not, nor does
mmengine since `pull request 1676
<https://github.com/open-mmlab/mmengine/pull/1676>`_, which is not released.
:func:`install_config_names` can be deleted once MMEngine finds the configs of
any installed package.

:func:`config_file` and :func:`register_models`, which makes
``get_model('NAME')`` and ``list_models()`` know this plugin, are here to stay.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import hub
from mmpretrain.apis.model import ModelHub

from ride_mm.utils.errors import UserError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]
_PREFIX = f'{_PACKAGE.name}::'


def _home() -> Path:
    """Folder of ``configs/`` and ``model-index.yml``: ``.mim`` of an installed
    package, or the root of the repository."""
    mim = _PACKAGE / '.mim'
    return mim if (mim / 'configs').is_dir() else _PACKAGE.parent


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
    if not name.startswith(_PREFIX):
        return name
    configs = _home() / 'configs'
    path = configs / name[len(_PREFIX) :]
    path = path if path.suffix == '.py' else Path(f'{path}.py')
    if not path.is_file():
        known = [_PREFIX + file.relative_to(configs).as_posix() for file in configs.rglob('*.py')]
        raise UserError(
            f'{name}: there is no such config in {configs}.'
            f'{nearest(_PREFIX + path.relative_to(configs).as_posix(), known)}'
        )
    return str(path)


def _get_base(original: Callable, cfg_path: str, filename: str) -> tuple:
    """A base config and the scope of its variables."""
    if cfg_path.startswith(_PREFIX):
        # This plugin has no scope of its own: its classes are registered in
        # MMPretrain's, which its configs set.
        return config_file(cfg_path), None
    return original(cfg_path, filename)


# Functions that MMEngine's hub calls to get from a name to a config, in this
# order, and their results for this plugin.
_HUB_ANSWERS: dict[str, Callable] = dict(
    _get_package_and_cfg_path=lambda name: (_PACKAGE.name, config_file(name)),
    install_package=lambda package: None,
    get_installed_path=lambda package: str(_PACKAGE),
    _get_cfg_metainfo=lambda folder, config: dict(Config=config),
)


def _answer(original: Callable, answer: Callable, asked: str, *args) -> Any:
    if asked in (_PACKAGE.name, str(_PACKAGE)) or asked.startswith(_PREFIX):
        return answer(asked, *args)
    return original(asked, *args)


@lru_cache
def install_config_names() -> None:
    """Make MMEngine find ``ride_mm::NAME`` in ``_base_`` and in its hub."""
    Config._get_cfg_path = staticmethod(partial(_get_base, Config._get_cfg_path))
    for name, answer in _HUB_ANSWERS.items():
        setattr(hub, name, partial(_answer, getattr(hub, name), answer))


@lru_cache
def register_models() -> None:
    """Register the models of ``model-index.yml`` in MMPretrain's hub, once."""
    index = _home() / 'model-index.yml'
    if index.is_file():
        ModelHub.register_model_index(index, config_prefix=_home())
