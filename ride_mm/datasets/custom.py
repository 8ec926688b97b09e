"""MMPretrain's data sets of class folders leave out nothing without a word."""

import logging
from functools import wraps

from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from .class_counts import name_some
from .folders import number_classes, read_folder, warn_of


def install_folder_reading() -> None:
    """Let ``CustomDataset``, ``ImageNet`` and the like read class folders as
    :class:`LongTailList` does: hidden folders are no classes, and what is
    left out is said."""
    original = CustomDataset._find_samples

    @wraps(original)
    def _find_samples(self) -> list[tuple]:
        if not self.with_label:
            return original(self)
        folder = read_folder(self.img_prefix, self.is_valid_file)
        warn_of(folder)
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
