from collections.abc import Sequence

import numpy as np
from mmengine.dataset import force_full_init


class CachedLabels:
    """Mixin that keeps the labels of a dataset in one array.

    mmpretrain's ``get_gt_labels`` reads every sample, with its image where it
    holds one. Must precede the dataset class among the bases;
    ``load_data_list`` must set ``self._gt_labels``, shape (N, ).
    """

    _gt_labels: np.ndarray
    # The counts before ``indices`` were taken of a training set.
    whole_class_counts: list[int] | None = None

    def full_init(self) -> None:
        """Load the data and keep the labels of ``indices``, if given.

        The class counts of a training set are those of the images that are
        left.
        """
        if self._fully_initialized:
            return
        super().full_init()
        if self._indices is not None:
            whole = self._gt_labels
            self._gt_labels = _take(whole, self._indices)
            stated = self._metainfo.get('class_counts')
            if stated is not None and np.array_equal(
                stated, np.bincount(whole, minlength=len(stated))
            ):
                self.whole_class_counts = stated
                self._metainfo['class_counts'] = np.bincount(
                    self._gt_labels, minlength=len(stated)
                ).tolist()

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Get all labels.

        Returns:
            np.ndarray: Labels, shape (len(self), ), int64.
        """
        return self._gt_labels.copy()

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the label of one image.

        Args:
            idx (int): Index of the image.

        Returns:
            list[int]: Its only label.
        """
        return [int(self._gt_labels[idx])]

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep a part of the dataset, in place.

        Args:
            indices (int | Sequence[int]): The first or (if negative) last
                images, or their indices.
        """
        super().get_subset_(indices)
        self._gt_labels = _take(self._gt_labels, indices)

    def get_subset(self, indices: Sequence[int] | int):
        """Get a part of the dataset.

        Args:
            indices (int | Sequence[int]): The first or (if negative) last
                images, or their indices.

        Returns:
            BaseDataset: A dataset with these images.
        """
        subset = super().get_subset(indices)
        subset._gt_labels = _take(self._gt_labels, indices)
        return subset


def _take(labels: np.ndarray, indices: Sequence[int] | int) -> np.ndarray:
    """Index as mmengine's datasets do: an int means so many images."""
    if isinstance(indices, int):
        return labels[:indices] if indices >= 0 else labels[indices:]
    return labels[np.asarray(indices, dtype=np.int64)]
