"""RIDE for MMPretrain: importing it registers every part."""
import importlib
import io
import warnings
from contextlib import redirect_stdout

with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
    # mmcv-lite says on import what it lacks, and onedl-mmpretrain prints it;
    # nothing here needs it.
    warnings.filterwarnings('ignore', message='Fail to import')
    import mmcv
    import mmengine
    import mmpretrain

    from .version import __version__, check_versions
    check_versions([
        (mmengine, '0.10.6', '1.0.0'),
        (mmcv, '2.0.1', '2.4.0'),
        (mmpretrain, '1.2.0', '2.0.0'),
    ])
    for _part in ('datasets', 'models'):
        importlib.import_module(f'mmpretrain.{_part}')

from .utils import install_atomic_backend  # noqa: E402
from .utils import (install_checkpoint_loader, install_class_names_check,
                    install_config_names, install_hook_removal,
                    install_image_skipping, install_picture_names,
                    install_plain_inference, install_swin_windows,
                    register_models)

# Checkpoints are read safely and written whole, whoever does it.
install_checkpoint_loader()
install_atomic_backend()
install_hook_removal()
# An image that cannot be read does not end an inferencer's list, class names
# fit the model, and nothing is counted.
install_image_skipping()
install_class_names_check()
install_plain_inference()
# `ride_mm::NAME.py` in _base_, and `get_model(NAME)`.
install_config_names()
register_models()
# One picture for each image.
install_picture_names()
# Swin networks can be exported.
install_swin_windows()

from .datasets import *  # noqa: E402,F401,F403
from .engine import *  # noqa: E402,F401,F403
from .evaluation import *  # noqa: E402,F401,F403
from .models import *  # noqa: E402,F401,F403

__all__ = ['__version__']
