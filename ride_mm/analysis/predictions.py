import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from ride_mm.datasets.class_groups import resolve_thresholds
from ride_mm.utils.errors import UserError

# Kind of numbers and axes of each field of a file: images N, classes K,
# experts E and routers R = E - 1.
_FIELDS = dict(
    gt_label=('iu', 'N'),
    pred_score=('f', 'NK'),
    num_experts_used=('iu', 'N'),
    relative_compute=('f', 'N'),
    expert_logits=('f', 'NEK'),
    router_logits=('f', 'NR'),
    routed_compute=('f', 'NE'),
)
_KINDS = dict(iu='whole numbers', f='real numbers')
_TOGETHER = (('num_experts_used', 'relative_compute'), ('router_logits', 'routed_compute'))
# Where nothing in the file gives the number of experts.
_MOST_EXPERTS = 64
# The compute of all experts is 1; routers come on top.
_MOST_COMPUTE = 2
# Of probabilities with the 8 binary digits of bfloat16.
_SUM_ERROR = 0.01
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')


@dataclass(frozen=True)
class Predictions:
    """The predictions for N images.

    Attributes:
        gt_label (np.ndarray): True labels with shape (N, ).
        pred_score (np.ndarray): Probabilities with shape (N, K).
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
        run (dict): Origin of the predictions, see
            :func:`.describe_run`.
    """

    gt_label: np.ndarray
    pred_score: np.ndarray
    num_experts_used: np.ndarray | None = None
    relative_compute: np.ndarray | None = None
    expert_logits: np.ndarray | None = None
    router_logits: np.ndarray | None = None
    routed_compute: np.ndarray | None = None
    run: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.gt_label)

    @property
    def num_classes(self) -> int:
        """int: The number of classes K that the model predicts."""
        return self.pred_score.shape[1]

    @cached_property
    def pred_label(self) -> np.ndarray:
        """np.ndarray: Predicted labels, those with the best score, (N, )."""
        return self.pred_score.argmax(axis=1)

    @property
    def hits(self) -> np.ndarray:
        """np.ndarray: Whether each prediction is right, shape (N, )."""
        return self.pred_label == self.gt_label


