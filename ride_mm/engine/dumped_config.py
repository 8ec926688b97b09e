"""Read a config that MMEngine has dumped, without running it.

A config is a Python program. What ``Config.dump`` writes needs no Python to be
understood: it is assignments of plain values. A work_dir from elsewhere is
therefore read, and not run.
"""

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ride_mm.utils.errors import UserError

_NAMES = dict(inf=float('inf'), nan=float('nan'))
_LARGEST = 2**20
_NUMBERS = (int, float, complex)
# What readers of a config look into.
_DICTS = (
    'model',
    'train_cfg',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'optim_wrapper',
    'randomness',
    'default_hooks',
    'data_preprocessor',
)


def read_dumped_config(path: str | Path) -> Config:
    """Read what ``Config.dump`` wrote, such as the config in a work_dir.

    Args:
        path (str | Path): The file.

    Returns:
        Config: Its settings. Nothing is imported and nothing is called.

    Raises:
        UserError: If the file holds anything but settings ``name = value``
            of texts, numbers, truth values, None, and lists, tuples, sets and
            dicts of these.
    """
    path = Path(path)
    # a file of predictions may name any path, also that of a device
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise UserError(
            f'{path}: expected the dumped config of a run, a file of at most {_LARGEST:,} bytes'
        )
    try:
        settings = _settings(path, path.read_text(encoding='utf-8'))
        return Config(settings)
    except (SyntaxError, ValueError, RecursionError, MemoryError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        line = getattr(error, 'lineno', None)
        where = f'{path}, line {line}' if line else path
        words = str(error).splitlines() or [type(error).__name__]
        raise UserError(f'{where}: this is not the dumped config of a run: {words[0]}') from None


def _settings(path: Path, text: str) -> dict:
    settings = {}
    for statement in ast.parse(text).body:
        if (
            not isinstance(statement, ast.Assign)
            or not isinstance(statement.targets[0], ast.Name)
            or len(statement.targets) > 1
        ):
            raise _no_data(path, statement)
        name = statement.targets[0].id
        value = settings[name] = _value(path, statement.value)
        if name == '_base_' or (name in _DICTS and not isinstance(value, (dict, type(None)))):
            raise _no_data(path, statement)
    return settings


def _value(path: Path, node: ast.AST) -> Any:
    """The value of an expression that needs no Python."""
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = dict(List=list, Tuple=tuple, Set=set)[type(node).__name__]
        return kind(_value(path, item) for item in node.elts)
    if isinstance(node, ast.Dict):
        return {
            _key(path, node, key): _value(path, value) for key, value in zip(node.keys, node.values)
        }
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        # the keys of one in braces need not be identifiers
        if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.Dict):
            return _value(path, node.args[0])
        if not node.args and all(keyword.arg for keyword in node.keywords):
            return {k.arg: _value(path, k.value) for k in node.keywords}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(path, node.operand)
        if type(number) in _NUMBERS:
            return -number
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    raise _no_data(path, node)


def _key(path: Path, node: ast.Dict, key: ast.AST) -> Any:
    if not isinstance(key, ast.Constant):
        raise _no_data(path, node)
    return key.value


def _no_data(path: Path, node: ast.AST) -> UserError:
    found = ast.unparse(node).splitlines()[0]
    return UserError(
        f'{path}, line {node.lineno}: expected the dumped config of a run, '
        f'which holds plain settings only, found `{found:.60}`. The dumped '
        'config of a run is parsed, not executed; pass a config that needs '
        'Python on the command line.'
    )
