"""Which process this is."""
import os

_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_main_process() -> bool:
    """Whether this is rank 0, before the process group exists."""
    for name in _RANK_VARIABLES:
        if name in os.environ:
            return int(os.environ[name]) == 0
    return True