def read_predictions(path: str | Path) -> Predictions:
    """Read what ``tools/test.py CONFIG CHECKPOINT --out FILE.npz`` wrote.

    The file is read as data: it cannot run code.

    Args:
        path (str | Path): The file.

    Returns:
        Predictions: Its content.

    Raises:
        UserError: If there is no such file, or it is not one of predictions
            with true labels, or a field is not what :class:`Predictions`
            says. The message names the field and the image.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f'There is no predictions file {path}. Write one with '
            f'`python tools/test.py CONFIG CHECKPOINT --out {path.with_suffix(".npz")}`.'
        )
    if not is_zipfile(path):
        raise _wrong_file(path, 'it is not an .npz file')
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_FIELDS, 'run') if name in file}
    except Exception as e:  # a damaged archive can raise almost anything
        raise _wrong_file(path, ' '.join(str(e).split()) or type(e).__name__) from e
    for name in ('gt_label', 'pred_score', 'run'):
        if name not in arrays:
            raise _wrong_file(path, f'it has no `{name}`')
    for pair in _TOGETHER:
        if sum(name in arrays for name in pair) == 1:
            raise _wrong_file(path, f'it has only one of `{pair[0]}` and `{pair[1]}`')
    run = _read_run(path, str(arrays.pop('run')))
    _check_shapes(path, arrays, run['num_experts'])
    _check_values(path, arrays, run['num_experts'])
    logits, routers = arrays.get('expert_logits'), arrays.get('router_logits')
    return Predictions(
        gt_label=arrays['gt_label'].astype(np.int64),
        pred_score=arrays['pred_score'],
        num_experts_used=arrays.get('num_experts_used'),
        relative_compute=arrays.get('relative_compute'),
        expert_logits=None if logits is None else logits.swapaxes(0, 1),
        router_logits=None if routers is None else routers.T,
        routed_compute=None if routers is None else arrays['routed_compute'][0],
        run=run,
    )


def read_own_predictions(path: str | Path, experts: bool = False) -> Predictions:
    """Read predictions whose run had class counts.

    Args:
        path (str | Path): The file.
        experts (bool): Whether the logits of every expert are needed.
            Defaults to False.

    Returns:
        Predictions: With ``class_counts`` in ``run``.

    Raises:
        UserError: If the file does not hold them.
    """
    predictions = read_predictions(path)
    run = predictions.run
    if run['class_counts'] is None:
        raise UserError(
            f'{path}: neither a metric nor the test set of {run["config"]} '
            'states the number of training images of each class. Add '
            "dict(type='LongTailMetric', class_counts=[...]) to its "
            'test_evaluator and test again.'
        )
    if len(run['class_counts']) != predictions.num_classes:
        raise UserError(
            f'{path} holds scores of {predictions.num_classes} classes, but '
            f'{run["config"]} has class counts of '
            f'{len(run["class_counts"])}.'
        )
    if experts and predictions.expert_logits is None:
        raise UserError(
            f'{path} holds no logits of the experts. Write them with '
            f'`python tools/test.py {run["config"]} {run["checkpoint"]} '
            '--all-experts --out FILE.npz`.'
        )
    return predictions


def check_held_out(path: str | Path, run: dict[str, Any]) -> None:
    """Check that predictions are of images to choose something on.

    Args:
        path (str | Path): The file.
        run (dict): Its origin, ``Predictions.run``.

    Raises:
        UserError: If they are of the test set.
    """
    if run['split'] != 'val':
        raise UserError(
            f'{path} holds predictions of the test set, which must not be used for this choice. '
            'Write those of the images of val_dataloader with '
            f'`python tools/test.py {run["config"]} {run["checkpoint"]} --split val '
            '--all-experts --out FILE.npz`.'
        )


def _wrong_file(path: Path, found: str) -> UserError:
    return UserError(
        f'{path} is not a file of predictions: {found}. Write one with '
        '`python tools/test.py CONFIG CHECKPOINT --out FILE.npz`.'
    )


def _read_run(path: Path, text: str) -> dict[str, Any]:
    """Parse and check the origin of the predictions."""
    try:
        run = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong_file(path, '`run` is not JSON') from error
    if not isinstance(run, dict) or not _are_lines(run):
        raise _wrong_file(
            path, f'`run` is {_show(run)}, expected a dict without control characters'
        )
    # Files of version 0.2 are all of the test set, where all classes count alike.
    run = dict(dict(split='test', prior=None, set_thresholds=None), **run)
    for name, (valid, expected) in _RUN.items():
        if name not in run:
            raise _wrong_file(path, f'`run` has no `{name}`, expected {expected}')
        if not valid(run[name]):
            raise _wrong_file(path, f'`run` has {name}={_show(run[name])}, expected {expected}')
    run['thresholds'] = resolve_thresholds(run['thresholds'])
    return run


def _check_shapes(path: Path, arrays: dict[str, np.ndarray], num_experts: int | None) -> None:
    """Check the type and shape of each array."""
    sizes = dict(N=len(np.atleast_1d(arrays['gt_label'])))
    if num_experts is not None:
        sizes.update(E=num_experts, R=num_experts - 1)
    for name, array in arrays.items():
        kinds, axes = _FIELDS[name]
        fits = array.dtype.kind in kinds and array.ndim == len(axes) and array.size
        for axis, size in zip(axes, array.shape):
            fits = fits and sizes.setdefault(axis, size) == size
            if axis == 'E':
                sizes.setdefault('R', size - 1)
        if not fits:
            expected = ', '.join(f'{axis} = {sizes[axis]}' for axis in axes if axis in sizes)
            raise _wrong_file(
                path,
                f'`{name}` is {array.dtype} of shape {array.shape}, expected {_KINDS[kinds]} '
                f'of shape ({", ".join(axes)}) with {expected}',
            )


def _check_values(path: Path, arrays: dict[str, np.ndarray], num_experts: int | None) -> None:
    """Check the range of the numbers in each array."""

    def check(name: str, valid: np.ndarray, expected: str) -> None:
        """Name the first image whose value is wrong."""
        wrong = ~np.asarray(valid).reshape(len(valid), -1).all(axis=1)
        if wrong.any():
            index = int(wrong.argmax())
            raise UserError(
                f'{path}: `{name}` of image {index} is '
                f'{_show(arrays[name][index])}, expected {expected}'
            )

    for name, array in arrays.items():
        if array.dtype.kind == 'f':
            check(name, np.isfinite(array), 'finite numbers. Has the training diverged?')
    labels, scores = arrays['gt_label'], arrays['pred_score']
    most = scores.shape[1] - 1
    check('gt_label', (labels >= 0) & (labels <= most), f'a whole number from 0 to {most}')
    check('pred_score', (scores >= 0) & (scores <= 1), 'probabilities from 0 to 1')
    check(
        'pred_score',
        np.abs(scores.sum(axis=1) - 1) <= _SUM_ERROR,
        'probabilities that sum to 1',
    )
    if 'num_experts_used' in arrays:
        used, compute = arrays['num_experts_used'], arrays['relative_compute']
        if 'expert_logits' in arrays:
            num_experts = arrays['expert_logits'].shape[1]
        most = num_experts or _MOST_EXPERTS
        check('num_experts_used', (used >= 1) & (used <= most), f'a number from 1 to {most}')
        check(
            'relative_compute',
            (compute > 0) & (compute <= _MOST_COMPUTE),
            f'a number above 0, at most {_MOST_COMPUTE}',
        )
    if 'router_logits' in arrays:
        if 'expert_logits' not in arrays:
            raise _wrong_file(path, 'it has `router_logits` but no `expert_logits`')
        compute = arrays['routed_compute']
        if (compute != compute[0]).any():
            raise _wrong_file(
                path,
                '`routed_compute` differs between images: do these images differ in size?',
            )
        check(
            'routed_compute',
            (np.diff(compute, prepend=0, axis=1) > 0) & (compute <= _MOST_COMPUTE),
            f'increasing numbers above 0, at most {_MOST_COMPUTE}',
        )


def _show(value: Any) -> str:
    """What was found, in a few words."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        more = ', ...' if value.size > 4 else ''
        return f'[{", ".join(f"{number:.6g}" for number in value.reshape(-1)[:4])}{more}]'
    return f'{" ".join(repr(value).split()):.60}'


