from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from mmengine.utils import digit_version

__version__ = '0.2.0'


def check_versions(supported: Iterable[tuple[ModuleType, str, str]]) -> None:
    """Check the packages that this one stands on.

    The maintained forks of OpenMMLab's packages (onedl-mmengine, onedl-mmcv
    and onedl-mmpretrain) have the same modules and go on counting: where one
    is installed, the limit does not hold.

    Args:
        supported (Iterable[tuple]): Modules, each with its first version and
            the first one of OpenMMLab that is too new.

    Raises:
        ImportError: If a version is another one.
    """
    for module, minimum, limit in supported:
        name, found = module.__name__, digit_version(module.__version__)
        if found < digit_version(minimum) or (
            found >= digit_version(limit) and not _has_fork(name)
        ):
            raise ImportError(
                f'ride_mm needs {name}>={minimum}, <{limit}, found {module.__version__}'
            )


def _has_fork(name: str) -> bool:
    try:
        return bool(version(f'onedl-{name}'))
    except PackageNotFoundError:
        return False
