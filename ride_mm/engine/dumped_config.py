"""Read a config dumped by MMEngine without executing it.

``Config.dump`` writes only assignments of plain values, so the config of a
work_dir, which may come from elsewhere, is parsed and never run.
"""

import ast
from pathlib import Path

from mmengine.config import Config

from ride_mm.utils.errors import UserError

_NAMES = dict(inf=float('inf'), nan=float('nan'))
_LITERALS = (ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp)
_MAX_BYTES = 2**20
# Settings that have to be dicts.
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
        UserError: If the file holds anything but settings ``name = value`` of
            strings, numbers, booleans, None, and lists, tuples, sets and dicts
            of these.
    """
    path = Path(path)
    # a predictions file may name any path, even a device
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        raise UserError(
            f'{path}: expected the dumped config of a run, a file of at most {_MAX_BYTES:,} bytes'
        )
    try:
        return Config(_settings(path.read_text(encoding='utf-8')))
    except (SyntaxError, ValueError, RecursionError, MemoryError, KeyError, TypeError) as error:
        line = getattr(error, 'lineno', None)
        where = f'{path}, line {line}' if line else path
        lines = str(getattr(error, 'msg', error)).splitlines() or [type(error).__name__]
        raise UserError(f'{where}: this is not the dumped config of a run: {lines[0]}') from None


def _settings(text: str) -> dict:
    settings = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) if name != '_base_':
                value = ast.literal_eval(_ToLiterals().visit(statement.value))
            case _:
                raise _not_plain(statement)
        if name in _DICTS and not isinstance(value, dict | None):
            raise _not_plain(statement)
        settings[name] = value
    return settings


class _ToLiterals(ast.NodeTransformer):
    """Replaces ``dict(...)``, ``inf`` and ``nan`` by literals."""

    def visit(self, node: ast.AST) -> ast.AST:
        match node:
            # keys in braces need not be identifiers
            case ast.Call(func=ast.Name(id='dict'), args=[ast.Dict() as literal], keywords=[]):
                node = literal
            case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
                literal = ast.Dict([], [k.value for k in keywords])
                literal.keys += [ast.Constant(k.arg) if k.arg else None for k in keywords]
                node = ast.copy_location(literal, node)
            case ast.Name(id=name) if name in _NAMES:
                return ast.Constant(_NAMES[name])
            case ast.Constant(value=value) if value is Ellipsis:
                raise _not_plain(node)
        if isinstance(node, ast.expr) and not isinstance(node, _LITERALS):
            raise _not_plain(node)
        if isinstance(node, ast.Dict) and None in node.keys:
            raise _not_plain(node)
        return self.generic_visit(node)


def _not_plain(node: ast.expr | ast.stmt) -> SyntaxError:
    found = ast.unparse(node).splitlines()[0]
    message = (
        f'expected plain settings only, found `{found:.60}`. The dumped config of a run is parsed, '
        'not executed; pass a config that needs Python on the command line.'
    )
    return SyntaxError(message, (None, node.lineno, None, None))
