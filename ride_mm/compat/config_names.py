"""This plugin's configs and models under the names that users of OpenMMLab
try: ``_base_ = 'ride_mm::NAME.py'`` and ``get_model('NAME')``."""

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
    """The folder of ``configs/`` and ``model-index.yml``: ``.mim`` of an
    installed package, the root of a source tree."""
    mim = _PACKAGE / '.mim'
    return mim if (mim / 'configs').is_dir() else _PACKAGE.parent


def config_file(name: str) -> str:
    """Where a config of this plugin is.

    Args:
        name (str): A path, which is returned as it is, or the name
            ``'ride_mm::ride_r50_imagenet_lt.py'``, with the folder below
            ``configs/`` if there is one. ``.py`` may be left out.

    Returns:
        str: The file.

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
        # The parts of this plugin are in MMPretrain's scope, which its
        # configs name, and in none of their own.
        return config_file(cfg_path), None
    return original(cfg_path, filename)


# What MMEngine's hub asks on its way from a name to a config, in this order,
# and the answers for this plugin.
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
    """Let MMEngine find ``ride_mm::NAME`` in ``_base_`` and in its hub.

    By itself it knows a fixed list of packages, wants a folder in every name
    and finds packages by ``pkg_resources``, which setuptools 82 has dropped.
    """
    Config._get_cfg_path = staticmethod(partial(_get_base, Config._get_cfg_path))
    for name, answer in _HUB_ANSWERS.items():
        setattr(hub, name, partial(_answer, getattr(hub, name), answer))


@lru_cache
def register_models() -> None:
    """Tell MMPretrain's hub the models of ``model-index.yml``, once."""
    index = _home() / 'model-index.yml'
    if index.is_file():
        ModelHub.register_model_index(index, config_prefix=_home())
