"""What travels from data sets to models."""
from collections.abc import Sequence
from typing import Union

import numpy as np
import torch
from mmpretrain.structures import DataSample


class BatchDataSample(Sequence):
    """The data samples of a batch, their labels as one tensor.

    A list of :class:`mmpretrain.structures.DataSample` costs a transfer
    between processes and one to the GPU for each image, this one for the
    batch. Its elements are made when they are asked for.

    Args:
        gt_label (torch.Tensor): Class indices, (N, ).
    """

    def __init__(self, gt_label: torch.Tensor) -> None:
        self.gt_label = gt_label

    def __len__(self) -> int:
        return len(self.gt_label)

    def __getitem__(self, index: int) -> DataSample:
        return DataSample().set_gt_label(self.gt_label[index].reshape(1))

    def __getstate__(self) -> np.ndarray:
        # A tensor would go through shared memory, at 1 ms for the few labels.
        return self.gt_label.numpy()

    def __setstate__(self, state: np.ndarray) -> None:
        self.gt_label = torch.from_numpy(state)

    def to(self, device: Union[str, torch.device]) -> 'BatchDataSample':
        """Move the labels to a device."""
        return BatchDataSample(self.gt_label.to(device))

    def pin_memory(self) -> 'BatchDataSample':
        """Pin the labels, as a ``DataLoader`` with ``pin_memory`` asks."""
        return BatchDataSample(self.gt_label.pin_memory())


def gather_labels(
        data_samples: Union[Sequence, BatchDataSample]) -> torch.Tensor:
    """Labels of a batch, (N, ), from data samples of either kind."""
    if isinstance(data_samples, BatchDataSample):
        return data_samples.gt_label
    return torch.cat([sample.gt_label for sample in data_samples])
