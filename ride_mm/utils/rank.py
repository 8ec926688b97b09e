"""The rank of this process, and its launcher."""

import os
import signal
import threading
import time

_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
_WATCH_SECONDS = 1


def is_main_process() -> bool:
    """Whether this is rank 0, known before the process group exists."""
    for name in _RANK_VARIABLES:
        if name in os.environ:
            return int(os.environ[name]) == 0
    return True


def end_with_launcher() -> None:
    """Send this process SIGTERM when its launcher, such as torchrun, is gone.

    Otherwise the ranks of a killed launcher would continue to train, alongside
    the run that resumes them.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