def _are_lines(value: Any) -> bool:
    """Whether all texts in JSON data are without control characters."""
    if isinstance(value, dict):
        return _are_lines([*value, *value.values()])
    if isinstance(value, list):
        return all(map(_are_lines, value))
    return not isinstance(value, str) or _CONTROL.search(value) is None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**53


def _optional(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or valid(value)


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(type(name) in (int, str) for name in names)


def _are_counts(counts: Any) -> bool:
    return isinstance(counts, list) and any(counts) and all(map(_is_count, counts))


def _are_not_negative(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(
        type(number) in (int, float) and 0 <= number < float('inf') for number in numbers
    )


def _are_thresholds(thresholds: Any) -> bool:
    try:
        resolved = resolve_thresholds(thresholds)
    except (UserError, TypeError):
        return False
    return isinstance(resolved, str) or all(map(_is_count, resolved))


# What `describe_run` writes: whether a value is right, and what is expected.
_RUN = dict(
    config=(_is_text, 'the path of a config'),
    options=(lambda options: isinstance(options, dict), 'a dict'),
    checkpoint=(_is_text, 'the path of a checkpoint'),
    split=(lambda split: split in ('val', 'test'), '"val" or "test"'),
    prior=(_optional(_are_not_negative), 'a list of numbers from 0 or None'),
    set_thresholds=(_optional(_are_not_negative), 'a list of numbers from 0 or None'),
    weights=(_optional(_is_text), 'a string or None'),
    classes=(_optional(_are_names), 'a list of names or None'),
    class_counts=(_optional(_are_counts), 'a list of whole numbers from 0, not all 0, or None'),
    thresholds=(_are_thresholds, 'two class sizes or their name, such as "ride"'),
    num_experts=(
        _optional(lambda number: type(number) is int and 1 <= number <= _MOST_EXPERTS),
        f'a whole number from 1 to {_MOST_EXPERTS} or None',
    ),
)
