"""What is wrong with the images and labels of the data sets of a training."""

import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import (
    Any,
    NamedTuple,
)

import mmcv
import numpy as np
from mmengine.dataset import ConcatDataset
from mmengine.fileio import get, get_file_backend
from mmpretrain.datasets import CustomDataset
from PIL import Image

from ride_mm.compat.inferencers import describe_unreadable
from ride_mm.utils.errors import UserError, find_places, user_message

from .annotations import read_annotations
from .class_counts import count_labels, get_class_counts, get_labels, stated_counts
from .folders import read_folder

# What Pillow reads to the end: others it may not know as OpenCV does.
_CHECKED_FORMATS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'BMP')
_BATCH = 1024

# Is given the name of a split, then results and how many there will be, and
# hands them on.
Progress = Callable[[str], Callable[[Iterable, int], Iterable]]


@dataclass
class Finding:
    """One kind of thing to look at.

    Attributes:
        split (str): Where: 'train', 'val', 'test', or two of them.
        what (str): What was found.
        advice (str): What to do about it.
        places (list[str]): Files, with their lines where they are in a list.
        error (bool): Whether it should be mended before training.
    """

    split: str
    what: str
    advice: str
    places: list[str] = field(default_factory=list)
    error: bool = True


class Record(NamedTuple):
    """An image of a data set that holds images itself.

    Attributes:
        dataset (BaseDataset): The data set.
        index (int): Its place there.
        label (int): Its label.
        path (str, optional): Its file; None for images in memory.
    """

    dataset: Any
    index: int
    label: int
    path: str | None


def leaves(dataset: Any) -> Iterator[Any]:
    """Find the data sets that hold the images, inside of all wrappers.

    Args:
        dataset: A data set or a wrapper of data sets.

    Yields:
        BaseDataset: Each data set, once for each time that it is wrapped.
    """
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    else:
        yield dataset


def _path_of(dataset: Any, index: int) -> str | None:
    get_info = getattr(dataset, 'get_data_info', None)
    return None if get_info is None else get_info(index).get('img_path')


class Split:
    """A data set of a training and its images.

    Args:
        name (str): 'train', 'val' or 'test'.
        dataset: The data set, or a wrapper: an image that a wrapper repeats
            counts once.
    """

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self.dataset = dataset
        self.leaves = list(leaves(dataset))
        self.records = [
            Record(leaf, i, label, _path_of(leaf, i))
            for leaf in self.leaves
            for i, label in enumerate(get_labels(leaf).tolist())
        ]
        self.training_counts = get_class_counts(dataset)
        self.classes = getattr(dataset, 'metainfo', {}).get('classes')
        self._lines: dict[tuple, int] | None = None

    @property
    def counts(self) -> list[int]:
        """list[int]: Images of this split in each class."""
        return count_labels([record.label for record in self.records], len(self.training_counts))

    def class_name(self, label: int) -> str:
        """Name a class, by its number where it has no name."""
        names = self.classes
        named = names is not None and label < len(names)
        return str(names[label]) if named else f'class {label}'

    def line(self, record: Record) -> str:
        """Say which line of a list an image is from, '' if of none."""
        if self._lines is None:
            self._lines = {}
            for leaf in self.leaves:
                self._find_lines(leaf)
        line = self._lines.get((id(record.dataset), record.index))
        return f'{record.dataset.ann_file}:{line}: ' if line else ''

    def _find_lines(self, leaf: Any) -> None:
        """Find the line of each image of a list."""
        if not isinstance(leaf, CustomDataset) or not leaf.ann_file:
            return
        found = defaultdict(list)
        backend = get_file_backend(leaf.img_prefix, enable_singleton=True)
        for path, label, line in zip(*read_annotations(leaf.ann_file)):
            path = backend.join_path(leaf.img_prefix, path)
            found[path, label].append(line)
        for record in self.records:
            lines = found[record.path, record.label]
            if record.dataset is leaf and lines:
                # what is there twice has two lines
                self._lines[id(leaf), record.index] = lines.pop(0)

    def place(self, record: Record) -> str:
        """Say where an image is: its file, its class and, of a list, the
        line."""
        image = record.path or (f'image {record.index} of {type(record.dataset).__name__}')
        return f'{self.line(record)}{image}, {self.class_name(record.label)}'


def check_folders(split: Split) -> list[Finding]:
    """Tell what data sets of class folders leave out.

    Args:
        split (Split): The images.

    Returns:
        list[Finding]: A note for each kind of file.
    """
    roots = {
        leaf.img_prefix: leaf.is_valid_file
        for leaf in split.leaves
        if isinstance(leaf, CustomDataset) and not leaf.ann_file
    }
    return [
        Finding(
            split.name,
            sentence,
            'move or convert them if they should be read, or remove them',
            paths,
            error=False,
        )
        for root, is_image in roots.items()
        for sentence, paths in read_folder(root, is_image).left_out().items()
    ]


