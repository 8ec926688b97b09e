import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ride_mm.compat.plain_pickle import load_plain_pickle
from ride_mm.datasets.class_groups import resolve_thresholds
from ride_mm.utils.errors import UserError

_TOGETHER = ({'num_experts_used', 'relative_compute'}, {'router_logits', 'routed_compute'})
# Where nothing in the file says how many experts there are.
_MOST_EXPERTS = 64
# The compute of all experts is 1; routers come on top.
_MOST_COMPUTE = 2
# Of probabilities with the 8 binary digits of bfloat16.
_SUM_ERROR = 0.01
_LARGEST_LABEL = 2**31
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')


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
    pred_score: np.ndarray | None = None
    num_experts_used: np.ndarray | None = None
    relative_compute: np.ndarray | None = None
    expert_logits: np.ndarray | None = None
    router_logits: np.ndarray | None = None
    routed_compute: np.ndarray | None = None
    run: dict | None = None

    def __len__(self) -> int:
        return len(self.gt_label)

    @property
    def num_classes(self) -> int | None:
        """int, optional: The number of classes K that the model predicts.
        None without scores."""
        return None if self.pred_score is None else self.pred_score.shape[1]

    @property
    def hits(self) -> np.ndarray:
        """np.ndarray: Whether each prediction is right, shape (N, )."""
        return self.pred_label == self.gt_label


