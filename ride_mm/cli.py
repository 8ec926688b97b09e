"""The command ``ride-mm``: ``ride-mm train CONFIG`` runs ``tools/train.py CONFIG``."""

import ast
import runpy
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ride_mm.utils.config_names import home
from ride_mm.utils.errors import UserError, nearest, run_tool

# In the order of a first use; then all others.
_FIRST = ('init', 'check-data', 'train', 'test', 'report', 'sweep', 'compare')
_FOLDERS = ('', 'analysis', 'decoupling')
_NO_COMMANDS = ('setup_env', 'mmpretrain_tool')
_NAMES = dict(init_config='init')


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
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    return text.split('\n')[0].split(':')[0].rstrip('.')


def commands_table(commands: dict[str, Path]) -> Table:
    """Build the table of all commands, for ``rich.print``."""
    table = Table.grid(padding=(0, 3))
    for name, path in commands.items():
        table.add_row(f'  {name}', summary(path))
    return table


def run() -> None:
    """Run the command in ``sys.argv``.

    Raises:
        UserError: If there is no such command.
    """
    commands = find_commands()
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        console = Console(highlight=False)
        console.print('usage: ride-mm COMMAND [OPTIONS]   (ride-mm COMMAND --help)\n')
        console.print(commands_table(commands))
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
