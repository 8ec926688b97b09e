"""Tables for logs and terminals."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def build_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Build a table: first column left-aligned, numbers right-aligned.

    Square brackets are printed as they are, not read as rich's markup.

    Args:
        title (str): Title of the table.
        columns (Sequence[str]): The column heads.
        rows (Sequence[Sequence[str]]): The cells, already formatted.

    Returns:
        rich.table.Table: The table, in plain ASCII for logs.
    """
    table = Table(title=escape(title), box=box.ASCII, title_justify='left')
    for i, column in enumerate(columns):
        table.add_column(escape(column), justify='right' if i else 'left', no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def render_table(table: Table) -> str:
    """Render a table as plain text, independent of the terminal width."""
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None).print(table)
    return '\n'.join(line.rstrip() for line in text.getvalue().splitlines())


def print_tables(*tables: Table) -> None:
    """Print tables with rounded boxes, independent of the terminal width."""
    console = Console(width=1000)
    for table in tables:
        table.box = box.ROUNDED
        console.print(table)
