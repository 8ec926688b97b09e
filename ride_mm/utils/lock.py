"""One run at a time in a work_dir."""

import errno
import os
import os.path as osp
import socket
import time
from typing import IO

from .errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Open lock files of this process, by path.
_LOCKED: dict[str, IO] = {}


def lock_work_dir(work_dir: str) -> None:
    """Lock a work_dir until this process ends.

    The operating system holds the lock, so it ends even if the process is
    killed. Nothing is locked on Windows or on file systems without locks.

    Args:
        work_dir (str): The folder. It is created if it does not exist.

    Raises:
        UserError: If another process has locked it.
    """
    if fcntl is None:
        return
    os.makedirs(work_dir, exist_ok=True)
    path = osp.join(work_dir, '.lock')
    if osp.realpath(path) in _LOCKED:
        # closing a second handle of the file would release the lock
        return
    file = open(path, 'a+')
    try:
        # unlike flock's, not inherited by the workers of a dataloader
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return
        with file:
            file.seek(0)
            owner = file.read().strip()
        raise UserError(
            f'{work_dir} is in use by {owner}: two runs would overwrite each '
            "other's checkpoints. Wait for it to end, or choose another "
            'folder with --work-dir.'
        ) from error
    file.truncate(0)
    file.write(
        f'process {os.getpid()} on {socket.gethostname()} since '
        f'{time.strftime("%Y-%m-%d %H:%M:%S")}\n'
    )
    file.flush()
    _LOCKED[osp.realpath(path)] = file
