import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Union

import numpy as np
import torch

from ride_mm.utils.errors import UserError

# What the dump of a data sample consists of: tensors, and the NumPy arrays
# and scalars of its meta information.
_NUMPY_CORES = ('numpy.core.multiarray', 'numpy._core.multiarray')
_ALLOWED = {
    ('collections', 'OrderedDict'),
    ('_codecs', 'encode'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    *((core, name) for core in _NUMPY_CORES
      for name in ('_reconstruct', 'scalar')),
}


@dataclass(frozen=True)
class Predictions:
    """The predictions for N images, in a few numbers per image.

    Attributes:
        gt_label (np.ndarray): True labels with shape (N, ).
        pred_label (np.ndarray): Predicted labels with shape (N, ).
        num_classes (int, optional): The number of classes K that the model
            predicts. None if the file holds no scores.
        num_experts_used (np.ndarray, optional): Experts that each image ran,
            shape (N, ). None if the model has no experts.
        relative_compute (np.ndarray, optional): Multiply-adds of each image
            divided by those of all experts, shape (N, ). None if the model
            has no experts.
    """
    gt_label: np.ndarray
    pred_label: np.ndarray
    num_classes: Optional[int] = None
    num_experts_used: Optional[np.ndarray] = None
    relative_compute: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.gt_label)


class _SafeUnpickler(pickle.Unpickler):
    """Unpickles tensors, arrays and plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return _load_storage
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f'it holds a {module}.{name}, which is not part of predictions')


def _load_storage(content: bytes):
    """Load the storage of a tensor without trusting its content."""
    return torch.load(
        io.BytesIO(content), map_location='cpu', weights_only=True)


def read_predictions(path: Union[str, Path]) -> Predictions:
    """Read what ``tools/test.py CONFIG CHECKPOINT --out FILE.pkl`` wrote.

    Nothing but tensors, arrays and plain containers is unpickled, so a file
    from elsewhere cannot run code.

    Args:
        path (str | Path): The file.

    Returns:
        Predictions: Its content. Predicted labels are the best of
        ``pred_score`` where there are scores.

    Raises:
        UserError: If there is no such file, or if it is not one of
            predictions with true labels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f'There is no predictions file {path}. Write one with '
            f'`python tools/test.py CONFIG CHECKPOINT --out {path}`.')
    try:
        with path.open('rb') as file:
            samples = _SafeUnpickler(file).load()
    except Exception as e:  # a wrong file can break the unpickler anyhow
        raise _wrong_file(path, f'{e or type(e).__name__}') from e
    _validate_samples(path, samples)

    has_scores = 'pred_score' in samples[0]
    return Predictions(
        gt_label=_column(samples, 'gt_label', np.int64),
        pred_label=np.array(
            [int(s['pred_score'].argmax()) for s in samples])
        if has_scores else _column(samples, 'pred_label', np.int64),
        num_classes=len(samples[0]['pred_score']) if has_scores else None,
        num_experts_used=_column(samples, 'num_experts_used', np.int64),
        relative_compute=_column(samples, 'relative_compute', np.float64))


def _wrong_file(path: Path, found: str) -> UserError:
    return UserError(
        f'{path} is not a file of predictions: {found}. Write one with '
        '`python tools/test.py CONFIG CHECKPOINT --out FILE.pkl` (without '
        '`--out-item metrics`).')


def _validate_samples(path: Path, samples: Any) -> None:
    if not isinstance(samples, list) or not samples:
        raise _wrong_file(
            path, f'it holds {_describe(samples)} instead of a list with one '
            'dict for each image')
    for i, sample in enumerate(samples):
        if not isinstance(sample, dict):
            raise _wrong_file(
                path, f'entry {i} is {_describe(sample)} instead of a dict')
        if not {'pred_score', 'pred_label'} & set(sample):
            raise _wrong_file(
                path, f'entry {i} has neither `pred_score` nor `pred_label`')
        label = sample.get('gt_label')
        if label is None or torch.as_tensor(label).numel() != 1:
            raise _wrong_file(
                path, f'entry {i} does not have exactly one true label '
                '(`gt_label`)')
        if ('num_experts_used' in sample) != ('relative_compute' in sample):
            raise _wrong_file(
                path, f'entry {i} has only one of `num_experts_used` and '
                '`relative_compute`')
        if set(sample) != set(samples[0]):
            odd = sorted(set(sample) ^ set(samples[0]))[0]
            raise _wrong_file(
                path, f'entries 0 and {i} differ: only one has `{odd}`')


def _describe(content: Any) -> str:
    if isinstance(content, list):
        return 'an empty list'
    return f'a {type(content).__name__}'


def _column(samples: List[dict], field: str, dtype) -> Optional[np.ndarray]:
    if field not in samples[0]:
        return None
    return np.array([float(s[field]) for s in samples]).astype(dtype)
