"""Predictions of several trained models on the same test images."""

import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ride_mm.analysis.predictions import Predictions, read_own_predictions
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine.config_changes import HOUSEKEEPING
from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track


@dataclass(frozen=True)
class Run:
    """What one trained model predicts.

    Attributes:
        file (str): The file of the predictions.
        hits (np.ndarray): Whether each prediction is right, shape (N, ).
        made_by (dict): What made them, see
            :func:`~ride_mm.evaluation.describe_run`.
        pred_label (np.ndarray, optional): Predicted labels, shape (N, ).
    """

    file: str
    hits: np.ndarray
    made_by: dict
    pred_label: np.ndarray | None = None

    @property
    def weights(self) -> str:
        """str: What tells the trained model from another one."""
        return self.made_by['weights'] or self.made_by['checkpoint']


@dataclass(frozen=True)
class Runs:
    """The runs of several methods on the same N test images of K classes.

    Attributes:
        methods (dict[str, list[Run]]): The runs of each method, which differ
            in their seeds. The first method is the baseline.
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups): The class groups.
    """

    methods: dict[str, list[Run]]
    gt_label: np.ndarray
    groups: ClassGroups

    @property
    def baseline(self) -> str:
        """str: The method that the others are compared with."""
        return next(iter(self.methods))

    @property
    def others(self) -> list[str]:
        """list[str]: The methods that are compared with the baseline."""
        return list(self.methods)[1:]

    def hits(self, method: str) -> np.ndarray:
        """What is right in the R runs of a method, bool, shape (R, N)."""
        return np.stack([run.hits for run in self.methods[method]])

    def share_weights(self, method: str) -> bool:
        """Whether a method is the baseline's weights, tested otherwise."""
        weights = [[run.weights for run in self.methods[name]] for name in (method, self.baseline)]
        return weights[0] == weights[1]


def read_runs(arguments: Sequence[str]) -> Runs:
    """Read the predictions of several runs.

    Args:
        arguments (Sequence[str]): Files that ``tools/test.py --out`` wrote,
            each alone or as ``METHOD=FILE``. Without a name the method is
            the config's, with the options in which runs of one config
            differ; the seed and where the data lies are none.

    Returns:
        Runs: By method, in the order of the arguments. Runs of weights that
        the baseline has as well stand in the baseline's order.

    Raises:
        UserError: If a file is not one of predictions that say what made
            them, or two are of different test sets, or of the same weights
            and the same method.
    """
    named = [_split(argument) for argument in arguments]
    files = [file for _, file in named]
    labels, hits, made_by, first = [], [], [], None
    for file in track(files, 'Reading predictions'):
        predictions = read_own_predictions(file)
        first = first or predictions
        _check_same_test_set(files[0], first, file, predictions)
        labels.append(predictions.pred_label)
        hits.append(predictions.hits)
        made_by.append(predictions.run)
        del predictions  # scores of many classes fill the memory

    methods = {}
    for (name, _), derived, run in zip(
        named, _derive_names(made_by), map(Run, files, hits, made_by, labels)
    ):
        methods.setdefault(name or derived, []).append(run)
    _check_weights(methods)
    _sort_like_baseline(methods)
    return Runs(
        methods, first.gt_label, ClassGroups(first.run['class_counts'], first.run['thresholds'])
    )


def _split(argument: str) -> tuple[str | None, str]:
    """The name of the method, where there is one, and the file."""
    name, sign, file = argument.partition('=')
    if not sign or Path(argument).is_file():
        return None, argument
    if not name or not file:
        raise UserError(f'{argument}: expected FILE or METHOD=FILE.')
    return name, file


def _check_same_test_set(
    first_file: str, first: Predictions, file: str, other: Predictions
) -> None:
    labels = first.gt_label, other.gt_label
    counts, thresholds = (
        [p.run[key] for p in (first, other)] for key in ('class_counts', 'thresholds')
    )
    if len(first) != len(other):
        found = f'{len(first)} and {len(other)} images'
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
        f'{first_file} and {file} cannot be compared: {found}. '
        'All runs have to be tested on the same images, in the '
        'same order, with the same groups.'
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
        alike = {other for other in configs if Path(other).stem == Path(config).stem}
        name = Path(config).stem if len(alike) == 1 else config
        beside = [o for o, other in zip(options, configs) if other == config]
        names.append(
            ' '.join(
                [name]
                + [
                    f'{key}={value}'
                    for key, value in sorted(own.items())
                    if any(key not in o or o[key] != value for o in beside)
                ]
            )
        )
    return names


def _check_weights(methods: dict[str, list[Run]]) -> None:
    for method, runs in methods.items():
        known = {}
        for run in runs:
            other = known.setdefault(run.weights, run)
            if other is not run:
                raise UserError(
                    f'{other.file} and {run.file} have the same weights '
                    f'({run.made_by["checkpoint"]}) and would count as two '
                    f'seeds of {method}. Give each seed once; two ways to '
                    'test the same weights need names: METHOD=FILE.'
                )


def _sort_like_baseline(methods: dict[str, list[Run]]) -> None:
    baseline = [run.weights for run in next(iter(methods.values()))]
    place = {weights: i for i, weights in enumerate(baseline)}
    for runs in methods.values():
        runs.sort(key=lambda run: place.get(run.weights, len(place)))
