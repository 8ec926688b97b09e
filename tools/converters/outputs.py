"""What the converters write: whole or not at all, and over nothing."""

import io
import os
from collections.abc import Iterable, Sequence

import torch
from rich.table import Table

from ride_mm.compat.atomic_backend import write_file
from ride_mm.utils.errors import UserError


def check_outputs(paths: Iterable[str], overwrite: bool) -> None:
    """Check that nothing is overwritten unasked.

    Raises:
        UserError: If a file exists.
    """
    for path in paths:
        if os.path.exists(path) and not overwrite:
            raise UserError(f'{path} exists: name another file, or pass --overwrite')


def checkpoint_bytes(checkpoint: dict) -> bytes:
    """The bytes that ``torch.save`` would write."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def write(contents: dict[str, bytes]) -> None:
    """Write files, each one whole or not at all."""
    for path, content in contents.items():
        write_file(path, content)


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Lay out what was found, one row per fact."""
    table = Table(title=title, show_header=False, title_justify='left')
    for fact in facts:
        table.add_row(*fact)
    return table
