"""Which process this is, and whose."""

import os
import signal
import threading
import time

_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
_WATCH_SECONDS = 1


def is_main_process() -> bool:
    """Whether this is rank 0, before the process group exists."""
    for name in _RANK_VARIABLES:
        if name in os.environ:
            return int(os.environ[name]) == 0
    return True


def end_with_launcher() -> None:
    """Let this process end, as by SIGTERM, when torchrun is killed.

    Without it the ranks of a killed launcher train on to the end, beside the
    run that resumes theirs.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
