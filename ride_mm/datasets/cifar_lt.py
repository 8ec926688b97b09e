import io

import mmengine.dist as dist
import numpy as np
from mmengine.fileio import LocalBackend, exists, get, get_file_backend, join_path
from mmpretrain.datasets import CIFAR10, CIFAR100
from mmpretrain.datasets.utils import download_and_extract_archive
from mmpretrain.registry import DATASETS

from ride_mm.compat.stand_ins import load_arrays
from ride_mm.utils.errors import UserError, name_some

from .imbalance import LongTailSubset, sample_subset

SPLITS = ('train', 'test', 'unused')


@DATASETS.register_module()
class CIFAR10LT(LongTailSubset, CIFAR10):
    """Long-tailed `CIFAR-10 <https://www.cs.toronto.edu/~kriz/cifar.html>`_.

    The training split is the long-tailed subset of `Learning Imbalanced
    Datasets with Label-Distribution-Aware Margin Loss
    <https://arxiv.org/abs/1906.07413>`_ (up to 5,000 images per class), the
    test split the whole, balanced test set. The unused split holds the
    official training images that the subset leaves out, which makes it a
    validation set for the choice of hyper-parameters; a class that the subset
    takes as a whole has none. All splits state the images per class of the
    training split as ``metainfo['class_counts']``.

    Args:
        data_root (str): The folder that holds ``cifar-10-batches-py/``.
        split (str): ``'train'``, ``'test'`` or ``'unused'``. Defaults to
            ``'train'``.
        imb_type (str): The profile, ``'exp'`` or ``'step'``: see
            :func:`~ride_mm.datasets.imbalance.long_tail_profile`.
            Defaults to ``'exp'``.
        imb_factor (float): Size of the smallest class divided by that of the
            largest one, in (0, 1]. Defaults to 0.01.
        max_count (int, optional): Size of the largest class. With fewer than
            5,000, subsets of different seeds differ in that class as well.
            Defaults to None, which means 5,000.
        subset_seed (int): Seed of the choice of training images; 0 gives the
            subset that papers use. Defaults to 0.
        check_integrity (bool): Whether to check the MD5 sums of the files.
            Set it to False for a re-packed copy. Defaults to True.
        to_bgr (bool): Whether images are BGR instead of RGB, so that a model
            trained on them can be given image files, which are loaded as
            BGR. Defaults to False.
        **kwargs: Other options of :class:`mmpretrain.datasets.CIFAR10`,
            among them ``download=True``.

    Raises:
        UserError: If there is no such split, or the profile is not possible.
        UserError: If the data is missing and cannot be downloaded, or is not
            that of the official release.
    """

    num_classes = 10
    max_count = 5000

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
        if split not in SPLITS:
            raise UserError(
                f'{type(self).__name__}: split must be one of {SPLITS}, found {split!r}'
            )
        self.check_integrity = check_integrity
        self.to_bgr = to_bgr
        self._from_train_files = split != 'test'
        super().__init__(
            imb_type,
            imb_factor,
            max_count,
            subset_seed,
            data_root=data_root,
            # mmpretrain knows no other splits
            split='test' if split == 'unused' else split,
            **kwargs,
        )
        self.split = split

    def load_data_list(self) -> list[dict]:
        """Load the images of the split.

        Returns:
            list[dict]: ``img``, RGB (or BGR) uint8 of shape (32, 32, 3), and
            ``gt_label`` of each image.
        """
        self._find_data()
        files = self.train_list if self._from_train_files else self.test_list
        batches = [self._read_batch(name) for name, _ in files]
        pixels, labels = (np.concatenate(parts) for parts in zip(*batches))
        if self._from_train_files:
            chosen = sample_subset(labels, self.class_counts, self.subset_seed)
            if self.split != 'train':
                chosen = np.setdiff1d(np.arange(len(labels)), chosen)
            pixels, labels = pixels[chosen], labels[chosen]
        images = pixels.reshape(-1, 3, 32, 32)[:, :: -1 if self.to_bgr else 1]
        return self._data_list(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels)

    def _read_batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Read images, (N, 3072), uint8, and labels, (N, ), int64."""
        path = join_path(self._folder, name)
        try:
            batch = load_arrays(io.BytesIO(get(path)))
            labels = np.asarray(batch['labels' if 'labels' in batch else 'fine_labels'])
            pixels = batch['data']
        except Exception as error:  # A wrong file can fail in any way.
            raise _no_batch(path, str(error) or type(error).__name__) from error
        if labels.ndim != 1 or labels.dtype.kind not in 'iu':
            raise _no_batch(path, 'its labels are not a list of whole numbers')
        shape = (len(labels), 3 * 32 * 32)
        is_array = isinstance(pixels, np.ndarray)
        if not is_array or pixels.dtype != np.uint8 or pixels.shape != shape:
            raise _no_batch(path, f'expected `data` of shape {shape}, uint8')
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
        """Download missing files and check the MD5 sums."""
        # In one process: the sums of 180 MB take a while.
        if dist.is_main_process():
            if self._missing_files():
                self._download()
            if self.check_integrity and not self._check_integrity():
                raise UserError(
                    f'The files in {self._folder} are not those of the official release: their '
                    'MD5 sums differ. Delete the folder to have them downloaded again or, if '
                    'this is a re-packed copy, set `check_integrity=False`.'
                )
        dist.barrier()
        missing = self._missing_files()
        if missing:
            raise self._not_found(f'{name_some(missing)} missing')

    def _download(self) -> None:
        root = self.data_prefix['root']
        if not self.download:
            raise self._not_found('`download=False`')
        if not isinstance(get_file_backend(root, enable_singleton=True), LocalBackend):
            raise self._not_found('downloads work with local folders only')
        try:
            download_and_extract_archive(self.url, root, filename=self.filename, md5=self.tgz_md5)
        except (OSError, RuntimeError) as error:
            raise self._not_found(f'the download failed: {error}') from error

    def _not_found(self, reason: str) -> UserError:
        return UserError(
            f'{type(self).__name__}: no data in {self._folder} ({reason}). Set `data_root` to the '
            f'folder that holds {self.base_folder}/, set `download=True`, or get the data by '
            f'hand: unpack {self.url} into {self.data_prefix["root"]}.'
        )


def _no_batch(path: str, problem: str) -> UserError:
    return UserError(f'{path} is not a CIFAR file: {" ".join(problem.split())}')


@DATASETS.register_module()
class CIFAR100LT(CIFAR10LT, CIFAR100):
    """Long-tailed `CIFAR-100
    <https://www.cs.toronto.edu/~kriz/cifar.html>`_.

    Options are those of :class:`CIFAR10LT`; ``data_root`` holds
    ``cifar-100-python/``, and the largest class has up to 500 training
    images. The default profile has 10,847 of them, and 35, 35 and 30 many-,
    medium- and few-shot classes.
    """

    num_classes = 100
    max_count = 500
