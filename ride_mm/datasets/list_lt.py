import os
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from mmengine.fileio import LocalBackend, exists, get_file_backend, isdir, join_path
from mmengine.utils import is_abs
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS

from ride_mm.structures import check_class_counts
from ride_mm.utils.errors import UserError, name_some, nearest

from .annotations import read_annotations
from .cached_labels import CachedLabels
from .class_counts import count_labels, read_class_counts
from .folders import EXTENSIONS, number_classes, read_folder


@DATASETS.register_module()
class LongTailList(CachedLabels, CustomDataset):
    """Images of a "path label" list, or of a folder with one sub-folder per
    class, with their class counts.

    Each split states the training images per class as
    ``metainfo['class_counts']``: give a validation or test set the training
    list, folder or counts file as ``class_counts``. Mistakes in the data (a
    bad line, a label that is too large, missing images, a class without
    training images) are reported when it is loaded.

    Args:
        data_root (str): Folder that ``ann_file``, ``data_prefix`` and
            ``class_counts`` are relative to. Defaults to ''.
        data_prefix (str | dict): Folder of the images. Defaults to ''.
        ann_file (str): The list, one line "path label" per image. Defaults
            to '', which means that the sub-folders of ``data_prefix``, in
            alphabetic order, are the classes.
        num_classes (int, optional): Number of classes K. Defaults to None,
            which means the number of class names in ``metainfo``, or else of
            class counts.
        class_counts (Sequence[int] | str, optional): Training images per
            class: K counts, a JSON file of them, the training list, or the
            training folder. Defaults to None, which means that this is the
            training set and is counted.
        extensions (Sequence[str]): Extensions of images in folders. Other
            files are left out, with a warning. Defaults to those that both
            Pillow and OpenCV read.
        **kwargs: Other options of :class:`mmpretrain.datasets.CustomDataset`,
            such as ``classes``: the names of all classes in order, or a file
            with one name per line. The folder of a validation set may then
            lack some of them.

    Raises:
        UserError: If a list, folder or image is missing.
        UserError: If a list or the number of classes is wrong.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        ann_file: str = '',
        num_classes: int | None = None,
        class_counts: Sequence[int] | str | None = None,
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs,
    ) -> None:
        if isinstance(class_counts, str) and not is_abs(class_counts):
            class_counts = join_path(data_root, class_counts)
        self.num_classes = num_classes
        self.class_counts = class_counts
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            ann_file=ann_file,
            with_label=True,
            extensions=extensions,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Load ``img_path`` and ``gt_label`` of each image."""
        load = self._load_list if self.ann_file else self._load_folder
        paths, labels, class_counts = load()
        self._gt_labels = np.array(labels, dtype=np.int64)
        self._metainfo['class_counts'] = class_counts
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        return [
            dict(img_path=backend.join_path(self.img_prefix, path), gt_label=label)
            for path, label in zip(paths, labels)
        ]

    def _load_list(self) -> tuple[list[str], list[int], list[int]]:
        num_classes = self._known_num_classes()
        counts, _ = self._read_training_counts(num_classes)
        if counts is not None:
            num_classes = num_classes or len(counts)
        paths, labels, lines = read_annotations(self.ann_file, num_classes)
        if counts is None:
            counts = count_labels(labels, num_classes or max(labels) + 1)
        self._check_counts(counts, num_classes or len(counts), self.CLASSES)
        self._check_images(paths, lines)
        return paths, labels, counts

    def _load_folder(self) -> tuple[list[str], list[int], list[int]]:
        folder = read_folder(self.img_prefix, self.is_valid_file)
        folder.warn()
        classes = number_classes(folder, self.CLASSES)
        num_classes = self._known_num_classes()
        if num_classes not in (None, len(classes)):
            raise UserError(
                f'{self.img_prefix} has {len(classes)} class folders, '
                f'but there are {num_classes} classes'
            )
        counts, train_classes = self._read_training_counts(len(classes))
        if train_classes not in (None, classes):
            raise UserError(self._describe_class_difference(classes, train_classes))
        by_name = {name: label for label, name in enumerate(classes)}
        labels = [by_name[name] for _, name in folder.samples]
        if counts is None:
            counts = count_labels(labels, len(classes))
        self._check_counts(counts, len(classes), classes)
        self._metainfo.setdefault('classes', tuple(classes))
        return [path for path, _ in folder.samples], labels, counts

    def _known_num_classes(self) -> int | None:
        named = len(self.CLASSES or ())
        if named and self.num_classes not in (None, named):
            raise UserError(f'num_classes={self.num_classes}, but `metainfo` names {named} classes')
        return self.num_classes or named or None

    def _read_training_counts(
        self, num_classes: int | None
    ) -> tuple[list[int] | None, list[str] | None]:
        """Get ``class_counts`` as a list, and the sub-folders of a training folder."""
        if self.class_counts is None:
            return None, None
        if not isinstance(self.class_counts, str):
            return [int(count) for count in self.class_counts], None
        if not isdir(self.class_counts):
            return read_class_counts(self.class_counts, num_classes), None
        folder = read_folder(self.class_counts, self.is_valid_file)
        classes = number_classes(folder, self.CLASSES)
        counts = Counter(name for _, name in folder.samples)
        return [counts[name] for name in classes], classes

    def _check_counts(
        self, counts: Sequence[int], num_classes: int, names: Sequence[str] | None
    ) -> None:
        """Check the training images per class, and say where they are from."""
        try:
            check_class_counts(counts, num_classes, names)
        except UserError as error:
            if self.class_counts is None:
                raise UserError(
                    f'{self.ann_file or self.img_prefix}: {error}. If this is not the training '
                    'set, say where to count the training images: '
                    '`class_counts`=<training list, folder or JSON>'
                ) from None
            if isinstance(self.class_counts, str):
                raise UserError(f'{self.class_counts}: {error}') from None
            raise

    def _describe_class_difference(
        self, classes: Sequence[str], train_classes: Sequence[str]
    ) -> str:
        text = f'The class folders of {self.img_prefix} are not those of {self.class_counts}:'
        missing = sorted(set(train_classes) - set(classes))
        extra = sorted(set(classes) - set(train_classes))
        if missing:
            text += f' missing {name_some(missing)};'
        if extra:
            text += f' not in the training folder {name_some(extra)};'
        if missing and not extra:
            text += ' with a complete list in `classes`, some may be missing;'
        return text.rstrip(';')

    def _check_images(self, paths: Sequence[str], lines: Sequence[int]) -> None:
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        if not isinstance(backend, LocalBackend):
            return
        missing = find_missing(self.img_prefix, paths)
        if missing:
            first = missing[0]
            raise UserError(
                f'{self.ann_file}: {len(missing)} of {len(paths)} images are not in '
                f'{self.img_prefix or os.curdir}. The first is that of line {lines[first]}: '
                f'{paths[first]}. Check `data_root` and `data_prefix`.',
                [f'{self.ann_file}:{lines[i]}: {paths[i]}' for i in missing],
            )


