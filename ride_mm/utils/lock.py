"""One training at a time in a folder."""

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
    fcntl = None  # type: ignore[assignment]  # a module in the other case

# Open files of the folders that this process has locked.
_LOCKED: dict[str, IO] = {}


def lock_work_dir(work_dir: str) -> None:
    """Keep a work_dir for this process until it ends, however it ends.

    The lock is the system's: none is left by a process that was killed. File
    systems and systems without such locks (Windows) have none.

    Args:
        work_dir (str): The folder, which is made if it is not there.

    Raises:
        UserError: If another process has it.
    """
    if fcntl is None:
        return
    os.makedirs(work_dir, exist_ok=True)
    path = osp.join(work_dir, '.lock')
    if osp.realpath(path) in _LOCKED:
        # to close another open file of it would end the lock
        return
    file = open(path, 'a+')
    try:
        # unlike flock, not inherited by the workers of a loader
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
