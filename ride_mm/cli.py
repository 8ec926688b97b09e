"""The command ``ride-mm``: ``ride-mm train CONFIG`` runs ``tools/train.py CONFIG``."""

import argparse
import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table

from ride_mm.utils.config_names import PREFIX, home
from ride_mm.utils.errors import UserError, nearest, run_tool

# In the order of a first use; then all others.
_FIRST = ('init', 'check-data', 'train', 'test', 'report', 'sweep', 'compare')
_FOLDERS = ('', 'analysis', 'decoupling')
_NO_COMMANDS = ('setup_env', 'mmpretrain_tool')
_NAMES = dict(init_config='init')
_EXAMPLE = """
example:
  ride-mm train ride_mm::ride_r32_digits_lt --test
  ride-mm --print-completion bash     # or zsh; a script for the shell
"""
# Functions that complete a config. Bash would take "::" for the end of a word.
_CONFIGS = dict(
    bash="""COMP_WORDBREAKS=${COMP_WORDBREAKS//:}
_ride_mm_config_files() {
  compgen -W '%s' -- "$1"
  compgen -f -- "$1"
}
""",
    zsh="""_ride_mm_config_files() {
  compadd -- %s
  _files
}
""",
)


def find_commands() -> dict[str, Path]:
    """Find the tools, of the clone or of the installed package.

    Returns:
        dict[str, Path]: The file of each command: ``fit-temperature`` is
        ``tools/analysis/fit_temperature.py``.
    """
    found = {
        _NAMES.get(path.stem, path.stem.replace('_', '-')): path
        for folder in _FOLDERS
        for path in sorted((home() / 'tools' / folder).glob('*.py'))
        if path.stem not in _NO_COMMANDS
    }
    return {name: found.pop(name) for name in _FIRST if name in found} | found


def summary(path: Path) -> str:
    """The first sentence of a tool's docstring, without its command."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    return text.split('\n')[0].split(':')[0].rstrip('.')


def commands_table(commands: dict[str, Path]) -> Table:
    """Build the table of all commands, for ``rich.print``."""
    table = Table.grid(padding=(0, 3))
    for name, path in commands.items():
        table.add_row(f'  {name}', summary(path))
    return table


class _Found(Exception):
    """Carries the parser of a tool out of its ``main``."""


def tool_parser(path: Path) -> argparse.ArgumentParser:
    """Get the parser of a tool, without running the tool.

    Args:
        path (Path): The file of the tool.

    Returns:
        ArgumentParser: The parser.
    """

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Found(parser)

    main = runpy.run_path(str(path))['main']
    with mock.patch.object(argparse.ArgumentParser, 'parse_args', stop):
        try:
            main([])
        except _Found as found:
            return found.args[0]
    raise ValueError(f'{path} parses no arguments')


def _config_names() -> Iterator[str]:
    """Names of the configs of this plugin, for the command line."""
    configs = home() / 'configs'
    for path in sorted(configs.rglob('*.py')):
        name = path.relative_to(configs).with_suffix('').as_posix()
        if not name.startswith('_base_'):
            yield PREFIX + name


def completion(shell: str) -> str:
    """Write the script with which a shell completes commands, options and names
    of configs.

    Args:
        shell (str): One that shtab knows, such as 'bash' or 'zsh'.

    Returns:
        str: The script.

    Raises:
        UserError: If the shell is unknown, or shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            "--print-completion needs shtab: pip install 'ride_mm[completion]'"
        ) from error
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(
            f'--print-completion needs one of {", ".join(shtab.SUPPORTED_SHELLS)}, found {shell!r}'
        )
    parser = argparse.ArgumentParser('ride-mm')
    tools = parser.add_subparsers()
    for name, path in find_commands().items():
        try:
            parents = [tool_parser(path)]
        except ImportError:  # of an extra that is not installed
            parents = []
        tool = tools.add_parser(name, parents=parents, add_help=False, help=summary(path))
        for action in tool._actions:
            if action.dest == 'config':
                kinds = shtab.FILE | dict.fromkeys(_CONFIGS, '_ride_mm_config_files')
            elif action.nargs != 0 and action.type in (None, Path) and not action.choices:
                kinds = shtab.FILE
            else:
                continue
            action.complete = kinds  # type: ignore[attr-defined]
    names = ' '.join(_config_names())
    preamble: Any = {key: text % names for key, text in _CONFIGS.items()}
    return shtab.complete(parser, shell, preamble=preamble)


def run() -> None:
    """Run the command in ``sys.argv``.

    Raises:
        UserError: If there is no such command.
    """
    commands = find_commands()
    name, *arguments = sys.argv[1:] or ['--help']
    if name == '--print-completion':
        print(completion(*arguments[:1] or ['']))
        return
    if name in ('-h', '--help'):
        console = Console(highlight=False)
        console.print('usage: ride-mm COMMAND [OPTIONS]   (ride-mm COMMAND --help)\n')
        console.print(commands_table(commands))
        console.print(_EXAMPLE)
        return
    if name not in commands:
        raise UserError(
            f'ride-mm has no command {name!r}.{nearest(name, commands)} See ride-mm --help'
        )
    sys.argv = [f'ride-mm {name}', *arguments]
    runpy.run_path(str(commands[name]))['main']()


def main() -> None:
    """The entry point of the console."""
    run_tool(run)


if __name__ == '__main__':
    main()
