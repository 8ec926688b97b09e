from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.dataset import ConcatDataset as _ConcatDataset
from mmengine.dataset import RepeatDataset as _RepeatDataset
from mmpretrain.datasets import KFoldDataset as _KFoldDataset
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError

from .class_counts import count_labels, get_class_counts, get_labels


def _build(dataset: BaseDataset | dict) -> Any:
    """Build a dataset; of a fold, the dataset of its images."""
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
    return dataset.dataset if isinstance(dataset, KFoldDataset) else dataset


def build_divisible(dataset: BaseDataset | dict, wrapper: str) -> BaseDataset:
    """Build and load a dataset that can be reduced to some of its images.

    Args:
        dataset (BaseDataset | dict): The dataset, or its config.
        wrapper (str): Name of the wrapper that reduces it, for the message.

    Returns:
        BaseDataset: The dataset.

    Raises:
        UserError: If it is a wrapper other than a fold.
    """
    dataset = _build(dataset)
    if not isinstance(dataset, BaseDataset):
        raise UserError(
            f'{wrapper}: images cannot be drawn from a {type(dataset).__name__}, which wraps '
            f'datasets: put {wrapper} inside it, around each dataset that holds images'
        )
    dataset.full_init()
    return dataset


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """MMEngine's ``ConcatDataset`` for datasets with different class counts,
    which are summed.

    Args:
        datasets (list[BaseDataset | dict]): The datasets, or their configs.
            Folds and other concatenations may be among them.
        **kwargs: Other options of :class:`mmengine.dataset.ConcatDataset`.

    Raises:
        UserError: If one of them is a wrapper that repeats images, or their
            numbers of classes differ.
    """

    def __init__(self, datasets: Sequence[BaseDataset | dict], **kwargs: Any) -> None:
        parts = [part for dataset in datasets for part in self._parts(dataset)]
        ignored = kwargs.pop('ignore_keys', None) or []
        ignored = [ignored] if isinstance(ignored, str) else list(ignored)
        try:
            super().__init__(parts, ignore_keys=['class_counts', *ignored], **kwargs)
        except UserError:
            raise
        except ValueError as error:
            names = [part.metainfo.get('classes') for part in parts]
            same = all(name == names[0] for name in names)
            hint = '' if same else ' Their classes differ: give each the same classes=[...]'
            raise UserError(f'ConcatDataset: {error}.{hint}') from error

    @staticmethod
    def _parts(dataset: BaseDataset | dict) -> list[BaseDataset]:
        """Get the datasets of a part that hold images themselves."""
        dataset = _build(dataset)
        if isinstance(dataset, ConcatDataset):
            return dataset.datasets
        if not isinstance(dataset, BaseDataset):
            raise UserError(
                f'ConcatDataset: found a {type(dataset).__name__} among its datasets. Put the '
                'wrapper around ConcatDataset: class counts would be wrong if one of its '
                'datasets were repeated'
            )
        return [dataset]

    def full_init(self) -> None:
        """Load the data and sum the class counts."""
        if self._fully_initialized:
            return
        super().full_init()
        counts = [get_class_counts(dataset) for dataset in self.datasets]
        sizes = {len(part): None for part in counts}
        if len(sizes) > 1:
            raise UserError(
                f'ConcatDataset: its datasets have {" and ".join(map(str, sizes))} classes. '
                'Give each the same num_classes or classes'
            )
        # Several test sets state the counts of one training set ...
        is_test = any(
            not np.array_equal(part, count_labels(get_labels(dataset), len(part)))
            for part, dataset in zip(counts, self.datasets)
        )
        # ... but the held-out parts of several training sets those of different ones.
        all_parts = all(getattr(dataset, 'is_part', False) for dataset in self.datasets)
        same = all(part == counts[0] for part in counts)
        one = is_test and same and not all_parts
        self.class_counts = counts[0] if one else np.sum(counts, axis=0).tolist()
        self._metainfo['class_counts'] = self.class_counts

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the labels of one image, for ``ClassBalancedDataset``."""
        part, inner = self._get_ori_dataset_idx(idx)
        return self.datasets[part].get_cat_ids(inner)


@DATASETS.register_module(force=True)
class KFoldDataset(_KFoldDataset):
    """MMPretrain's ``KFoldDataset``, where both parts state the class counts
    of the one that is trained on.

    See :class:`mmpretrain.datasets.KFoldDataset` for the options.

    Raises:
        UserError: If there is no such part, or if the dataset is a wrapper,
            which cannot be reduced to some of its images.
    """

    def __init__(
        self,
        dataset: BaseDataset | dict,
        fold: int = 0,
        num_splits: int = 5,
        test_mode: bool = False,
        seed: int | None = None,
    ) -> None:
        if num_splits < 2 or not 0 <= fold < num_splits:
            raise UserError(
                f'KFoldDataset: fold={fold} of num_splits={num_splits}, '
                'expected at least 2 splits and a fold counted from 0'
            )
        # MMPretrain's constructor fails for a dataset that is not a config.
        self.dataset = build_divisible(dataset, 'KFoldDataset')
        self._metainfo = self.dataset.metainfo
        self.fold, self.num_splits = fold, num_splits
        self.test_mode, self.seed = test_mode, seed
        labels, num_classes = get_labels(self.dataset), len(get_class_counts(self.dataset))
        self._fully_initialized = False
        self.full_init()

        trained = self._ori_indices
        if test_mode:
            trained = np.setdiff1d(np.arange(len(labels)), trained)
        counts = count_labels(labels[trained], num_classes)
        self._metainfo['class_counts'] = counts
        self.dataset._metainfo['class_counts'] = counts
        self.dataset.is_part = True


@DATASETS.register_module()
class RepeatDataset(_RepeatDataset):
    """MMEngine's ``RepeatDataset``, which ``ClassBalancedDataset`` can wrap.
    See :class:`mmengine.dataset.RepeatDataset`."""

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the labels of one image, for ``ClassBalancedDataset``."""
        return self.dataset.get_cat_ids(self._get_ori_dataset_idx(idx))
