"""Data that datasets pass to models: labels of a batch and class counts."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmpretrain.structures import DataSample

from ride_mm.utils.errors import UserError, name_some


class TrunkMaps(NamedTuple):
    """What a frozen trunk gave for the images of a batch.

    Args:
        maps (torch.Tensor): Its last output, (N, C, H, W) or tokens (N, L, C).
    """

    maps: torch.Tensor


class BatchDataSample(Sequence):
    """The data samples of a batch, with all labels in one tensor.

    A list of :class:`mmpretrain.structures.DataSample` is transferred between
    processes and to the GPU image by image, this class in one transfer. The
    data samples are created on access.

    Args:
        gt_label (torch.Tensor): Class indices, (N, ).
        gt_score (torch.Tensor, optional): Class probabilities of mixed images,
            (N, K). Defaults to None.
    """

    def __init__(self, gt_label: torch.Tensor, gt_score: torch.Tensor | None = None) -> None:
        self.gt_label = gt_label
        self.gt_score = gt_score

    def __len__(self) -> int:
        return len(self.gt_label)

    def __getitem__(self, index) -> DataSample:
        sample = DataSample().set_gt_label(self.gt_label[index].reshape(1))
        if self.gt_score is not None:
            sample.set_gt_score(self.gt_score[index])
        return sample

    def __getstate__(self) -> tuple[np.ndarray | None, ...]:
        # Sharing a tensor between processes takes 1 ms, whatever its size.
        return tuple(self._map(torch.Tensor.numpy))

    def __setstate__(self, state: tuple[np.ndarray | None, ...]) -> None:
        label, score = state
        self.gt_label = torch.from_numpy(label)
        self.gt_score = None if score is None else torch.from_numpy(score)

    def _map(self, function: Callable) -> Iterator:
        for tensor in (self.gt_label, self.gt_score):
            yield None if tensor is None else function(tensor)

    def to(self, device: str | torch.device) -> 'BatchDataSample':
        """Move the tensors to a device."""
        return BatchDataSample(*self._map(lambda tensor: tensor.to(device)))

    def pin_memory(self) -> 'BatchDataSample':
        """Pin the tensors, as a ``DataLoader`` with ``pin_memory`` asks."""
        return BatchDataSample(*self._map(torch.Tensor.pin_memory))


def gather_labels(data_samples: Sequence | BatchDataSample) -> torch.Tensor:
    """Class indices of a batch, (N, )."""
    if isinstance(data_samples, BatchDataSample):
        return data_samples.gt_label
    return torch.cat([sample.gt_label for sample in data_samples])


def gather_scores(data_samples: Sequence | BatchDataSample) -> torch.Tensor | None:
    """Class probabilities of mixed images, (N, K); None if they are not mixed."""
    if isinstance(data_samples, BatchDataSample):
        return data_samples.gt_score
    if 'gt_score' not in data_samples[0]:
        return None
    return torch.stack([sample.gt_score for sample in data_samples]).float()


def check_class_counts(
    class_counts: Sequence[int], num_classes: int, names: Sequence[str] | None = None
) -> None:
    """Check that every class has training images.

    Args:
        class_counts (Sequence[int]): Training images per class.
        num_classes (int): Expected number of classes K.
        names (Sequence[str], optional): Class names for the error message.
            Defaults to None.

    Raises:
        UserError: If there are not K counts, or one of them is 0.
    """
    if len(class_counts) != num_classes:
        raise UserError(
            f'class_counts has {len(class_counts)} entries, but there are {num_classes} classes: '
            'check num_classes of the head and the training data'
        )
    empty = [label for label, count in enumerate(class_counts) if count <= 0]
    if empty:
        named = f' ({name_some([names[label] for label in empty])})' if names else ''
        raise UserError(
            f'{len(empty)} of {num_classes} classes have no training image: '
            f'{name_some(empty)}{named}'
        )


def missing_class_counts(user: str, option: str = 'model.head.class_counts') -> UserError:
    """The error to raise if something needs class counts that nobody has set.

    Args:
        user (str): What needs them.
        option (str): Option that sets them without the hook. Defaults to
            "model.head.class_counts".
    """
    return UserError(
        f'{user} has no class counts: add class_counts=dict(type="ClassCountsHook") to '
        f'default_hooks, or set {option}'
    )
