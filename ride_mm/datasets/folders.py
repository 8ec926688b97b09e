"""Images of a folder with one sub-folder per class."""

import logging
import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps

from mmengine.fileio import LocalBackend, get_file_backend, isdir
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from ride_mm.utils.errors import UserError, name_some
from ride_mm.utils.rank import is_main_process

# Extensions that both Pillow and OpenCV read.
EXTENSIONS = tuple(
    '.jpg .jpeg .jpe .jfif .png .ppm .pgm .pbm .pnm '
    '.bmp .dib .tif .tiff .webp .gif .avif .jp2'.split()
)
_NAMED = 3


@dataclass
class Folder:
    """The images of a folder, and the files that are left out.

    Attributes:
        root (str): The folder.
        classes (list[str]): Names of the sub-folders, in alphabetic order.
        samples (list[tuple[str, str]]): Path below ``root`` and class of
            each image, sorted by class and path.
        skipped (list[str]): Files without an image extension.
        loose (list[str]): Files in ``root`` itself, which have no class.
        broken (list[str]): Links to nothing, or to a parent folder.
        hidden (list[str]): Folders whose names begin with a dot.
        hidden_images (list[str]): Images whose names begin with a dot.
    """

    root: str
    classes: list[str] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    hidden_images: list[str] = field(default_factory=list)

    def left_out(self) -> dict[str, list[str]]:
        """Describe what is left out.

        Returns:
            dict[str, list[str]]: A sentence for each kind, which names the
            first files, and all of its files.
        """
        kinds = Counter(osp.splitext(path)[1].lower() or 'no extension' for path in self.skipped)
        by_kind = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        extensions = ', '.join(f'{n} {kind}' for kind, n in by_kind)
        found = [
            (self.skipped, 'file', f' without an image extension ({extensions})'),
            (self.loose, 'file', ' outside the class folders'),
            (self.broken, 'broken or circular link', ''),
            (self.hidden, 'hidden folder', ''),
            (self.hidden_images, 'hidden image', ''),
        ]
        return {
            f'{self.root} leaves out {len(paths)} {noun}{"s" * (len(paths) > 1)}{text}: '
            f'{", ".join(paths[:_NAMED])}{", ..." * (len(paths) > _NAMED)}': paths
            for paths, noun, text in found
            if paths
        }

    def warn(self) -> None:
        """Log what is left out, in the main process only."""
        if is_main_process():
            for sentence in self.left_out():
                print_log(sentence, 'current', logging.WARNING)


def read_folder(root: str, is_image: Callable[[str], bool]) -> Folder:
    """List the classes and the images of a folder.

    Args:
        root (str): The folder, on a disk or any other backend of MMEngine.
        is_image (Callable): Whether a file name is that of an image.

    Returns:
        Folder: The images and what is left out.

    Raises:
        UserError: If there is no such folder, or no class or image in it.
    """
    if not isdir(root):
        raise UserError(f'Folder not found: {root}')
    backend = get_file_backend(root, enable_singleton=True)
    folder = Folder(root)
    if isinstance(backend, LocalBackend):
        _walk(folder, is_image)
    else:
        for path in backend.list_dir_or_file(root, recursive=True):
            _add(folder, path, is_image)
    folder.classes.sort()
    folder.samples.sort(key=lambda sample: (sample[1], sample[0]))
    if not folder.classes:
        raise UserError(f'{root} has no sub-folder: expected one per class')
    if not folder.samples:
        problem = f'{root}: none of its {len(folder.classes)} sub-folders holds an image.'
        raise UserError(' '.join([problem, *folder.left_out()]))
    return folder


def _walk(
    folder: Folder,
    is_image: Callable[[str], bool],
    inner: str = '',
    parents: tuple[tuple[int, int], ...] = (),
) -> None:
    """Add a folder on a disk, without calling ``stat`` for each file."""
    path = osp.join(folder.root, inner)
    here = os.stat(path)
    parents += ((here.st_dev, here.st_ino),)
    with os.scandir(path) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f'{inner}/{entry.name}'.lstrip('/')
        if entry.is_dir():
            if entry.name.startswith('.'):
                folder.hidden.append(name)
            elif entry.is_symlink() and (entry.stat().st_dev, entry.stat().st_ino) in parents:
                folder.broken.append(name)
            else:
                if not inner:
                    folder.classes.append(name)
                _walk(folder, is_image, name, parents)
        elif entry.name.startswith('.'):
            if is_image(entry.name):
                folder.hidden_images.append(name)
        elif entry.is_symlink() and not osp.exists(entry.path):
            folder.broken.append(name)
        else:
            _add(folder, name, is_image)


def _add(folder: Folder, path: str, is_image: Callable[[str], bool]) -> None:
    """Add a file, or a folder of another backend."""
    name, _, inner = path.partition('/')
    if inner and any(part.startswith('.') for part in path.split('/')[:-1]):
        folder.hidden.append(path)
    elif not inner and not osp.splitext(path)[1] and isdir(osp.join(folder.root, path)):
        folder.classes.append(path)
    elif not inner:
        folder.loose.append(path)
    elif is_image(path):
        folder.samples.append((path, name))
    elif not isdir(osp.join(folder.root, path)):
        folder.skipped.append(path)


def number_classes(folder: Folder, classes: Sequence[str] | None) -> list[str]:
    """Get the sub-folders of all classes in the order of their labels.

    Args:
        folder (Folder): The folder.
        classes (Sequence[str], optional): Names of all sub-folders in their
            order, some of which may be missing here, or other names for all
            sub-folders. None means the sub-folders in alphabetic order.

    Returns:
        list[str]: Names of the sub-folders.

    Raises:
        UserError: If a sub-folder is not among them.
    """
    if classes is None:
        return folder.classes
    extra = [name for name in folder.classes if name not in set(classes)]
    if len(extra) == len(folder.classes) == len(classes):
        return folder.classes
    if extra:
        raise UserError(
            f'{folder.root} has {len(extra)} class folders that '
            f'are not in the list of classes: {name_some(extra)}'
        )
    return list(classes)


def install_folder_reading() -> None:
    """Make ``CustomDataset``, ``ImageNet`` etc. read class folders as
    :class:`.LongTailList` does: without hidden folders, and with a warning
    about files that are left out."""
    original = CustomDataset._find_samples

    @wraps(original)
    def _find_samples(self) -> list[tuple]:
        if not self.with_label:
            return original(self)
        folder = read_folder(self.img_prefix, self.is_valid_file)
        folder.warn()
        classes = number_classes(folder, self.CLASSES)
        self.folder_to_idx = {name: i for i, name in enumerate(classes)}
        self._metainfo.setdefault('classes', tuple(classes))
        empty = sorted(set(folder.classes) - {name for _, name in folder.samples})
        if empty:
            print_log(
                f'{self.img_prefix} has {len(empty)} class folders without '
                f'an image: {name_some(empty)}',
                'current',
                logging.WARNING,
            )
        return [(path, self.folder_to_idx[name]) for path, name in folder.samples]

    CustomDataset._find_samples = _find_samples
