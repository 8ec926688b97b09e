"""What a folder with one sub-folder per class holds."""

import logging
import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mmengine.fileio import LocalBackend, get_file_backend, isdir
from mmengine.logging import print_log

from ride_mm.utils.errors import UserError
from ride_mm.utils.rank import is_main_process

from .class_counts import name_some

# What Pillow and OpenCV both read.
EXTENSIONS = (
    '.jpg',
    '.jpeg',
    '.jpe',
    '.jfif',
    '.png',
    '.ppm',
    '.pgm',
    '.pbm',
    '.pnm',
    '.bmp',
    '.dib',
    '.tif',
    '.tiff',
    '.webp',
    '.gif',
    '.avif',
    '.jp2',
)
_NAMED = 3


@dataclass
class Folder:
    """The images of a folder, and what is none.

    Attributes:
        root (str): The folder.
        classes (list[str]): Names of the sub-folders, in alphabetic order.
        samples (list[tuple[str, str]]): Path below ``root``, and class, of
            each image, ordered by class and path.
        skipped (list[str]): Files that are no image by their name.
        loose (list[str]): Files in ``root`` itself, which have no class.
        broken (list[str]): Links that lead nowhere, or to a folder above.
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
        """Tell what is left out.

        Returns:
            dict[str, list[str]]: A sentence for each kind and all of its
            files, which it names the first of; empty if nothing is.
        """
        kinds = Counter(osp.splitext(path)[1].lower() or 'no extension' for path in self.skipped)
        by_kind = ', '.join(
            f'{n} {kind}' for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        )
        found = [
            (self.skipped, 'file', f' without an image extension ({by_kind})'),
            (self.loose, 'file', ' outside the class folders'),
            (self.broken, 'broken or circular link', ''),
            (self.hidden, 'hidden folder', ''),
            (self.hidden_images, 'hidden image', ''),
        ]
        return {
            f'{self.root} leaves out {len(paths)} {noun}'
            f'{"s" * (len(paths) > 1)}{text}: {", ".join(paths[:_NAMED])}'
            f'{", ..." * (len(paths) > _NAMED)}': paths
            for paths, noun, text in found
            if paths
        }


def read_folder(root: str, is_image: Callable[[str], bool]) -> Folder:
    """List the classes and the images of a folder.

    Args:
        root (str): The folder, on a disk or any storage of MMEngine.
        is_image (callable): Tells by a file's name whether it is an image.

    Returns:
        Folder: What was found.

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
        raise UserError(
            ' '.join(
                [
                    f'{root}: none of its {len(folder.classes)} sub-folders holds an image.',
                    *folder.left_out(),
                ]
            )
        )
    return folder


def _walk(
    folder: Folder, is_image: Callable[[str], bool], inner: str = '', above: tuple[tuple, ...] = ()
) -> None:
    """Go through a folder on a disk, without a look at each file."""
    path = osp.join(folder.root, inner)
    here = os.stat(path)
    above += ((here.st_dev, here.st_ino),)
    with os.scandir(path) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        name = f'{inner}/{entry.name}'.lstrip('/')
        if entry.is_dir():
            if entry.name.startswith('.'):
                folder.hidden.append(name)
            elif entry.is_symlink() and (entry.stat().st_dev, entry.stat().st_ino) in above:
                folder.broken.append(name)
            else:
                if not inner:
                    folder.classes.append(name)
                _walk(folder, is_image, name, above)
        elif entry.name.startswith('.'):
            if is_image(entry.name):
                folder.hidden_images.append(name)
        elif entry.is_symlink() and not osp.exists(entry.path):
            folder.broken.append(name)
        else:
            _add(folder, name, is_image)


def _add(folder: Folder, path: str, is_image: Callable[[str], bool]) -> None:
    """Put a file, or a folder of other storage, where it belongs."""
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
    """Say which class has which number.

    Args:
        folder (Folder): The folder.
        classes (Sequence[str], optional): Names of all sub-folders in their
            order, of which this folder may lack some, or other names for all
            of its sub-folders. Defaults to None, which means those of the
            folder.

    Returns:
        list[str]: Names of the sub-folders.

    Raises:
        UserError: If there is a sub-folder that is not among them.
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


def warn_of(folder: Folder) -> None:
    """Say what of a folder is left out, in one process of all."""
    if is_main_process():
        for sentence in folder.left_out():
            print_log(sentence, 'current', logging.WARNING)
