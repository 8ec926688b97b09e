import io

import mmengine.dist as dist
import numpy as np
from mmengine.fileio import LocalBackend, exists, get, get_file_backend, join_path
from mmpretrain.datasets import CIFAR10, CIFAR100
from mmpretrain.datasets.utils import download_and_extract_archive
from mmpretrain.registry import DATASETS

from ride_mm.compat.stand_ins import load_arrays
from ride_mm.utils.errors import UserError

from .cached_labels import CachedLabels
from .class_counts import name_some
from .imbalance import largest_class, long_tail_profile, sample_subset


class _LongTailCIFAR(CachedLabels):
    """What :class:`CIFAR10LT` and :class:`CIFAR100LT` have in common."""

    num_classes: int
    max_count: int

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        imb_type: str = 'exp',
        imb_factor: float = 0.01,
        max_count: int | None = None,
        subset_seed: int = 0,
        check_integrity: bool = True,
        to_bgr: bool = False,
        **kwargs,
    ) -> None:
        self.imb_type = imb_type
        self.imb_factor = imb_factor
        self.max_count = largest_class(max_count, self.max_count)
        self.subset_seed = subset_seed
        self.check_integrity = check_integrity
        self.to_bgr = to_bgr
        self.class_counts = long_tail_profile(
            self.num_classes, self.max_count, imb_type, imb_factor
        )
        super().__init__(data_root=data_root, split=split, **kwargs)
        # of a lazy dataset
        self._metainfo.setdefault('class_counts', list(self.class_counts))

    def load_data_list(self) -> list[dict]:
        """Load the images of the split.

        Returns:
            list[dict]: For each image ``img``, RGB (or BGR) uint8 of shape
            (32, 32, 3), and ``gt_label``.
        """
        self._find_data()
        files = self.train_list if self.split == 'train' else self.test_list
        batches = [self._read_batch(name) for name, _ in files]
        labels = np.concatenate([labels for _, labels in batches])
        if self.split == 'train':
            chosen = sample_subset(labels, self.class_counts, self.subset_seed)
        else:
            chosen = np.arange(len(labels))

        self._gt_labels = labels[chosen]
        self._metainfo['class_counts'] = list(self.class_counts)
        images = _gather([pixels for pixels, _ in batches], chosen)
        if self.to_bgr:
            images = np.ascontiguousarray(images[..., ::-1])
        return [
            dict(img=img, gt_label=label) for img, label in zip(images, self._gt_labels.tolist())
        ]

    def _read_batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        path = join_path(self._folder, name)
        try:
            batch = load_arrays(io.BytesIO(get(path)))
            labels = batch['labels' if 'labels' in batch else 'fine_labels']
            labels, pixels = np.asarray(labels), batch['data']
        except Exception as error:  # a wrong file can break it anyhow
            raise _no_batch(path, error or type(error).__name__) from error
        if labels.ndim != 1 or labels.dtype.kind not in 'iu':
            raise _no_batch(path, 'its labels are not a list of whole numbers')
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or pixels.shape != (len(labels), 3 * 32 * 32)
        ):
            raise _no_batch(path, f'expected `data` of shape ({len(labels)}, 3072), uint8')
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(wrong):
            raise _no_batch(path, f'label {wrong[0]} is outside [0, {self.num_classes})')
        return pixels, labels.astype(np.int64)

    @property
    def _folder(self) -> str:
        return join_path(self.data_prefix['root'], self.base_folder)

    def _missing_files(self) -> list[str]:
        names = [name for name, _ in self.train_list + self.test_list]
        return [name for name in names if not exists(join_path(self._folder, name))]

    def _find_data(self) -> None:
        """Download what is missing and check what is there."""
        if dist.is_main_process():
            if self._missing_files():
                self._download()
            # The sums of 180 MB are taken by one process for all of them.
            if self.check_integrity and not self._check_integrity():
                raise UserError(
                    f'The files in {self._folder} are not those of the '
                    'official release: their MD5 sums differ. Delete the '
                    'folder to have them downloaded again or, if this is a '
                    're-packed copy, set `check_integrity=False`.'
                )
        dist.barrier()
        missing = self._missing_files()
        if missing:
            raise self._not_found(f'{name_some(missing)} missing')

    def _download(self) -> None:
        root = self.data_prefix['root']
        backend = get_file_backend(root, enable_singleton=True)
        if not self.download:
            raise self._not_found('`download=False`')
        if not isinstance(backend, LocalBackend):
            raise self._not_found('downloads work with local folders only')
        try:
            download_and_extract_archive(self.url, root, filename=self.filename, md5=self.tgz_md5)
        except (OSError, RuntimeError) as error:
            raise self._not_found(f'the download failed: {error}') from error

    def _not_found(self, reason: str) -> UserError:
        return UserError(
            f'{type(self).__name__}: no data in {self._folder} ({reason}). '
            f'Set `data_root` to the folder that holds {self.base_folder}/, '
            f'set `download=True`, or get the data by hand: unpack {self.url} '
            f'into {self.data_prefix["root"]}.'
        )

    def extra_repr(self) -> list[str]:
        """The profile, besides where the data is."""
        profile = f'{self.imb_type}, imb_factor={self.imb_factor}, max_count={self.max_count}'
        return super().extra_repr() + [f'Long-tailed profile: \t{profile}']


