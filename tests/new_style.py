"""Configs of MMEngine's new style: Python with classes instead of names."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import FUNCTIONS, Registry
from mmpretrain import registry

_BASE = '{imports}\n\n{body}\n'
_CHILD = """from mmengine.config import read_base

with read_base():
    from .base import *
"""


def _class_of(name: str) -> type:
    for known in [*vars(registry).values(), FUNCTIONS]:
        if isinstance(known, Registry) and known.get(name):
            return known.get(name)
    raise KeyError(name)


def _render(value: Any, imports: set[str]) -> str:
    if isinstance(value, dict):
        parts = []
        for key, item in value.items():
            text = _render(item, imports)
            # 'torchvision/RandomCrop' is a name in either style.
            if key == 'type' and '/' not in item:
                kind = _class_of(item)
                imports.add(f'from {kind.__module__} import {kind.__name__}')
                text = kind.__name__
            parts.append(f'{key!r}: {text}')
        return '{' + ', '.join(parts) + '}'
    if isinstance(value, (list, tuple)):
        text = ', '.join(_render(item, imports) for item in value)
        return f'[{text}]' if isinstance(value, list) else f'({text}, )'
    return repr(value)


def write_new_style(cfg: Config, folder: Path) -> str:
    """Write a config of names as one of classes, and a child of it.

    Args:
        cfg (Config): The config of names.
        folder (Path): Where ``base.py`` and ``child.py`` go.

    Returns:
        str: The child, which inherits by ``read_base`` and changes nothing.
    """
    imports: set[str] = set()
    lines = [f'{key} = {_render(value, imports)}' for key, value in cfg.to_dict().items()]
    (folder / 'base.py').write_text(
        _BASE.format(imports='\n'.join(sorted(imports)), body='\n'.join(lines))
    )
    (folder / 'child.py').write_text(_CHILD)
    return str(folder / 'child.py')
