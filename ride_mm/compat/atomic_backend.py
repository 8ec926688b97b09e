"""MMEngine's local files are written whole or not at all.

``LocalBackend`` of mmengine 0.10.7 and onedl-mmengine 0.10.12 opens the file
itself for writing: a full disk or a killed process leaves a truncated
checkpoint, and has destroyed the previous one of that name. No upstream issue
is known. Delete this file once ``LocalBackend.put`` writes to a temporary file
and renames it.
"""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio import io as mmengine_io

from ride_mm.utils.files import write_file


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written by :func:`~ride_mm.utils.files.write_file`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes, see :func:`~ride_mm.utils.files.write_file`."""
        write_file(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text, see :func:`~ride_mm.utils.files.write_file`."""
        write_file(filepath, obj.encode(encoding))


def install_atomic_backend() -> None:
    """Make MMEngine write local files with :class:`AtomicLocalBackend`."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    # backends that MMEngine keeps for reuse
    cached = mmengine_io.backend_instances
    for key, backend in list(cached.items()):
        if type(backend) is LocalBackend:
            del cached[key]