def check_same_images(split: Split, images: dict[Hashable, list[Record]], by: str) -> list[Finding]:
    """Find images that a split holds more than once.

    Args:
        split (Split): The images.
        images (dict[Hashable, list[Record]]): Those that are the same.
        by (str): What makes them so, such as 'path'.

    Returns:
        list[Finding]: An error for images under several labels, a note for
        others.
    """
    several = [same for same in images.values() if len(same) > 1]
    conflicts = [same for same in several if len({image.label for image in same}) > 1]
    twice = [same for same in several if len({image.label for image in same}) == 1]
    found = [
        (
            conflicts,
            'images under several labels',
            'keep each image under its correct label only',
            True,
        ),
        (
            twice,
            'images more than once under one label',
            'keep one copy of each, unless the copies are intended',
            False,
        ),
    ]
    return [
        Finding(
            split.name,
            f'{what}, by their {by}: {len(groups)}',
            advice,
            [split.place(image) for same in groups for image in same],
            error,
        )
        for groups, what, advice, error in found
        if groups
    ]


def check_overlap(
    train: Split,
    train_images: dict[Hashable, list[Record]],
    other: Split,
    images: dict[Hashable, list[Record]],
    by: str,
) -> list[Finding]:
    """Find images that are trained on and tested with.

    Args:
        train (Split): The training images.
        train_images (dict[Hashable, list[Record]]): Those that are the same.
        other (Split): Validation or test images.
        images (dict[Hashable, list[Record]]): Those that are the same.
        by (str): What makes them so, such as 'path'.

    Returns:
        list[Finding]: One, or none.
    """
    common = [key for key in images if key in train_images]
    if not common:
        return []
    places = [
        split.place(found[key][0])
        for key in common
        for split, found in ((other, images), (train, train_images))
    ]
    return [
        Finding(
            f'{train.name}, {other.name}',
            f'images of {other.name} that are in {train.name} as well, by '
            f'their {by}: {len(common)}',
            'remove them from one of the two sets: accuracy on them says nothing about new images',
            places,
        )
    ]


def check_classes(train: Split, other: Split) -> list[Finding]:
    """Compare the classes of a validation or test set with the training's.

    Args:
        train (Split): The training images.
        other (Split): Validation or test images.

    Returns:
        list[Finding]: Errors for other names and class counts, a note for
        classes without an image.
    """
    split, findings = f'{train.name}, {other.name}', []
    names = [split.classes and list(split.classes) for split in (train, other)]
    if all(names) and names[0] != names[1]:
        label = next(
            (i for i, pair in enumerate(zip(*names)) if pair[0] != pair[1]), min(map(len, names))
        )
        findings.append(
            Finding(
                split,
                f'the class names differ, first for label {label}: '
                f'{train.class_name(label)!r} in {train.name}, '
                f'{other.class_name(label)!r} in {other.name}',
                'give both the same classes=[...]',
            )
        )
    stated = stated_counts(other.dataset)
    # A training tells its validation of `indices`.
    known = [train.training_counts] + [
        getattr(leaf, 'whole_class_counts', None) for leaf in train.leaves
    ]
    if stated is not None and list(stated) not in known:
        findings.append(
            Finding(
                split,
                f'{other.name} states other numbers of training images '
                f'per class than {train.name} has, {sum(stated)} in '
                f'{len(stated)} classes against {sum(train.training_counts)} '
                f'in {len(train.training_counts)}',
                'give it class_counts=<the training list or folder>',
            )
        )
    empty = [other.class_name(label) for label, count in enumerate(other.counts) if not count]
    if empty:
        findings.append(
            Finding(
                other.name,
                f'classes without an image: {len(empty)}',
                'means over classes leave them out; add images of these classes if possible',
                empty,
                error=False,
            )
        )
    return findings


def by_path(split: Split) -> dict[str, list[Record]]:
    """Group the images of a split by their files."""
    images = defaultdict(list)
    for record in split.records:
        if record.path is not None:
            images[os.path.normpath(record.path)].append(record)
    return images


def check_paths(splits: Sequence[Split]) -> list[Finding]:
    """Check data sets without reading an image.

    Args:
        splits (Sequence[Split]): The training set first.

    Returns:
        list[Finding]: Images under several labels or in several splits, by
        path, and classes that differ.
    """
    train, *others = splits
    images = {split.name: by_path(split) for split in splits}
    findings = []
    for split in splits:
        findings += check_same_images(split, images[split.name], 'path')
    for other in others:
        findings += check_overlap(train, images[train.name], other, images[other.name], 'path')
        findings += check_classes(train, other)
    return findings


