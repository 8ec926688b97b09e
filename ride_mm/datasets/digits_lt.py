import numpy as np
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError

from .imbalance import LongTailSubset, sample_subset


@DATASETS.register_module()
class DigitsLT(LongTailSubset):
    """Long-tailed subset of the scanned digits in scikit-learn.

    The 1,797 real 8x8 scans of `load_digits
    <https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html>`_
    need no download, and training on them takes minutes. The test split is
    balanced: the last 44 scans of each digit, 440 in all. The training split
    is a long-tailed subset of the others, chosen as in :class:`.CIFAR10LT`,
    with 130 images in the largest class. The default profile has 1 many-, 5
    medium- and 4 few-shot classes. Both splits state the training images per
    class as ``metainfo['class_counts']``.

    Args:
        split (str): ``'train'`` or ``'test'``. Defaults to ``'train'``.
        imb_type (str): See :class:`.CIFAR10LT`. Defaults to ``'exp'``.
        imb_factor (float): See :class:`.CIFAR10LT`. Defaults to 0.05.
        max_count (int, optional): See :class:`.CIFAR10LT`. Defaults to None,
            which means 130.
        subset_seed (int): See :class:`.CIFAR10LT`. Defaults to 0.
        **kwargs: Other options of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        UserError: If there is no such split, or the profile is not possible.
        UserError: If scikit-learn is not installed.
    """  # noqa: E501

    METAINFO = {'classes': tuple('0123456789')}
    num_classes = 10
    # The rarest digit has 174 scans.
    max_count = 130
    test_count = 44

    def __init__(
        self,
        split: str = 'train',
        imb_type: str = 'exp',
        imb_factor: float = 0.05,
        max_count: int | None = None,
        subset_seed: int = 0,
        **kwargs,
    ) -> None:
        if split not in ('train', 'test'):
            raise UserError(f"DigitsLT: split must be 'train' or 'test', found {split!r}")
        self.split = split
        super().__init__(imb_type, imb_factor, max_count, subset_seed, ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Load the images of the split.

        Returns:
            list[dict]: ``img``, uint8 of shape (8, 8, 3) with three equal
            channels, and ``gt_label`` of each image.
        """
        images, labels = _load_digits()
        by_class = [np.flatnonzero(labels == c) for c in range(self.num_classes)]
        chosen = np.concatenate([indices[-self.test_count :] for indices in by_class])
        if self.split == 'train':
            others = np.setdiff1d(np.arange(len(labels)), chosen)
            chosen = others[sample_subset(labels[others], self.class_counts, self.subset_seed)]
        # The scans have 17 grey levels, 0 to 16.
        grey = np.rint(images[chosen] * (255 / 16)).astype(np.uint8)
        return self._data_list(np.repeat(grey[..., None], 3, axis=-1), labels[chosen])


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError('DigitsLT needs scikit-learn: `pip install scikit-learn`') from error
    digits = load_digits()
    return digits.images, digits.target.astype(np.int64)
