import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Union

import numpy as np
import torch

from ride_mm.evaluation.class_group_metric import name_image
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
    """The predictions for N images.

    Attributes:
        gt_label (np.ndarray): True labels with shape (N, ).
        pred_label (np.ndarray): Predicted labels with shape (N, ).
        pred_score (np.ndarray, optional): Probabilities with shape (N, K).
            None if the file holds no scores.
        num_experts_used (np.ndarray, optional): Experts that each image ran,
            shape (N, ). None if the model has no experts.
        relative_compute (np.ndarray, optional): Multiply-adds of each image
            divided by those of all experts, shape (N, ). None if the model
            has no experts.
        expert_logits (np.ndarray, optional): Logits of every expert, shape
            (E, N, K). None unless they were asked for (``--all-experts``).
        router_logits (np.ndarray, optional): Logits of every router, shape
            (E - 1, N). None unless they were asked for and there is a
            trained router.
        routed_compute (np.ndarray, optional): ``relative_compute`` of an
            image that runs 1..E experts, shape (E, ). None where there are
            no ``router_logits``.
        run (dict, optional): What made the predictions, see
            :func:`~ride_mm.evaluation.describe_run`. None if another tool
            wrote them.
    """
    gt_label: np.ndarray
    pred_label: np.ndarray
    pred_score: Optional[np.ndarray] = None
    num_experts_used: Optional[np.ndarray] = None
    relative_compute: Optional[np.ndarray] = None
    expert_logits: Optional[np.ndarray] = None
    router_logits: Optional[np.ndarray] = None
    routed_compute: Optional[np.ndarray] = None
    run: Optional[dict] = None

    def __len__(self) -> int:
        return len(self.gt_label)

    @property
    def num_classes(self) -> Optional[int]:
        """int, optional: The number of classes K that the model predicts.
        None without scores."""
        return None if self.pred_score is None else self.pred_score.shape[1]

    @property
    def hits(self) -> np.ndarray:
        """np.ndarray: Whether each prediction is right, shape (N, )."""
        return self.pred_label == self.gt_label


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
            predictions with true labels, or scores are no finite numbers.
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
    try:
        return _parse(path, samples)
    except UserError:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError) as e:
        raise _wrong_file(path, str(e)) from e


def _parse(path: Path, samples: Any) -> Predictions:
    _validate_samples(path, samples)
    scores = _stacked(path, samples, 'pred_score')
    logits = _stacked(path, samples, 'expert_logits')
    routers = _stacked(path, samples, 'router_logits')
    return Predictions(
        gt_label=_column(samples, 'gt_label', np.int64),
        pred_label=_column(samples, 'pred_label', np.int64)
        if scores is None else scores.argmax(axis=1),
        pred_score=scores,
        num_experts_used=_column(samples, 'num_experts_used', np.int64),
        relative_compute=_column(samples, 'relative_compute', np.float64),
        expert_logits=None if logits is None else logits.swapaxes(0, 1),
        router_logits=None if routers is None else routers.T,
        routed_compute=_of_all(path, samples, 'routed_compute'),
        run=samples[0].get('run'))


def read_own_predictions(path: Union[str, Path],
                         experts: bool = False) -> Predictions:
    """Read predictions that say what made them.

    Args:
        path (str | Path): The file.
        experts (bool): Whether what each expert and router says is needed.
            Defaults to False.

    Returns:
        Predictions: With scores and ``run``, and with ``class_counts`` in
        it.

    Raises:
        UserError: If the file does not hold them.
    """
    predictions = read_predictions(path)
    run = predictions.run
    if not isinstance(run, dict) or predictions.pred_score is None:
        raise UserError(
            f'{path} does not say which run it is of: another tool or an '
            'older version wrote it. Write it anew with '
            '`python tools/test.py CONFIG CHECKPOINT --out FILE.pkl`.')
    if run['class_counts'] is None:
        raise UserError(
            f'{path}: neither a metric nor the test set of {run["config"]} '
            'knows the training images of each class. Add '
            "dict(type='LongTailMetric', class_counts=[...]) to its "
            'test_evaluator and test again.')
    if len(run['class_counts']) != predictions.num_classes:
        raise UserError(
            f'{path} holds scores of {predictions.num_classes} classes, but '
            f'{run["config"]} has class counts of '
            f'{len(run["class_counts"])}.')
    if experts and predictions.expert_logits is None:
        raise UserError(
            f'{path} holds no logits of the experts. Write them with '
            f'`python tools/test.py {run["config"]} {run["checkpoint"]} '
            '--all-experts --out FILE.pkl`.')
    return predictions


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


def _stacked(path: Path, samples: List[dict],
             field: str) -> Optional[np.ndarray]:
    if field not in samples[0]:
        return None
    values = torch.stack([s[field] for s in samples])
    wrong = ~values.isfinite().flatten(1).all(dim=1)
    if wrong.any():
        image = name_image(samples[int(wrong.nonzero()[0])])
        raise UserError(f'{path}: `{field}` of {image} is not all finite '
                        'numbers. Has the training diverged?')
    return values.numpy()


def _of_all(path: Path, samples: List[dict],
            field: str) -> Optional[np.ndarray]:
    """What is the same for all images."""
    rows = _stacked(path, samples, field)
    if rows is None:
        return None
    if (rows != rows[0]).any():
        raise _wrong_file(path, f'`{field}` differs from image to image: are '
                          'these images of different sizes?')
    return rows[0]
