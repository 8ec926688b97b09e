"""Predictions of several trained models on the same test images."""

import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ride_mm.analysis.predictions import read_own_predictions
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine.config_changes import HOUSEKEEPING
from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track


@dataclass(frozen=True)
class EvaluatedRun:
    """The predictions of one trained model.

    Attributes:
        file (str): The file of the predictions.
        pred_label (np.ndarray): Predicted labels, (N, ).
        gt_label (np.ndarray): True labels, (N, ).
        made_by (dict): Origin of the predictions, see
            :func:`.describe_run`.
    """

    file: str
    pred_label: np.ndarray
    gt_label: np.ndarray
    made_by: dict

    @property
    def hits(self) -> np.ndarray:
        """np.ndarray: Whether each prediction is correct, (N, )."""
        return self.pred_label == self.gt_label

    @property
    def weights(self) -> str:
        """str: Hash of the checkpoint, or its path if it has no hash."""
        return self.made_by['weights'] or self.made_by['checkpoint']


@dataclass(frozen=True)
class Runs:
    """The runs of several methods on the same N test images of K classes.

    Attributes:
        methods (dict[str, list[EvaluatedRun]]): The runs of each method,
            which differ in their seeds. The first method is the baseline.
        groups (ClassGroups): The groups of the classes.
    """

    methods: dict[str, list[EvaluatedRun]]
    groups: ClassGroups

    @property
    def gt_label(self) -> np.ndarray:
        """np.ndarray: True labels, (N, )."""
        return self.methods[self.baseline][0].gt_label

    @property
    def baseline(self) -> str:
        """str: The method that the others are compared with."""
        return next(iter(self.methods))

    @property
    def others(self) -> list[str]:
        """list[str]: The methods that are compared with the baseline."""
        return list(self.methods)[1:]

    def hits(self, method: str) -> np.ndarray:
        """Stack the correctness of the R runs of a method, bool, (R, N)."""
        return np.stack([run.hits for run in self.methods[method]])

    def share_weights(self, method: str) -> bool:
        """Whether a method has the same weights as the baseline."""
        weights = [[run.weights for run in self.methods[name]] for name in (method, self.baseline)]
        return weights[0] == weights[1]


def read_runs(arguments: Sequence[str | tuple[str, str]]) -> Runs:
    """Read the predictions of several runs.

    Args:
        arguments (Sequence[str | tuple[str, str]]): Files that
            ``tools/test.py --out`` wrote, each alone, as ``METHOD=FILE`` or
            as (method, file). A method without a name is named after its
            config and the options in which runs of the config differ, except
            for seeds and paths.

    Returns:
        Runs: The runs by method, in the order of the arguments. Runs that
        share their weights with the baseline are in the baseline's order.

    Raises:
        UserError: If a file is invalid or holds no class counts, if test
            sets differ, or if two runs of a method have the same weights.
    """
    names, files = zip(*map(_split, arguments))
    runs: list[EvaluatedRun] = []
    for file in track(files, 'Reading predictions'):
        runs.append(_read(file))
        _check_same_test_set(runs[0], runs[-1])
    methods: dict[str, list[EvaluatedRun]] = {}
    for name, derived, run in zip(names, _derive_names([run.made_by for run in runs]), runs):
        methods.setdefault(name or derived, []).append(run)
    _check_weights(methods)
    _sort_like_baseline(methods)
    made_by = runs[0].made_by
    return Runs(methods, ClassGroups(made_by['class_counts'], made_by['thresholds']))


def _split(argument: str | tuple[str, str]) -> tuple[str | None, str]:
    """The name of the method, if there is one, and the file."""
    if isinstance(argument, tuple):
        return argument
    name, sign, file = argument.partition('=')
    if not sign or Path(argument).is_file():
        return None, argument
    if not name or not file:
        raise UserError(f'{argument}: expected FILE or METHOD=FILE.')
    return name, file


def _read(file: str) -> EvaluatedRun:
    """A run without its scores, which need much memory."""
    predictions = read_own_predictions(file)
    return EvaluatedRun(file, predictions.pred_label, predictions.gt_label, predictions.run)


def _check_same_test_set(first: EvaluatedRun, other: EvaluatedRun) -> None:
    labels = first.gt_label, other.gt_label
    counts, thresholds = (
        [run.made_by[key] for run in (first, other)] for key in ('class_counts', 'thresholds')
    )
    if len(labels[0]) != len(labels[1]):
        found = f'{len(labels[0])} and {len(labels[1])} images'
    elif (labels[0] != labels[1]).any():
        image = int(np.flatnonzero(labels[0] != labels[1])[0])
        found = (
            f'image {image} has class {labels[0][image]} in one and '
            f'class {labels[1][image]} in the other'
        )
    elif counts[0] != counts[1]:
        found = 'their classes differ in the number of training images'
    elif thresholds[0] != thresholds[1]:
        found = (
            f'many, medium and few are split at {thresholds[0]} in one '
            f'and at {thresholds[1]} in the other'
        )
    else:
        return
    raise UserError(
        f'{first.file} and {other.file} cannot be compared: {found}. '
        'All runs must be tested on the same images, in the same order, '
        'with the same groups.'
    )


def _derive_names(made_by: Sequence[dict]) -> list[str]:
    """Name the method of each run after its config."""
    configs = [osp.normpath(run['config']) for run in made_by]
    options = [
        {key: value for key, value in run['options'].items() if not HOUSEKEEPING.fullmatch(key)}
        for run in made_by
    ]
    names = []
    for config, own in zip(configs, options):
        same_stem = {other for other in configs if Path(other).stem == Path(config).stem}
        words = [Path(config).stem if len(same_stem) == 1 else config]
        same_config = [o for o, other in zip(options, configs) if other == config]
        words += [
            f'{key}={value}'
            for key, value in sorted(own.items())
            if any(key not in o or o[key] != value for o in same_config)
        ]
        names.append(' '.join(words))
    return names


def _check_weights(methods: dict[str, list[EvaluatedRun]]) -> None:
    for method, runs in methods.items():
        known: dict[str, EvaluatedRun] = {}
        for run in runs:
            other = known.setdefault(run.weights, run)
            if other is not run:
                raise UserError(
                    f'{other.file} and {run.file} have the same weights '
                    f'({run.made_by["checkpoint"]}) and would count as two '
                    f'seeds of {method}. Pass each seed once; two ways to '
                    'test the same weights need names: METHOD=FILE.'
                )


def _sort_like_baseline(methods: dict[str, list[EvaluatedRun]]) -> None:
    baseline = [run.weights for run in next(iter(methods.values()))]
    place = {weights: i for i, weights in enumerate(baseline)}
    for runs in methods.values():
        runs.sort(key=lambda run: place.get(run.weights, len(place)))
