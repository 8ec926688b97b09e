"""Checks of the images and labels of training, validation and test sets."""

import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import mmcv
import numpy as np
from mmengine.dataset import ConcatDataset
from mmengine.fileio import get, get_file_backend
from mmpretrain.datasets import CustomDataset
from PIL import Image

from ride_mm.utils.errors import UserError, describe_unreadable, find_places, user_message
from ride_mm.utils.progress import track

from .annotations import read_annotations
from .class_counts import count_labels, get_class_counts, get_labels, stated_counts
from .folders import read_folder

# Formats that Pillow decodes completely; it may not know others as OpenCV does.
_CHECKED_FORMATS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'BMP')
_BATCH = 1024


@dataclass
class Finding:
    """One kind of problem in the data.

    Attributes:
        split (str): 'train', 'val' or 'test', or two of them.
        what (str): The problem.
        advice (str): What to do about it.
        places (list[str]): Files, with the line if they are in a list.
        error (bool): Whether it should be fixed before training.
    """

    split: str
    what: str
    advice: str
    places: list[str] = field(default_factory=list)
    error: bool = True


def _count(
    split: str, what: str, groups: list[list[str]], advice: str, error: bool = True
) -> list[Finding]:
    """Make a finding of groups of places, if there are any."""
    places = [place for group in groups for place in group]
    return [Finding(split, f'{what}: {len(groups)}', advice, places, error)] if groups else []


class Record(NamedTuple):
    """An image: its dataset (not a wrapper), position there, label and file;
    ``path`` is None for images in memory."""

    dataset: Any
    position: int
    label: int
    path: str | None


Images = Mapping[Any, list[Record]]


def leaves(dataset: Any) -> Iterator[Any]:
    """Find the datasets that hold the images, inside all wrappers.

    Args:
        dataset: A dataset or dataset wrapper.

    Yields:
        BaseDataset: Each dataset; more than once if it is concatenated more
        than once.
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


def _path_of(dataset: Any, position: int) -> str | None:
    get_info = getattr(dataset, 'get_data_info', None)
    return None if get_info is None else get_info(position).get('img_path')


class Split:
    """A training, validation or test set and its images.

    Args:
        name (str): 'train', 'val' or 'test'.
        dataset: The dataset, or a wrapper; images that a wrapper repeats
            count once.
    """

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self.dataset = dataset
        self.leaves = list(leaves(dataset))
        self.records = [
            Record(leaf, position, label, _path_of(leaf, position))
            for leaf in self.leaves
            for position, label in enumerate(get_labels(leaf).tolist())
        ]
        self.training_counts = get_class_counts(dataset)
        self.classes = getattr(dataset, 'metainfo', {}).get('classes')

    @property
    def counts(self) -> list[int]:
        """list[int]: Images of this split per class."""
        return count_labels([record.label for record in self.records], len(self.training_counts))

    def class_name(self, label: int) -> str:
        """Get the name of a class, or ``'class {label}'``."""
        names = self.classes or ()
        return str(names[label]) if label < len(names) else f'class {label}'

    @cached_property
    def _lines(self) -> dict[tuple[int, int], int]:
        """Line of each image that is in a list, by dataset and position."""
        lines = {}
        for leaf in self.leaves:
            if not isinstance(leaf, CustomDataset) or not leaf.ann_file:
                continue
            found = defaultdict(list)
            backend = get_file_backend(leaf.img_prefix, enable_singleton=True)
            for path, label, line in zip(*read_annotations(leaf.ann_file)):
                found[backend.join_path(leaf.img_prefix, path), label].append(line)
            for record in self.records:
                same = found[record.path, record.label]
                if record.dataset is leaf and same:
                    # The next record with this path and label is on another line.
                    lines[id(leaf), record.position] = same.pop(0)
        return lines

    def line(self, record: Record) -> str:
        """Get ``'{list}:{line}: '`` of an image, or '' if it is not in a list."""
        line = self._lines.get((id(record.dataset), record.position))
        return f'{record.dataset.ann_file}:{line}: ' if line else ''

    def place(self, record: Record) -> str:
        """Get the line in the list, the file and the class of an image."""
        image = record.path or f'image {record.position} of {type(record.dataset).__name__}'
        return f'{self.line(record)}{image}, {self.class_name(record.label)}'

    def by_path(self) -> Images:
        """Group the images by their files."""
        images = defaultdict(list)
        for record in self.records:
            if record.path is not None:
                images[os.path.normpath(record.path)].append(record)
        return images


def check_folders(split: Split) -> list[Finding]:
    """Find files that datasets of class folders leave out."""
    roots = {
        leaf.img_prefix: leaf.is_valid_file
        for leaf in split.leaves
        if isinstance(leaf, CustomDataset) and not leaf.ann_file
    }
    advice = 'move or convert them if they should be read, or remove them'
    return [
        Finding(split.name, sentence, advice, paths, error=False)
        for root, is_image in roots.items()
        for sentence, paths in read_folder(root, is_image).left_out().items()
    ]


def check_classes(train: Split, other: Split) -> list[Finding]:
    """Compare the classes of a validation or test set with the training set's."""
    split, findings = f'{train.name}, {other.name}', []
    names, others = list(train.classes or ()), list(other.classes or ())
    if names and others and names != others:
        shorter = min(len(names), len(others))
        label = next((i for i in range(shorter) if names[i] != others[i]), shorter)
        what = (
            f'the class names differ, first for label {label}: {train.class_name(label)!r} in '
            f'{train.name}, {other.class_name(label)!r} in {other.name}'
        )
        findings.append(Finding(split, what, 'give both the same classes=[...]'))
    stated = stated_counts(other.dataset)
    # With `indices`, validation may state the counts of the whole training set.
    known = [getattr(leaf, 'whole_class_counts', None) for leaf in train.leaves]
    if stated is not None and list(stated) not in [train.training_counts, *known]:
        what = (
            f'the training images per class that {other.name} states differ from those of '
            f'{train.name}: {sum(stated)} in {len(stated)} classes against '
            f'{sum(train.training_counts)} in {len(train.training_counts)}'
        )
        advice = 'give it class_counts=<the training list or folder>'
        findings.append(Finding(split, what, advice))
    empty = [[other.class_name(label)] for label, count in enumerate(other.counts) if not count]
    advice = 'means over classes leave them out; add images of these classes if possible'
    return findings + _count(other.name, 'classes without an image', empty, advice, error=False)


