import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from ride_mm.utils.errors import UserError

from .cached_labels import CachedLabels
from .imbalance import largest_class, long_tail_profile, sample_subset


@DATASETS.register_module()
class DigitsLT(CachedLabels, BaseDataset):
    """Long-tailed scanned digits that come with scikit-learn.

    The 1,797 real 8x8 scans of `load_digits
    <https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html>`_
    need no download, so a whole experiment runs anywhere within minutes. The
    test split is fixed and balanced: the last 44 scans of each digit, 440 in
    all. The training split is a long-tailed subset of the others, made as
    that of :class:`CIFAR10LT`, with 130 images in the largest class. The
    default profile has 1 many-, 5 medium- and 4 few-shot classes. Both
    splits state the training images per class as
    ``metainfo['class_counts']``.

    Args:
        split (str): ``'train'`` or ``'test'``. Defaults to ``'train'``.
        imb_type (str): The profile, ``'exp'`` or ``'step'``: see
            :func:`~ride_mm.datasets.imbalance.long_tail_profile`.
            Defaults to ``'exp'``.
        imb_factor (float): Size of the smallest class over that of the
            largest one, in (0, 1]. Defaults to 0.05.
        max_count (int, optional): Size of the largest class. Defaults to
            None, which means 130.
        subset_seed (int): Seed of the choice of training images.
            Defaults to 0.
        metainfo (dict, optional): Meta information. Defaults to None.
        **kwargs: Other options of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        UserError: If there is no such split, or the profile is not possible.
        UserError: If scikit-learn is not installed.
    """  # noqa: E501

    METAINFO = {'classes': tuple('0123456789')}
    num_classes = 10
    # The rarest digit has 174 scans, which leaves 130 beside the test split.
    max_count = 130
    test_count = 44

    def __init__(
        self,
        split: str = 'train',
        imb_type: str = 'exp',
        imb_factor: float = 0.05,
        max_count: int | None = None,
        subset_seed: int = 0,
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        if split not in ('train', 'test'):
            raise UserError(f"DigitsLT: split must be 'train' or 'test', found {split!r}")
        self.split = split
        self.imb_type = imb_type
        self.imb_factor = imb_factor
        self.max_count = largest_class(max_count, self.max_count)
        self.subset_seed = subset_seed
        self.class_counts = long_tail_profile(
            self.num_classes, self.max_count, imb_type, imb_factor
        )
        super().__init__(ann_file='', metainfo=metainfo, **kwargs)
        # of a lazy dataset
        self._metainfo.setdefault('class_counts', list(self.class_counts))

    def load_data_list(self) -> list[dict]:
        """Load the images of the split.

        Returns:
            list[dict]: For each image ``img``, uint8 of shape (8, 8, 3) with
            three equal channels, and ``gt_label``.
        """
        images, labels = _load_digits()
        chosen = self._choose(labels)
        # Scans have 17 grey levels, 0 to 16.
        grey = np.rint(images[chosen] * (255 / 16)).astype(np.uint8)
        images = np.repeat(grey[..., None], 3, axis=-1)
        self._gt_labels = labels[chosen]
        self._metainfo['class_counts'] = list(self.class_counts)
        return [
            dict(img=img, gt_label=label) for img, label in zip(images, self._gt_labels.tolist())
        ]

    def _choose(self, labels: np.ndarray) -> np.ndarray:
        test = np.concatenate(
            [np.flatnonzero(labels == c)[-self.test_count :] for c in range(self.num_classes)]
        )
        if self.split == 'test':
            return test
        others = np.setdiff1d(np.arange(len(labels)), test)
        return others[sample_subset(labels[others], self.class_counts, self.subset_seed)]

    def extra_repr(self) -> list[str]:
        """The split and the profile."""
        profile = f'{self.imb_type}, imb_factor={self.imb_factor}, max_count={self.max_count}'
        return [f'Split: \t{self.split}', f'Long-tailed profile: \t{profile}']


def _load_digits():
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError('DigitsLT needs scikit-learn: `pip install scikit-learn`') from error
    digits = load_digits()
    return digits.images, digits.target.astype(np.int64)
