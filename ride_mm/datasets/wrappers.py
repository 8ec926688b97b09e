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
    """Build a data set; of a fold, the images that are in it."""
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
    if isinstance(dataset, KFoldDataset):
        dataset.full_init()
        return dataset.dataset
    return dataset


def build_dividable(dataset: BaseDataset | dict, wrapper: str) -> BaseDataset:
    """Build a data set that can be reduced to some of its images.

    Args:
        dataset (BaseDataset | dict): The data set, or its config.
        wrapper (str): What will reduce it, for the message.

    Returns:
        BaseDataset: The data set, loaded.

    Raises:
        UserError: If it is a wrapper of data sets, but not a fold.
    """
    dataset = _build(dataset)
    if not isinstance(dataset, BaseDataset):
        raise UserError(
            f'{wrapper}: images cannot be drawn from a '
            f'{type(dataset).__name__}, which wraps data sets: put {wrapper} '
            'inside it, around each data set that holds images'
        )
    dataset.full_init()
    return dataset


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """MMEngine's concatenation, which takes sets of different class counts:
    the whole has their sum.

    Args:
        datasets (list[BaseDataset | dict]): The data sets, or their configs.
            Folds and other concatenations may be among them.
        **kwargs: Other options of MMEngine's ``ConcatDataset``.

    Raises:
        UserError: If one of them is a wrapper that shows images more often,
            or their numbers of classes differ.
    """

    def __init__(self, datasets: Sequence[BaseDataset | dict], **kwargs: Any) -> None:
        datasets = [part for dataset in datasets for part in self._parts(dataset)]
        ignored = kwargs.pop('ignore_keys', None) or []
        ignored = [ignored] if isinstance(ignored, str) else list(ignored)
        try:
            super().__init__(datasets, ignore_keys=['class_counts', *ignored], **kwargs)
        except UserError:
            raise
        except ValueError as error:
            names = [dataset.metainfo.get('classes') for dataset in datasets]
            hint = (
                ''
                if all(name == names[0] for name in names)
                else ' Their classes differ: give each the same classes=[...]'
            )
            raise UserError(f'ConcatDataset: {error}.{hint}') from error

    @staticmethod
    def _parts(dataset: BaseDataset | dict) -> list[BaseDataset]:
        """The data sets of a part that hold images themselves."""
        dataset = _build(dataset)
        if isinstance(dataset, ConcatDataset):
            return dataset.datasets
        if not isinstance(dataset, BaseDataset):
            raise UserError(
                f'ConcatDataset: found a {type(dataset).__name__} among its '
                'data sets. Put the wrapper around ConcatDataset: class '
                'counts would be wrong if one of its sets were repeated'
            )
        return [dataset]

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
                'same num_classes or classes'
            )
        # several test sets tell the counts of one training set
        tell = any(
            not np.array_equal(part, count_labels(get_labels(dataset), len(part)))
            for part, dataset in zip(counts, self.datasets)
        )
        same = all(part == counts[0] for part in counts)
        # but what is left of several training sets tells the rest of each
        left = all(getattr(dataset, 'is_part', False) for dataset in self.datasets)
        self.class_counts = (
            counts[0] if tell and same and not left else np.sum(counts, axis=0).tolist()
        )
        self._metainfo['class_counts'] = self.class_counts

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
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
    is trained on.

    Args:
        dataset (BaseDataset | dict): The data set, or its config.
        fold (int): The part that is validated on, in [0, ``num_splits``).
            Defaults to 0.
        num_splits (int): The number of parts, 2 or more. Defaults to 5.
        test_mode (bool): Whether these are the images to validate on, and
            not those to train on. Defaults to False.
        seed (int, optional): Seed of the division. Defaults to None, which
            means that the parts follow each other in the data set.

    Raises:
        UserError: If there is no such part, or if the data set is a wrapper,
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
        # MMPretrain's takes a config alone, whatever it says
        self.dataset = build_dividable(dataset, 'KFoldDataset')
        self._metainfo = self.dataset.metainfo
        self.fold, self.num_splits = fold, num_splits
        self.test_mode, self.seed = test_mode, seed
        self._fully_initialized = False
        self.full_init()

    def full_init(self) -> None:
        """Load the data and count the images that are trained on."""
        if self._fully_initialized:
            return
        labels = get_labels(self.dataset)
        num_classes = len(get_class_counts(self.dataset))
        super().full_init()
        trained: list[int] = self._ori_indices
        if self.test_mode:
            trained = np.setdiff1d(np.arange(len(labels)), trained)
        counts = count_labels(labels[trained], num_classes)
        self._metainfo['class_counts'] = counts
        self.dataset._metainfo['class_counts'] = counts
        self.dataset.is_part = True


@DATASETS.register_module()
class RepeatDataset(_RepeatDataset):
    """MMEngine's repetition, which ``ClassBalancedDataset`` can be put
    around. See :class:`mmengine.dataset.RepeatDataset`."""

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the labels of one image.

        Args:
            idx (int): Index of the image.

        Returns:
            list[int]: Its labels.
        """
        return self.dataset.get_cat_ids(self._get_ori_dataset_idx(idx))