def _compare(splits: Sequence[Split], images: Sequence[Images], by: str) -> list[Finding]:
    """Find equal images within and across splits, and classes that differ.

    Args:
        splits (Sequence[Split]): The training set first.
        images (Sequence[Images]): Equal images of each split.
        by (str): What makes them equal, 'path' or 'content'.
    """
    findings = []
    for split, found in zip(splits, images):
        conflicts: list[list[str]] = []
        repeated: list[list[str]] = []
        for same in found.values():
            if len(same) > 1:
                one_label = len({image.label for image in same}) == 1
                (repeated if one_label else conflicts).append([split.place(i) for i in same])
        what = f'images under several labels, by their {by}'
        advice = 'keep each image under its correct label only'
        findings += _count(split.name, what, conflicts, advice)
        what = f'images more than once under one label, by their {by}'
        advice = 'keep one copy of each, unless the copies are intended'
        findings += _count(split.name, what, repeated, advice, error=False)
    for other, found in zip(splits[1:], images[1:]):
        train, trained = splits[0], images[0]
        common = [
            [other.place(found[key][0]), train.place(trained[key][0])]
            for key in found
            if key in trained
        ]
        what = f'images of {other.name} that are in {train.name} as well, by their {by}'
        advice = (
            'remove them from one of the two sets: accuracy on them says nothing about new images'
        )
        findings += _count(f'{train.name}, {other.name}', what, common, advice)
        findings += check_classes(train, other)
    return findings


def check_paths(splits: Sequence[Split]) -> list[Finding]:
    """Check datasets without reading an image.

    Args:
        splits (Sequence[Split]): The training set first.

    Returns:
        list[Finding]: Images under several labels or in several splits, by
        path, and classes that differ.
    """
    return _compare(splits, [split.by_path() for split in splits], 'path')


def _read_image(record: Record) -> tuple[bytes | None, str | None]:
    """Get a hash of an image's content and what is wrong with it, if anything."""
    if record.path is None:
        get_info = getattr(record.dataset, 'get_data_info', None)
        image = None if get_info is None else get_info(record.position).get('img')
        if image is None:
            return None, None
        return hashlib.sha256(np.asarray(image).tobytes()).digest(), None
    try:
        content = get(record.path)
        if mmcv.imfrombytes(content) is None:
            raise ValueError('no image')
    except MemoryError:
        raise
    except Exception as error:  # OpenCV and storage backends raise various errors.
        return None, describe_unreadable(record.path, error)
    return hashlib.sha256(content).digest(), _find_damage(record.path, content)


