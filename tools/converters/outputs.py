"""Output files and printed table of the converters."""

import io
import os
from collections.abc import Iterable, Sequence

import torch
from rich.table import Table

from ride_mm.utils.errors import UserError


def check_outputs(paths: Iterable[str], overwrite: bool) -> None:
    """Check that no file is overwritten unless this was asked for.

    Raises:
        UserError: If a file exists and ``overwrite`` is False.
    """
    for path in paths:
        if os.path.exists(path) and not overwrite:
            raise UserError(f'{path} exists: choose another file, or pass --overwrite')


def checkpoint_bytes(checkpoint: dict) -> bytes:
    """The bytes that ``torch.save`` would write."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Table with a row for each name and value."""
    table = Table(title=title, show_header=False, title_justify='left')
    for fact in facts:
        table.add_row(*fact)
    return table
