"""What is wrong with the images and labels of a data set."""
import hashlib
import os.path as osp
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Callable, Dict, Iterable, List, Optional

import mmcv
from mmengine.fileio import get

from ride_mm.utils.errors import UserError
from .annotations import read_annotations
from .class_counts import get_class_counts, get_labels, group_masks
from .folders import read_folder


@dataclass
class Finding:
    """One kind of thing to look at.

    Attributes:
        split (str): Where: 'train', 'val' or 'test', or two of them.
        what (str): What was found, in a sentence.
        advice (str): What to do about it.
        places (list[str]): Files, with their lines where they are in a list.
        error (bool): Whether it should be mended before training.
    """
    split: str
    what: str
    advice: str
    places: List[str] = field(default_factory=list)
    error: bool = True


@dataclass
class Split:
    """A data set and what is known of it.

    Attributes:
        name (str): 'train', 'val' or 'test'.
        dataset (BaseDataset): The data set.
        hashes (dict[str, list[int]]): Images by their content.
    """
    name: str
    dataset: object
    hashes: Dict[str, List[int]] = field(
        default_factory=lambda: defaultdict(list))

    @property
    def labels(self) -> List[int]:
        return get_labels(self.dataset).tolist()

    def path(self, index: int) -> Optional[str]:
        return self.dataset.get_data_info(index).get('img_path')

    def places(self, indices: Iterable[int]) -> List[str]:
        """Where the images are: a file or, of a list, its line."""
        lines = self._lines()
        return [
            f'{lines[self.path(i)]}: {self.path(i)}'
            if self.path(i) in lines else str(self.path(i)) for i in indices
        ]

    def _lines(self) -> Dict[str, str]:
        ann_file = getattr(self.dataset, 'ann_file', '')
        if not ann_file or not ann_file.endswith('.txt'):
            return {}
        paths, _, lines = read_annotations(ann_file)
        root = getattr(self.dataset, 'img_prefix', '')
        return {
            osp.join(root, path): f'{ann_file}:{line}'
            for path, line in zip(paths, lines)
        }

    def summary(self) -> dict:
        """Images, classes and the sizes of the groups."""
        counts = get_class_counts(self.dataset)
        groups = group_masks(counts)
        return dict(
            split=self.name,
            images=len(self.dataset),
            classes=len(counts),
            largest=max(counts),
            smallest=min(counts),
            **{name: int(mask.sum())
               for name, mask in groups.items()})  # yapf: disable


def check_folder(split: Split) -> List[Finding]:
    """Tell what a data set of class folders leaves out.

    Args:
        split (Split): The data set.

    Returns:
        list[Finding]: A finding for each kind of file.
    """
    dataset = split.dataset
    if getattr(dataset, 'ann_file', True) or not hasattr(
            dataset, 'is_valid_file'):
        return []
    folder = read_folder(dataset.img_prefix, dataset.is_valid_file)
    return [
        Finding(
            split.name,
            sentence,
            'move, convert or remove them, if they are meant to be read',
            error=False) for sentence in folder.left_out()
    ]


def check_images(split: Split, progress: Callable[[Iterable],
                                                  Iterable]) -> List[Finding]:
    """Read all images of a data set that has them in files.

    Args:
        split (Split): The data set; its ``hashes`` are filled.
        progress (callable): Goes through a sequence and shows how far it is.

    Returns:
        list[Finding]: Images that cannot be read, that are there twice, or
        under two labels.
    """
    labels, unreadable = split.labels, []
    if split.path(0) is None:
        return []
    for i in progress(range(len(labels))):
        try:
            content = get(split.path(i))
            mmcv.imfrombytes(content).shape
        except Exception:  # of OpenCV, of any storage
            unreadable.append(i)
            continue
        split.hashes[hashlib.sha1(content).hexdigest()].append(i)
    several = [same for same in split.hashes.values() if len(same) > 1]
    conflicts = [i for same in several for i in same
                 if len({labels[k] for k in same}) > 1]  # yapf: disable
    twice = [i for same in several for i in same if i not in set(conflicts)]
    found = [
        (unreadable, 'unreadable images',
         'replace them, or take them out', True),
        (conflicts, 'images under different labels',
         'keep each under the one that is right', True),
        (twice, 'images more than once under one label',
         'keep one of each, unless that is meant', False),
    ]
    return [
        Finding(split.name, f'{what}: {len(indices)}', advice,
                split.places(indices), error)
        for indices, what, advice, error in found if indices
    ]


def check_overlap(train: Split, other: Split) -> List[Finding]:
    """Find images that are trained on and tested with.

    Args:
        train (Split): The training set.
        other (Split): A validation or test set.

    Returns:
        list[Finding]: One, or none.
    """
    common = [
        i for content, same in other.hashes.items() if content in train.hashes
        for i in same
    ]
    if not common:
        return []
    return [
        Finding(
            f'train, {other.name}',
            f'images of {other.name} that are in train as well: '
            f'{len(common)}',
            'take them out of one: accuracy on them says nothing',
            other.places(common))
    ]


def check_splits(datasets: Dict[str, Callable[[], object]],
                 progress: Callable[[Iterable], Iterable]) -> dict:
    """Check the data sets of a training.

    Args:
        datasets (dict[str, callable]): By 'train', 'val' and 'test', what
            builds the data set.
        progress (callable): See :func:`check_images`.

    Returns:
        dict: ``splits``, a summary of each, and ``findings``, as dicts.
    """
    splits: Dict[str, Split] = {}
    findings: List[Finding] = []
    for name, build in datasets.items():
        try:
            split = Split(name, build())
            findings += check_folder(split)
            findings += check_images(split, progress)
        except UserError as error:
            findings.append(Finding(name, str(error), 'see the message'))
            continue
        splits[name] = split
    for name, split in splits.items():
        if name != 'train' and 'train' in splits:
            findings += check_overlap(splits['train'], split)
    return dict(
        splits=[split.summary() for split in splits.values()],
        findings=[asdict(finding) for finding in findings])
