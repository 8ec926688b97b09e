"""RIDE for MMPretrain: importing it registers every part."""

import importlib
import io
import warnings
from contextlib import redirect_stdout

with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
    # mmcv-lite says on import what it lacks, and onedl-mmpretrain prints it;
    # nothing here needs it.
    warnings.filterwarnings('ignore', message='Fail to import')
    try:
        import mmcv
        import mmengine
        import mmpretrain
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'ride_mm needs {error.name}: pip install torch torchvision mmengine mmcv-lite '
            "mmpretrain 'setuptools<82'. `python tools/doctor.py` says what else is missing.",
            name=error.name,
        ) from error

    from .version import __version__, check_versions

    check_versions(
        [
            (mmengine, '0.10.6', '1.0.0'),
            (mmcv, '2.0.1', '2.4.0'),
            (mmpretrain, '1.2.0', '2.0.0'),
        ]
    )
    for _part in ('datasets', 'models'):
        importlib.import_module(f'mmpretrain.{_part}')

from . import compat  # noqa: E402
from .utils.config_names import register_models  # noqa: E402

compat.install()
register_models()

from .datasets import *  # noqa: E402,F401,F403
from .engine import *  # noqa: E402,F401,F403
from .evaluation import *  # noqa: E402,F401,F403
from .models import *  # noqa: E402,F401,F403

__all__ = ['__version__']