def _no_batch(path: str, found: object) -> UserError:
    words = ' '.join(str(found).split())
    return UserError(f'{path} is not a CIFAR file: {words}')


def _gather(batches: list[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """Copy the chosen rows of several arrays as if they were one.

    Args:
        batches (list[np.ndarray]): Images, shape (n, 3072), uint8.
        chosen (np.ndarray): Indices into all of them, shape (N, ).

    Returns:
        np.ndarray: Images, shape (N, 32, 32, 3), uint8.
    """
    rows = np.empty((len(chosen), 3 * 32 * 32), dtype=np.uint8)
    start = 0
    for pixels in batches:
        local = chosen - start
        here = (local >= 0) & (local < len(pixels))
        rows[here] = pixels[local[here]]
        start += len(pixels)
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)


@DATASETS.register_module()
class CIFAR10LT(_LongTailCIFAR, CIFAR10):
    """Long-tailed `CIFAR-10 <https://www.cs.toronto.edu/~kriz/cifar.html>`_.

    The training split is the long-tailed subset of `Learning Imbalanced
    Datasets with Label-Distribution-Aware Margin Loss
    <https://arxiv.org/abs/1906.07413>`_ (up to 5,000 images per class), the
    test split the whole, balanced test set. Both state the training images
    per class as ``metainfo['class_counts']``.

    Args:
        data_root (str): The folder that holds ``cifar-10-batches-py/``.
        split (str): ``'train'`` or ``'test'``. Defaults to ``'train'``.
        imb_type (str): The profile, ``'exp'`` or ``'step'``: see
            :func:`~ride_mm.datasets.imbalance.long_tail_profile`.
            Defaults to ``'exp'``.
        imb_factor (float): Size of the smallest class over that of the
            largest one, in (0, 1]. Defaults to 0.01.
        max_count (int, optional): Size of the largest class. With fewer than
            5,000, subsets of different seeds differ in that class as well.
            Defaults to None, which means 5,000.
        subset_seed (int): Seed of the choice of training images; 0 chooses
            those that papers report on. Defaults to 0.
        check_integrity (bool): Whether to check the MD5 sums of the files.
            Set it to False for a re-packed copy. Defaults to True.
        to_bgr (bool): Whether images are BGR, as those that are loaded from
            files, instead of RGB: what is trained on them can then be given
            files. Defaults to False.
        **kwargs: Other options of :class:`mmpretrain.datasets.CIFAR10`,
            among them ``download=True``.

    Raises:
        UserError: If the profile is not possible.
        UserError: If the data is neither there nor downloaded.
        UserError: If the files are not those of the official release.
    """

    num_classes = 10
    max_count = 5000


@DATASETS.register_module()
class CIFAR100LT(_LongTailCIFAR, CIFAR100):
    """Long-tailed `CIFAR-100
    <https://www.cs.toronto.edu/~kriz/cifar.html>`_.

    As :class:`CIFAR10LT`, with up to 500 training images per class. The
    default profile has 10,847 of them, and 35, 35 and 30 many-, medium- and
    few-shot classes.

    Args:
        data_root (str): The folder that holds ``cifar-100-python/``.
        split (str): ``'train'`` or ``'test'``. Defaults to ``'train'``.
        imb_type (str): The profile, ``'exp'`` or ``'step'``.
            Defaults to ``'exp'``.
        imb_factor (float): Size of the smallest class over that of the
            largest one, in (0, 1]. Defaults to 0.01.
        max_count (int, optional): Size of the largest class. Defaults to
            None, which means 500.
        subset_seed (int): Seed of the choice of training images.
            Defaults to 0.
        check_integrity (bool): Whether to check the MD5 sums of the files.
            Defaults to True.
        **kwargs: Other options of :class:`mmpretrain.datasets.CIFAR100`.
    """

    num_classes = 100
    max_count = 500
