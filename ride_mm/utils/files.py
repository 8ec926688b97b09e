"""Write local files and folders whole or not at all."""

import glob
import os
import os.path as osp
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

# Hidden, so that no listing takes such a file for a checkpoint, and unlike the
# names of other programs, so that it can be removed.
_TEMP_SUFFIX = '.ride_mm_tmp'


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a local file whole or not at all.

    The bytes go to a temporary file in the same folder and onto the disk
    before the file takes its name. A full disk or a killed process leaves
    the previous file.

    Args:
        path (str | Path): The file. Missing folders are created. Through a
            link, the file that it points to is replaced. Anything but a file,
            such as ``/dev/stdout``, is written in place.
        content (str | bytes): Text, which is written as UTF-8, or bytes.

    Raises:
        OSError: If it cannot be written. The message names the file.
    """
    data = content.encode('utf-8') if isinstance(content, str) else content
    if osp.exists(path) and not osp.isfile(path):
        with open(path, 'wb') as file:
            file.write(data)
        return
    target = osp.realpath(path)
    folder, name = osp.split(target)
    os.makedirs(folder, exist_ok=True)
    # a name may have 255 bytes
    temp = osp.join(folder, f'.{name[:200]}.{uuid.uuid4().hex[:8]}{_TEMP_SUFFIX}')
    try:
        with open(temp, 'xb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, target)
    except OSError as error:
        raise OSError(
            error.errno, f'{error.strerror}. The previous file is unchanged', str(path)
        ) from error
    finally:
        if osp.exists(temp):
            os.remove(temp)
    _sync_folder(folder)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Make a folder that takes its name once all is in it.

    Args:
        folder (str | Path): The folder. Missing parents are created.

    Yields:
        Path: A temporary folder beside it, to write into. If there is an error, it
        is removed.

    Raises:
        UserError: If the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f'{folder} exists and is not overwritten')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temp:
        content = Path(temp, folder.name)
        content.mkdir()
        yield content
        content.rename(folder)


def _sync_folder(folder: str) -> None:
    """Write the new name to the disk as well."""
    if not hasattr(os, 'O_DIRECTORY'):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some file systems cannot, and the content is on the disk already.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str) -> list[str]:
    """Remove temporary files of processes that were killed while writing.

    Args:
        folder (str): A local folder.

    Returns:
        list[str]: The paths that were removed.
    """
    leftovers = glob.glob(osp.join(glob.escape(folder), f'.*{_TEMP_SUFFIX}'))
    for path in leftovers:
        os.remove(path)
    return leftovers