def find_missing(root: str, paths: Sequence[str]) -> list[int]:
    """Find files that do not exist, or are folders or broken links.

    Lists each folder once: checking each file of a long list takes minutes on
    a network disk.

    Args:
        root (str): Folder that the paths are relative to.
        paths (Sequence[str]): Paths with ``/`` as separator.

    Returns:
        list[int]: Positions of the missing files in ``paths``, ascending.
    """
    by_folder: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for i, path in enumerate(paths):
        folder, _, name = path.rpartition('/')
        by_folder[folder].append((i, name))

    missing = []
    for folder, files in by_folder.items():
        try:
            with os.scandir(os.path.join(root, folder) or os.curdir) as entries:
                present = {entry.name for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError, ValueError):
            present = set()
        missing += [i for i, name in files if name not in present]
    return sorted(missing)


class _BenchmarkList(LongTailList):
    """A benchmark with one list per split and a fixed number of classes."""

    name: str
    splits: tuple[str, ...]
    benchmark_classes: int

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        ann_file: str = '',
        class_counts: Sequence[int] | str | None = None,
        **kwargs,
    ) -> None:
        if split not in self.splits:
            raise UserError(
                f'{type(self).__name__}: split must be one of {self.splits}, found {split!r}.'
                f'{nearest(str(split), self.splits)}'
            )
        self.split = split
        super().__init__(
            data_root=data_root,
            ann_file=ann_file or f'{self.name}_{split}.txt',
            num_classes=self.benchmark_classes,
            class_counts=class_counts,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Load ``img_path`` and ``gt_label`` of each image."""
        if self.class_counts is None and self.split != 'train':
            self.class_counts = self._find_training_list()
        return super().load_data_list()

    def _find_training_list(self) -> str:
        folder = os.path.dirname(self.ann_file)
        names = (f'{self.name}_train.txt', f'{self.name}_train_counts.json')
        for name in names:
            path = join_path(folder, name)
            if exists(path):
                return path
        raise UserError(
            f'{type(self).__name__}: the training images per class are counted in {names[0]} or '
            f'given by {names[1]}, but neither is in {folder or os.curdir}. Put one there, or set '
            '`class_counts`.'
        )


@DATASETS.register_module()
class ImageNetLT(_BenchmarkList):
    """ImageNet-LT of `Large-Scale Long-Tailed Recognition in an Open World
    <https://arxiv.org/abs/1904.05160>`_.

    1,000 classes, 115,846 training images, 5 to 1,280 per class. The lists
    are next to the images, which are those of ImageNet-1k:

    ::

        data_root
        ├── ImageNet_LT_train.txt
        ├── ImageNet_LT_val.txt
        ├── ImageNet_LT_test.txt
        ├── train/n01440764/...
        └── val/n01440764/...

    Args:
        data_root (str): Folder of the lists and of the images.
            Defaults to ''.
        split (str): ``'train'``, ``'val'`` or ``'test'``; papers report
            results on ``'test'``. Defaults to ``'train'``.
        ann_file (str): The list. Defaults to '', which means
            ``ImageNet_LT_{split}.txt``.
        class_counts (Sequence[int] | str, optional): Training images per
            class, see :class:`LongTailList`. Defaults to None, which means
            those of ``ImageNet_LT_train.txt`` in the folder of the list or,
            if there is none, of ``ImageNet_LT_train_counts.json``, a list of
            1,000 counts.
        **kwargs: Other options of :class:`LongTailList`.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}
    name = 'ImageNet_LT'
    splits = ('train', 'val', 'test')
    benchmark_classes = 1000


@DATASETS.register_module()
class PlacesLT(_BenchmarkList):
    """Places-LT of `Large-Scale Long-Tailed Recognition in an Open World
    <https://arxiv.org/abs/1904.05160>`_.

    365 classes, 62,500 training images, 5 to 4,980 per class. Layout and
    options are those of :class:`ImageNetLT`, with lists
    ``Places_LT_{split}.txt`` and the images of Places365-Standard
    (``train/airfield/...``, ``val/airfield/...``).
    """

    name = 'Places_LT'
    splits = ('train', 'val', 'test')
    benchmark_classes = 365


@DATASETS.register_module()
class INaturalist2018(_BenchmarkList):
    """`iNaturalist 2018
    <https://github.com/visipedia/inat_comp/tree/master/2018>`_.

    8,142 classes, 437,513 training images, 2 to 1,000 per class. Layout and
    options are those of :class:`ImageNetLT`, with lists
    ``iNaturalist18_{split}.txt``, the splits ``'train'`` and ``'val'``, and
    the images of the competition (``train_val2018/Plantae/7291/...``).
    """

    name = 'iNaturalist18'
    splits = ('train', 'val')
    benchmark_classes = 8142
