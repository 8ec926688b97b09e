"""Repairs of mmengine 0.10.7 and mmpretrain 1.2.0, applied on import.

These are the last releases of OpenMMLab; the maintained forks are at
onedl-mmengine 0.10.12 and onedl-mmpretrain 1.3.6. Each file repairs one
defect. Its docstring says which releases have it, which upstream issue or pull
request is about it, and when the file can be deleted. The tests are in
``tests/test_compat``, ``tests/test_inference.py`` and, for Swin,
``tests/test_models/test_export.py``.
"""

from .atomic_backend import AtomicLocalBackend, install_atomic_backend
from .checkpoint_loading import CheckpointError, install_checkpoint_loader, load_checkpoint_file
from .config_names import install_config_names
from .config_text import install_config_text
from .hook_removal import install_hook_removal
from .inferencers import install_class_names_check, install_image_skipping, install_plain_inference
from .picture_names import install_picture_names
from .subset_copies import install_subset_copies
from .swin_windows import install_swin_windows

__all__ = ['AtomicLocalBackend', 'CheckpointError', 'install', 'load_checkpoint_file']


def install() -> None:
    """Apply all repairs."""
    # Checkpoints are loaded as data, and written whole or not at all.
    install_checkpoint_loader()
    install_atomic_backend()
    # get_subset() does not mix up datasets.
    install_subset_copies()
    # default_hooks.NAME=None removes any hook.
    install_hook_removal()
    # Inferencers continue after an unreadable image, check the number of class
    # names, and do not count multiply-accumulates.
    install_image_skipping()
    install_class_names_check()
    install_plain_inference()
    # `_base_ = 'ride_mm::NAME.py'`
    install_config_names()
    # Checkpoints do not format the config again and again.
    install_config_text()
    # Pictures of images with equal names do not overwrite each other.
    install_picture_names()
    # Exported Swin networks accept any batch size.
    install_swin_windows()
