from .atomic_backend import AtomicLocalBackend, install_atomic_backend
from .checkpoint import (CheckpointError, install_checkpoint_loader,
                         load_checkpoint_file)
from .errors import UserError
from .hook_removal import install_hook_removal
from .images import (install_class_names_check, install_image_skipping,
                     install_plain_inference)
from .names import install_config_names, register_models
from .picture_names import install_picture_names
from .swin_windows import install_swin_windows

__all__ = [
    'AtomicLocalBackend', 'CheckpointError', 'UserError',
    'install_atomic_backend', 'install_checkpoint_loader',
    'install_class_names_check', 'install_config_names',
    'install_hook_removal', 'install_image_skipping', 'install_picture_names',
    'install_plain_inference', 'install_swin_windows', 'load_checkpoint_file',
    'register_models'
]
