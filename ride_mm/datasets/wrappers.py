from typing import Any, List, Sequence, Union

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dataset import ConcatDataset as _ConcatDataset
from mmengine.dataset import force_full_init
from mmpretrain.datasets import KFoldDataset as _KFoldDataset
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError
from .class_counts import count_labels, get_class_counts, get_labels


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """MMEngine's concatenation, which takes sets of different class counts:
    the whole has their sum.

    Args:
        datasets (list[BaseDataset | dict]): The data sets, or their configs.
        **kwargs: Other options of MMEngine's ``ConcatDataset``.

    Raises:
        UserError: If one of them is a wrapper, or their numbers of classes
            differ.
    """

    def __init__(self, datasets: Sequence[Union[BaseDataset, dict]],
                 **kwargs: Any) -> None:
        datasets = [
            DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
            for dataset in datasets
        ]
        for dataset in datasets:
            if not isinstance(dataset, BaseDataset):
                raise UserError(
                    'ConcatDataset joins data sets that hold images '
                    f'themselves, found {type(dataset).__name__}: put the '
                    'wrapper around ConcatDataset')
        ignored = kwargs.pop('ignore_keys', None) or []
        ignored = [ignored] if isinstance(ignored, str) else list(ignored)
        try:
            super().__init__(
                datasets, ignore_keys=['class_counts', *ignored], **kwargs)
        except UserError:
            raise
        except ValueError as error:
            names = [dataset.metainfo.get('classes') for dataset in datasets]
            hint = ('' if all(name == names[0] for name in names) else
                    ' Their classes differ: give each the same classes=[...]')
            raise UserError(f'ConcatDataset: {error}.{hint}') from error

    def full_init(self) -> None:
        """Load the data and add up the counts."""
        if self._fully_initialized:
            return
        super().full_init()
        counts = [get_class_counts(dataset) for dataset in self.datasets]
        sizes = {len(part): None for part in counts}
        if len(sizes) > 1:
            raise UserError(
                'ConcatDataset: its data sets have '
                f'{" and ".join(map(str, sizes))} classes. Give each the '
                'same num_classes or classes')
        # several test sets tell the counts of one training set
        tell = any(
            not np.array_equal(part, count_labels(get_labels(dataset),
                                                  len(part)))
            for part, dataset in zip(counts, self.datasets))
        same = all(part == counts[0] for part in counts)
        self.class_counts = (counts[0] if tell and same else np.sum(
            counts, axis=0).tolist())
        self._metainfo['class_counts'] = self.class_counts

    @force_full_init
    def get_cat_ids(self, idx: int) -> List[int]:
        """Get the labels of one image, for ``ClassBalancedDataset``.

        Args:
            idx (int): Index of the image.

        Returns:
            list[int]: Its labels.
        """
        part, inner = self._get_ori_dataset_idx(idx)
        return self.datasets[part].get_cat_ids(inner)


@DATASETS.register_module(force=True)
class KFoldDataset(_KFoldDataset):
    """MMPretrain's folds: both parts state the class counts of the one that
    is trained on. See :class:`mmpretrain.datasets.KFoldDataset`."""

    def full_init(self) -> None:
        """Load the data and count the images that are trained on."""
        if self._fully_initialized:
            return
        labels = get_labels(self.dataset)
        num_classes = len(get_class_counts(self.dataset))
        super().full_init()
        trained: List[int] = self._ori_indices
        if self.test_mode:
            trained = np.setdiff1d(np.arange(len(labels)), trained)
        counts = count_labels(labels[trained], num_classes)
        self._metainfo['class_counts'] = counts
        self.dataset._metainfo['class_counts'] = counts
