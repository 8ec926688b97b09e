from .atomic_backend import AtomicLocalBackend, install_atomic_backend
from .checkpoint import (CheckpointError, install_checkpoint_loader,
                         load_checkpoint_file)
from .errors import UserError

__all__ = [
    'AtomicLocalBackend', 'CheckpointError', 'UserError',
    'install_atomic_backend', 'install_checkpoint_loader',
    'load_checkpoint_file'
]
