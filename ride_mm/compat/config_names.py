"""MMEngine finds this plugin's configs by name.

In mmengine 0.10.7 and onedl-mmengine 0.10.12, ``_base_ = 'PACKAGE::NAME.py'``
and ``mmengine.hub.get_config`` accept only a fixed list of packages and
require a folder in every name. mmengine also searches packages with
``pkg_resources``, which setuptools 82 has removed; the fork does not, nor does
mmengine since `pull request 1676
<https://github.com/open-mmlab/mmengine/pull/1676>`_, which is not released.
Delete this file once MMEngine finds the configs of any installed package.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import hub

from ride_mm.utils.config_names import (
    PACKAGE,
    PREFIX,
    WEIGHTS_PREFIX,
    config_file,
    own_weights,
)


def _get_base(original: Callable, cfg_path: str, filename: str) -> tuple:
    """A base config and the scope of its variables."""
    if cfg_path.startswith(PREFIX):
        # This plugin has no scope of its own: its classes are registered in
        # MMPretrain's, which its configs set.
        return config_file(cfg_path), None
    return original(cfg_path, filename)


def _metainfo(folder: str, config: str) -> dict[str, str]:
    """The entry of the model index that MMEngine's hub reads."""
    weights = WEIGHTS_PREFIX + Path(config).stem
    return dict(Config=config, **({'Weights': weights} if weights in own_weights() else {}))


# Functions that MMEngine's hub calls to get from a name to a config, in this
# order, and their results for this plugin.
_HUB_ANSWERS: dict[str, Callable] = dict(
    _get_package_and_cfg_path=lambda name: (PACKAGE.name, config_file(name)),
    install_package=lambda package: None,
    get_installed_path=lambda package: str(PACKAGE),
    _get_cfg_metainfo=_metainfo,
)


def _answer(original: Callable, answer: Callable, asked: str, *args) -> Any:
    if asked in (PACKAGE.name, str(PACKAGE)) or asked.startswith(PREFIX):
        return answer(asked, *args)
    return original(asked, *args)


@lru_cache
def install_config_names() -> None:
    """Make MMEngine find ``ride_mm::NAME`` in ``_base_`` and in its hub."""
    Config._get_cfg_path = staticmethod(partial(_get_base, Config._get_cfg_path))
    for name, answer in _HUB_ANSWERS.items():
        setattr(hub, name, partial(_answer, getattr(hub, name), answer))
