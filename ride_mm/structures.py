"""Data that datasets pass to models."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from mmpretrain.structures import DataSample

from ride_mm.utils.errors import UserError, name_some


class BatchDataSample(Sequence):
    """The data samples of a batch, their labels as one tensor.

    A list of :class:`mmpretrain.structures.DataSample` costs a transfer
    between processes and one to the GPU for each image, this one for the
    batch. Its elements are made when they are asked for.

    Args:
        gt_label (torch.Tensor): Class indices, (N, ).
        gt_score (torch.Tensor, optional): Shares of the classes of mixed
            images, (N, K). Defaults to None.
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
        # A tensor would go through shared memory, at 1 ms for the few labels.
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
    """Labels of a batch, (N, ), from data samples of either kind."""
    if isinstance(data_samples, BatchDataSample):
        return data_samples.gt_label
    return torch.cat([sample.gt_label for sample in data_samples])


def gather_scores(data_samples: Sequence | BatchDataSample) -> torch.Tensor | None:
    """Shares of the classes, (N, K), of mixed images; None of others."""
    if isinstance(data_samples, BatchDataSample):
        return data_samples.gt_score
    if 'gt_score' not in data_samples[0]:
        return None
    return torch.stack([sample.gt_score for sample in data_samples]).float()


def check_class_counts(
    class_counts: Sequence[int], num_classes: int, names: Sequence[str] | None = None
) -> None:
    """Check that each class has a training image.

    Args:
        class_counts (Sequence[int]): Training images per class.
        num_classes (int): Expected number of classes K.
        names (Sequence[str], optional): Names of the classes, for the
            message. Defaults to None.

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