def read_image(record: Record) -> tuple[bytes | None, str | None]:
    """Read and decode an image.

    Args:
        record (Record): The image.

    Returns:
        tuple: A hash of its content, and what is wrong with it: None for
        either that there is not.
    """
    if record.path is None:
        if not hasattr(record.dataset, 'get_data_info'):
            return None, None
        image = record.dataset.get_data_info(record.index).get('img')
        if image is None:
            return None, None
        return hashlib.sha256(np.asarray(image).tobytes()).digest(), None
    try:
        content = get(record.path)
        if mmcv.imfrombytes(content) is None:
            raise ValueError('no image')
    except MemoryError:
        raise
    except Exception as error:  # of OpenCV, of any storage
        return None, describe_unreadable(record.path, error)
    return hashlib.sha256(content).digest(), _find_damage(record.path, content)


def _find_damage(path: str, content: bytes) -> str | None:
    """Find what OpenCV passes over: it fills up an image that ends early."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of size, of odd metadata
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.format in _CHECKED_FORMATS:
                    image.draft(image.mode, (1, 1))
                    image.load()
        except Image.UnidentifiedImageError:
            return None
        except (OSError, SyntaxError) as error:
            return f'{path} is damaged: {error}'
        except Exception:  # too large for Pillow, say
            return None
    return None


def find_unreadable(dataset: Any, most: int = 20_000) -> tuple[int, list[str]]:
    """Find files that a data set could not load, without decoding them.

    Each is opened and its header read by Pillow, several thousand a second.
    Those that Pillow does not know are loaded as the data set itself would.

    Args:
        dataset: A data set or a wrapper of data sets.
        most (int): Of more files, so many at most are looked at, evenly
            spread. Defaults to 20,000.

    Returns:
        tuple: How many files were looked at, and what loading says of each
        that cannot be loaded. Images in memory and on other storage are not
        looked at.
    """
    files = {}
    for leaf in leaves(dataset):
        for index in range(len(leaf)):
            files[_path_of(leaf, index)] = leaf, index
    files.pop(None, None)
    paths = list(files)[:: max(1, -(-len(files) // most))]
    if not paths or not any(map(os.path.exists, paths[:_BATCH])):
        return 0, []
    problems = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for path, known in zip(paths, pool.map(_has_header, paths)):
            if not known:
                leaf, index = files[path]
                try:
                    leaf[index]
                except UserError as error:
                    problems.append(user_message(error))
                except Exception as error:  # of any transform
                    problems.append(f'{path} cannot be loaded: {type(error).__name__}: {error}')
    return len(paths), problems


def _has_header(path: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of size, of odd metadata
        try:
            with Image.open(path):
                return True
        except Exception:  # Pillow raises many kinds
            return False


def check_images(
    split: Split, progress: Progress
) -> tuple[dict[bytes, list[Record]], list[Finding]]:
    """Read all images of a split.

    Args:
        split (Split): The images.
        progress (callable): Given the name of the split, what goes through
            results, of which it is told the number, and shows how far it is.

    Returns:
        tuple: The images by their content, and findings: images that cannot
        be read and such as are damaged.
    """
    files = [*by_path(split).values()]
    files += [[image] for image in split.records if image.path is None]
    images, unreadable, damaged = defaultdict(list), [], []
    results = progress(split.name)(_read_all([same[0] for same in files]), len(files))
    for same, (content, problem) in zip(files, results):
        if content is not None:
            images[content] += same
        if problem:
            places = [f'{split.line(image)}{problem}' for image in same]
            (unreadable if content is None else damaged).extend(places)
    findings = [
        Finding(split.name, f'{what}: {len(places)}', advice, places)
        for places, what, advice in (
            (
                unreadable,
                'images that cannot be read',
                'replace or remove them: training would stop there',
            ),
            (
                damaged,
                'images that are damaged',
                'replace or remove them: the missing part would be trained on as grey',
            ),
        )
        if places
    ]
    return images, findings


def _read_all(records: Sequence[Record]) -> Iterator[tuple]:
    """Read images in threads: OpenCV, Pillow and hashlib release Python's
    lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(records), _BATCH):
            yield from pool.map(read_image, records[start : start + _BATCH])


def check_data(
    datasets: dict[str, Callable[[], Any]], progress: Progress
) -> tuple[list[Split], list[Finding]]:
    """Check the data sets of a training and read all their images.

    Args:
        datasets (dict[str, callable]): By name what builds each data set.
        progress (callable): See :func:`check_images`.

    Returns:
        tuple: The splits that could be loaded, and all findings.
    """
    splits, findings = [], []
    for name, build in datasets.items():
        try:
            splits.append(Split(name, build()))
            findings += check_folders(splits[-1])
        except UserError as error:
            findings.append(
                Finding(
                    name,
                    user_message(error),
                    'fix this first: the data set cannot be loaded',
                    find_places(error),
                )
            )
    images = {}
    for split in splits:
        images[split.name], found = check_images(split, progress)
        findings += found
        findings += check_same_images(split, images[split.name], 'content')
    if splits:
        train, *others = splits
        for other in others:
            findings += check_overlap(
                train, images[train.name], other, images[other.name], 'content'
            )
            findings += check_classes(train, other)
    return splits, findings