def read_predictions(path: str | Path) -> Predictions:
    """Read what ``tools/test.py CONFIG CHECKPOINT --out FILE.pkl`` wrote.

    Nothing but tensors, arrays and plain containers is unpickled, so a file
    from elsewhere cannot run code.

    Args:
        path (str | Path): The file.

    Returns:
        Predictions: Its content. Predicted labels are the best of
        ``pred_score`` where there are scores.

    Raises:
        UserError: If there is no such file, or it is not one of predictions
            with true labels, or a field is not what :class:`Predictions`
            says. The message names the field and the image.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f'There is no predictions file {path}. Write one with '
            f'`python tools/test.py CONFIG CHECKPOINT --out {path}`.'
        )
    try:
        with path.open('rb') as file:
            samples = load_plain_pickle(file)
    except Exception as e:  # a wrong file can break the unpickler anyhow
        words = ' '.join(str(e).split()) or type(e).__name__
        raise _wrong_file(path, words) from e
    return _Fields(path, samples).read()


def read_own_predictions(path: str | Path, experts: bool = False) -> Predictions:
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
    if run is None or predictions.pred_score is None:
        raise UserError(
            f'{path} does not say which run it belongs to: another tool or an '
            'older version wrote it. Recreate it with `python tools/test.py '
            'CONFIG CHECKPOINT --out FILE.pkl`.'
        )
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
            '--all-experts --out FILE.pkl`.'
        )
    return predictions


def _wrong_file(path: Path, found: str) -> UserError:
    return UserError(
        f'{path} is not a file of predictions: {found}. Write one with '
        '`python tools/test.py CONFIG CHECKPOINT --out FILE.pkl` (without '
        '`--out-item metrics`).'
    )


def _describe(content: Any) -> str:
    if isinstance(content, list):
        return 'an empty list'
    return f'a {type(content).__name__}'


class _Fields:
    """The fields of a list of samples, each checked for all of them.

    Args:
        path (Path): Where they come from.
        samples (Any): What the file holds.
    """

    def __init__(self, path: Path, samples: Any) -> None:
        self.path = path
        self.samples = samples
        if not isinstance(samples, list) or not samples:
            raise _wrong_file(
                path,
                f'it holds {_describe(samples)} instead of a list with one dict for each image',
            )
        for i, sample in enumerate(samples):
            self._check_sample(i, sample)

    def _check_sample(self, i: int, sample: Any) -> None:
        path = self.path
        if not isinstance(sample, dict):
            raise _wrong_file(path, f'entry {i} is {_describe(sample)} instead of a dict')
        if not {'pred_score', 'pred_label'} & set(sample):
            raise _wrong_file(path, f'entry {i} has neither `pred_score` nor `pred_label`')
        if 'gt_label' not in sample:
            raise _wrong_file(path, f'entry {i} does not have exactly one true label (`gt_label`)')
        for pair in _TOGETHER:
            if len(pair & set(sample)) == 1:
                raise _wrong_file(
                    path,
                    f'entry {i} has only one of '
                    + ' and '.join(f'`{name}`' for name in sorted(pair)),
                )
        if set(sample) != set(self.samples[0]):
            odd = min(map(str, set(sample) ^ set(self.samples[0])))
            raise _wrong_file(path, f'entries 0 and {i} differ: only one has `{odd}`')

    def read(self) -> Predictions:
        """Check all fields."""
        run = self._run()
        scores = self._stacked('pred_score', 1)
        classes = None if scores is None else scores.shape[1]
        logits = self._stacked('expert_logits', 2)
        experts = run and run.get('num_experts')
        if logits is not None:
            experts, named = logits.shape[1:]
            self._expect(
                'expert_logits',
                named == (classes or named),
                f'logits of {classes} classes, as `pred_score` has',
            )
        routers = self._stacked('router_logits', 1)
        compute = self._of_all('routed_compute')
        if routers is not None:
            self._expect('expert_logits', logits is not None, 'logits beside `router_logits`')
            self._expect(
                'router_logits',
                routers.shape[1] == experts - 1,
                f'{experts - 1} numbers, for {experts} experts',
            )
            self._expect(
                'routed_compute',
                len(compute) == experts,
                f'{experts} numbers, for {experts} experts',
            )
        if scores is not None:
            self._check('pred_score', (scores >= 0) & (scores <= 1), 'probabilities, from 0 to 1')
            self._check(
                'pred_score',
                np.abs(scores.sum(axis=1) - 1) <= _SUM_ERROR,
                'probabilities, whose sum is 1',
            )
        return Predictions(
            gt_label=self._labels('gt_label', 0, classes),
            pred_label=self._labels('pred_label', 0, classes)
            if scores is None
            else scores.argmax(axis=1),
            pred_score=scores,
            num_experts_used=self._labels('num_experts_used', 1, (experts or _MOST_EXPERTS) + 1),
            relative_compute=self._compute(),
            expert_logits=None if logits is None else logits.swapaxes(0, 1),
            router_logits=None if routers is None else routers.T,
            routed_compute=compute,
            run=run,
        )

    def _run(self) -> dict | None:
        """What made the predictions, one for all images."""
        if 'run' not in self.samples[0]:
            return None
        known = {}
        for i, sample in enumerate(self.samples):
            run = sample['run']
            if id(run) not in known:
                self._check_run(run)
                known[id(run)] = repr(run)
                if known[id(run)] != known[id(self.samples[0]['run'])]:
                    raise _wrong_file(
                        self.path, f'`run` of entries 0 and {i} differ: they come from two runs'
                    )
        return self.samples[0]['run']

    def _check_run(self, run: Any) -> None:
        if not isinstance(run, dict):
            raise _wrong_file(self.path, f'`run` is {_describe(run)}, expected a dict')
        for name, (valid, expected) in _RUN.items():
            if name not in run and name not in _OPTIONAL:
                raise _wrong_file(self.path, f'`run` has no `{name}`, expected {expected}')
            if name in run and not valid(run[name]):
                found = ' '.join(repr(run[name]).split())
                raise _wrong_file(self.path, f'`run` has {name}={found:.60}, expected {expected}')

    def _labels(self, field: str, low: int, end: int | None) -> np.ndarray | None:
        """A column of whole numbers from ``low`` to ``end - 1``."""
        end = end or _LARGEST_LABEL
        column = self._column(field, (int, np.integer), 'a whole number')
        if column is None:
            return None
        self._check(
            field,
            [low <= number < end for number in column],
            f'a whole number from {low} to {end - 1}',
            column,
        )
        return np.array(column, dtype=np.int64)

    def _compute(self) -> np.ndarray | None:
        column = self._column('relative_compute', (int, float, np.integer, np.floating), 'a number')
        if column is None:
            return None
        self._check(
            'relative_compute',
            [0 < number <= _MOST_COMPUTE for number in column],
            f'a number above 0 and up to {_MOST_COMPUTE}',
            column,
        )
        return np.array(column, dtype=np.float64)

    def _column(self, field: str, kinds: tuple, expected: str) -> list | None:
        if field not in self.samples[0]:
            return None
        values = [sample[field] for sample in self.samples]
        numbers = [
            value.item()
            if isinstance(value, (torch.Tensor, np.ndarray)) and math.prod(value.shape) == 1
            else value
            for value in values
        ]
        exactly = ' (exactly one true label)' if field == 'gt_label' else ''
        self._check(
            field,
            [isinstance(number, kinds) and not isinstance(number, bool) for number in numbers],
            expected + exactly,
            values,
        )
        return numbers

    def _stacked(self, field: str, dims: int) -> np.ndarray | None:
        """The numbers of all images, (N, ...)."""
        if field not in self.samples[0]:
            return None
        values = [sample[field] for sample in self.samples]
        self._check(
            field,
            [
                isinstance(value, torch.Tensor)
                or (isinstance(value, np.ndarray) and value.dtype.kind in 'iuf')
                for value in values
            ],
            'a tensor',
            values,
        )
        values = [torch.as_tensor(value) for value in values]
        self._check(
            field,
            [
                value.ndim == dims and value.is_floating_point() and value.numel()
                for value in values
            ],
            f'real numbers in {dims} dimension' + 's' * (dims > 1),
            values,
        )
        first = values[0]
        self._check(
            field,
            [value.shape == first.shape and value.dtype == first.dtype for value in values],
            f'{first.dtype} of shape {tuple(first.shape)} as in entry 0',
            values,
        )
        stacked = torch.stack(values)
        if stacked.dtype not in (torch.float32, torch.float64):
            stacked = stacked.float()
        rows = stacked.numpy()
        self._check(
            field,
            np.isfinite(rows).reshape(len(rows), -1),
            'finite numbers. Has the training diverged?',
        )
        return rows

    def _of_all(self, field: str) -> np.ndarray | None:
        """What is the same for all images: compute by number of experts."""
        rows = self._stacked(field, 1)
        if rows is None:
            return None
        if (rows != rows[0]).any():
            raise _wrong_file(
                self.path, f'`{field}` differs between images: do these images differ in size?'
            )
        rising = np.diff(rows[0], prepend=0) > 0
        self._check(
            field,
            [rising.all() and rows[0, -1] <= _MOST_COMPUTE],
            f'increasing numbers above 0, up to {_MOST_COMPUTE}',
        )
        return rows[0]

    def _expect(self, field: str, holds: bool, expected: str) -> None:
        """Check how a field fits the others, the same for all images."""
        if not holds:
            found = self.samples[0].get(field)
            raise _wrong_file(self.path, f'`{field}` is {_show(found)}, expected {expected}')

    def _check(self, field: str, valid: Any, expected: str, found: Sequence | None = None) -> None:
        """Check a field of every image; name the first wrong one."""
        valid = np.asarray(valid, dtype=bool)
        wrong = ~valid.reshape(len(valid), -1).all(axis=1)
        if not wrong.any():
            return
        i = int(np.flatnonzero(wrong)[0])
        image = self.samples[i].get('img_path')
        image = image if is_line(image) else f'entry {i}'
        value = self.samples[i][field] if found is None else found[i]
        raise UserError(f'{self.path}: `{field}` of {image} is {_show(value)}, expected {expected}')


def is_line(text: Any) -> bool:
    """Whether this is a text without control characters."""
    return isinstance(text, str) and _CONTROL.search(text) is None


def _show(value: Any) -> str:
    """What was found, in a few words."""
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim:
        numbers = value.reshape(-1)
        some = ', '.join(f'{number!r:.8}' for number in numbers[:4].tolist())
        more = ', ...' if len(numbers) > 4 else ''
        return f'[{some}{more}] of shape {tuple(value.shape)}, {str(value.dtype).split(".")[-1]}'
    return f'{" ".join(repr(value).split()):.60}'


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**53


def _are_options(options: Any) -> bool:
    return (
        isinstance(options, dict)
        and all(map(is_line, options))
        and all(map(_is_plain, options.values()))
    )


def _is_plain(value: Any) -> bool:
    """Whether this is what ``--cfg-options`` can express."""
    if isinstance(value, dict):
        return all(map(is_line, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float) or is_line(value)


def _are_thresholds(thresholds: Any) -> bool:
    try:
        resolved = resolve_thresholds(thresholds)
    except (UserError, TypeError):
        return False
    return isinstance(resolved, str) or all(map(_is_count, resolved))


# What `describe_run` writes: whether a value is right, and what is expected.
_RUN = dict(
    config=(is_line, 'the path of a config'),
    options=(_are_options, 'a dict of plain values'),
    checkpoint=(is_line, 'the path of a checkpoint'),
    weights=(lambda text: text is None or is_line(text), 'a text or None'),
    classes=(
        lambda names: (
            names is None
            or (
                isinstance(names, (list, tuple))
                and all(type(name) is int or is_line(name) for name in names)
            )
        ),
        'a list of names or None',
    ),
    class_counts=(
        lambda counts: (
            counts is None
            or (isinstance(counts, (list, tuple)) and any(counts) and all(map(_is_count, counts)))
        ),
        'a list of whole numbers from 0, not all 0, or None',
    ),
    thresholds=(_are_thresholds, 'two class sizes or the name of some'),
    num_experts=(
        lambda number: number is None or (type(number) is int and 1 <= number <= _MOST_EXPERTS),
        f'a whole number from 1 to {_MOST_EXPERTS} or None',
    ),
)
# Older versions did not write it.
_OPTIONAL = ('num_experts',)
