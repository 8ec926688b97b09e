from collections.abc import Sequence

import numpy as np
from mmengine.dataset import force_full_init
from mmpretrain.datasets import BaseDataset


class CachedLabels(BaseDataset):
    """Base of datasets that keep their labels in one array.

    mmpretrain's ``get_gt_labels`` loads every sample, including images in
    memory. Must precede other dataset classes in the MRO, and
    ``load_data_list`` must set ``self._gt_labels``, (N, ).
    """

    _gt_labels: np.ndarray
    # Class counts of a training set before its reduction to ``indices``.
    whole_class_counts: list[int] | None = None

    def full_init(self) -> None:
        """Load the data; with ``indices``, a training set counts only these images."""
        if self._fully_initialized:
            return
        super().full_init()
        if self._indices is None:
            return
        whole = self._gt_labels
        self._gt_labels = _take(whole, self._indices)
        stated = self._metainfo.get('class_counts')
        if stated is None:
            return
        # A test set states other counts than its own and keeps them.
        if np.array_equal(stated, np.bincount(whole, minlength=len(stated))):
            self.whole_class_counts = stated
            counts = np.bincount(self._gt_labels, minlength=len(stated))
            self._metainfo['class_counts'] = counts.tolist()

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Get all labels, (len(self), ), int64."""
        return self._gt_labels.copy()

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the label of one image, in a list."""
        return [int(self._gt_labels[idx])]

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """See :meth:`mmengine.dataset.BaseDataset.get_subset_`."""
        super().get_subset_(indices)
        self._gt_labels = _take(self._gt_labels, indices)

    def get_subset(self, indices: Sequence[int] | int) -> BaseDataset:
        """See :meth:`mmengine.dataset.BaseDataset.get_subset`."""
        subset = super().get_subset(indices)
        subset._gt_labels = _take(self._gt_labels, indices)
        return subset


def _take(labels: np.ndarray, indices: Sequence[int] | int) -> np.ndarray:
    """Select labels as mmengine does: an int means the first or last ones."""
    if isinstance(indices, int):
        return labels[:indices] if indices >= 0 else labels[indices:]
    return labels[np.asarray(indices, dtype=np.int64)]
