"""Write local files whole or not at all."""

import glob
import os
import os.path as osp
import uuid
from contextlib import suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio import io as mmengine_io
from mmengine.utils import mkdir_or_exist

# Hidden, so that no listing takes it for a checkpoint, and unlike the names
# of other programs, so that a leftover can be removed.
_TEMP_SUFFIX = '.ride_mm_tmp'


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, but a file is replaced only by a whole one.

    The bytes go to a temporary file in the same folder and onto the disk
    before the file takes its name. A full disk or a killed process leaves
    what was there before.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes.

        Args:
            obj (bytes): The bytes.
            filepath (str or Path): Where to. Missing folders are made.

        Raises:
            OSError: If the bytes cannot be written. The message names the
                file.
        """
        # through a link, the file behind it is replaced, not the link
        path = osp.realpath(filepath)
        if osp.exists(path) and not osp.isfile(path):
            return super().put(obj, filepath)
        folder, name = osp.split(path)
        mkdir_or_exist(folder)
        # a name may have 255 bytes
        temp = osp.join(folder, f'.{name[:200]}.{uuid.uuid4().hex[:8]}{_TEMP_SUFFIX}')
        try:
            with open(temp, 'xb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        except OSError as error:
            raise OSError(
                error.errno, f'{error.strerror}. The previous file is unchanged', str(filepath)
            ) from error
        finally:
            if osp.exists(temp):
                os.remove(temp)
        _sync_folder(folder)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text.

        Args:
            obj (str): The text.
            filepath (str or Path): Where to. Missing folders are made.
            encoding (str): The encoding. Defaults to 'utf-8'.

        Raises:
            OSError: If the text cannot be written. The message names the
                file.
        """
        self.put(obj.encode(encoding), filepath)


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a local file whole or not at all.

    Args:
        path (str | Path): The file. Missing folders are made.
        content (str | bytes): Text, which is written as UTF-8, or bytes.

    Raises:
        OSError: If it cannot be written. The message names the file.
    """
    if isinstance(content, str):
        content = content.encode('utf-8')
    AtomicLocalBackend().put(content, path)


def _sync_folder(folder: str) -> None:
    """Put the new name itself onto the disk."""
    if not hasattr(os, 'O_DIRECTORY'):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # some file systems cannot, and the file itself is safe already
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str) -> list[str]:
    """Remove the temporary files of a process that was killed.

    Args:
        folder (str): A local folder.

    Returns:
        List[str]: The paths that were removed.
    """
    leftovers = glob.glob(osp.join(glob.escape(folder), f'.*{_TEMP_SUFFIX}'))
    for path in leftovers:
        os.remove(path)
    return leftovers


def install_atomic_backend() -> None:
    """Make MMEngine write local files with :class:`AtomicLocalBackend`."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    # backends that MMEngine has made already, for reuse
    cached = mmengine_io.backend_instances
    for key, backend in list(cached.items()):
        if type(backend) is LocalBackend:
            del cached[key]
