"""Repairs of MMEngine 0.10.7 and MMPretrain 1.2.0, applied on import.

Each file repairs one thing, and can be deleted with the first release that
has it right. Their tests are in ``tests/test_compat`` and
``tests/test_inference.py``.
"""

from .atomic_backend import AtomicLocalBackend, install_atomic_backend
from .checkpoint_loading import CheckpointError, install_checkpoint_loader, load_checkpoint_file
from .config_names import install_config_names, register_models
from .hook_removal import install_hook_removal
from .inferencers import install_class_names_check, install_image_skipping, install_plain_inference
from .picture_names import install_picture_names
from .subset_copies import install_subset_copies
from .swin_windows import install_swin_windows

__all__ = ['AtomicLocalBackend', 'CheckpointError', 'install', 'load_checkpoint_file']


def install() -> None:
    """Apply all repairs."""
    # Checkpoints are read safely, and written whole or not at all.
    install_checkpoint_loader()
    install_atomic_backend()
    # get_subset() copies nothing of another dataset.
    install_subset_copies()
    # default_hooks.NAME=None removes any hook.
    install_hook_removal()
    # Inferencers go on after an unreadable image, check the number of class
    # names, and do not count multiply-accumulates.
    install_image_skipping()
    install_class_names_check()
    install_plain_inference()
    # `_base_ = 'ride_mm::NAME.py'`, `get_model(NAME)` and `list_models()`.
    install_config_names()
    register_models()
    # One picture per image, whatever the images are called.
    install_picture_names()
    # Exported Swin networks take any batch size.
    install_swin_windows()