def _find_damage(path: str, content: bytes) -> str | None:
    """Find what OpenCV ignores: it pads an image that ends early."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # About size or metadata.
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.format in _CHECKED_FORMATS:
                    image.draft(image.mode, (1, 1))
                    image.load()
        except Image.UnidentifiedImageError:
            return None
        except (OSError, SyntaxError) as error:
            return f'{path} is damaged: {error}'
        except Exception:  # Pillow raises more kinds, for example for large images.
            return None
    return None


def _has_header(path: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # About size or metadata.
        try:
            with Image.open(path):
                return True
        except Exception:  # Pillow raises many kinds.
            return False


def _threads() -> ThreadPoolExecutor:
    """Start threads: OpenCV, Pillow and hashlib release Python's lock."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def find_unreadable(dataset: Any, most: int = 20_000) -> tuple[int, list[str]]:
    """Find files that a dataset could not load, without decoding them.

    Pillow reads the header of each file, several thousand per second. Files
    that it does not know are loaded as the dataset would.

    Args:
        dataset: A dataset or dataset wrapper.
        most (int): Maximum number of files to check, evenly spaced. Defaults
            to 20,000.

    Returns:
        tuple: The number of files that were checked, without images in
        memory or on other storage, and the errors of those that cannot be
        loaded.
    """
    files = {}
    for leaf in leaves(dataset):
        for position in range(len(leaf)):
            path = _path_of(leaf, position)
            if path is not None:
                files[path] = leaf, position
    paths = list(files)[:: max(1, -(-len(files) // most))]
    if not any(map(os.path.exists, paths[:_BATCH])):
        return 0, []
    problems = []
    with _threads() as pool:
        for path, known in zip(paths, pool.map(_has_header, paths)):
            if not known:
                leaf, position = files[path]
                try:
                    leaf[position]
                except UserError as error:
                    problems.append(user_message(error))
                except Exception as error:  # Transforms raise any kind.
                    problems.append(f'{path} cannot be loaded: {type(error).__name__}: {error}')
    return len(paths), problems


def _read_all(records: Sequence[Record]) -> Iterator[tuple[bytes | None, str | None]]:
    with _threads() as pool:
        for start in range(0, len(records), _BATCH):
            yield from pool.map(_read_image, records[start : start + _BATCH])


def check_images(split: Split) -> tuple[Images, list[Finding]]:
    """Read all images of a split, with a progress bar.

    Args:
        split (Split): The images.

    Returns:
        tuple: The images by their content, and findings: images that cannot
        be read or are damaged.
    """
    files = [*split.by_path().values()]
    files += [[image] for image in split.records if image.path is None]
    images: dict[bytes, list[Record]] = defaultdict(list)
    unreadable: list[list[str]] = []
    damaged: list[list[str]] = []
    results = _read_all([same[0] for same in files])
    for same, (content, problem) in zip(files, track(results, f'Reading {split.name}', len(files))):
        if content is not None:
            images[content] += same
        if problem:
            places = [[f'{split.line(image)}{problem}'] for image in same]
            (unreadable if content is None else damaged).extend(places)
    advice = 'replace or remove them: training would stop there'
    findings = _count(split.name, 'images that cannot be read', unreadable, advice)
    advice = 'replace or remove them: the missing part would be trained on as grey'
    return images, findings + _count(split.name, 'images that are damaged', damaged, advice)


def check_data(datasets: dict[str, Callable[[], Any]]) -> tuple[list[Split], list[Finding]]:
    """Check datasets and read all their images.

    Args:
        datasets (dict[str, Callable]): Functions that build the datasets, by
            name of the split; the training set first.

    Returns:
        tuple: The splits that could be loaded, and all findings.
    """
    splits: list[Split] = []
    findings: list[Finding] = []
    for name, build in datasets.items():
        try:
            splits.append(Split(name, build()))
            findings += check_folders(splits[-1])
        except UserError as error:
            advice = 'fix this first: the dataset cannot be loaded'
            findings.append(Finding(name, user_message(error), advice, find_places(error)))
    images = []
    for split in splits:
        found, problems = check_images(split)
        images.append(found)
        findings += problems
    return splits, findings + _compare(splits, images, 'content')
