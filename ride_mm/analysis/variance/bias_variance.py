"""Bias and variance of classifiers under the 0-1 loss.

Domingos, "A Unified Bias-Variance Decomposition and its Applications", ICML
2000, as in section 3 of Wang et al., "Long-tailed Recognition by Routing
Diverse Distribution-Aware Experts", ICLR 2021.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ride_mm.analysis.comparison.runs import Run, read_runs
from ride_mm.analysis.variance.bias_variance_plot import plot_bias_variance
from ride_mm.compat.atomic_backend import write_file
from ride_mm.datasets.class_groups import GROUPS, ClassGroups, GroupsLike, Thresholds, group_titles
from ride_mm.evaluation.by_group import validate_labels
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.errors import UserError

# Of a config: by group, by measure.
Figures = dict[str, dict[str, float]]
_SHOWN = ('error', 'bias', 'variance', 'net_variance', 'ties')


@dataclass(frozen=True)
class Decomposition:
    """What R models, trained on R training sets, do to each of N images.

    With h(x) the prediction of a model, y the true label and m the main
    prediction, which is what most models predict, image by image::

        error = bias + unbiased_variance - helpful_variance

    Of several labels that are predicted most often each is m to the same
    part: the mean over all ways to choose one. To take the first would give
    the tail's ties to the head where classes are numbered by size.

    Attributes:
        error (np.ndarray): The expected 0-1 loss, P[h(x) != y].
        bias (np.ndarray): 1[m != y], a fraction where there are ties.
        variance (np.ndarray): P[h(x) != m].
        unbiased_variance (np.ndarray): The variance where m = y, which adds
            to the error.
        helpful_variance (np.ndarray): P[h(x) = y] where m != y, the part of
            the variance there that takes from the error.
        ties (np.ndarray): Whether several labels are predicted most often.

    All have shape (N, ) and, but for the last one, dtype float64.
    """

    error: np.ndarray
    bias: np.ndarray
    variance: np.ndarray
    unbiased_variance: np.ndarray
    helpful_variance: np.ndarray
    ties: np.ndarray


def decompose(pred_label: np.ndarray, gt_label: np.ndarray) -> Decomposition:
    """Decompose the 0-1 loss, image by image.

    Args:
        pred_label (np.ndarray): Labels that R models predict, (R, N).
        gt_label (np.ndarray): True labels, (N, ).

    Returns:
        Decomposition: Error, bias and variance.

    Raises:
        ValueError: If the shapes do not fit, or there is no model.

    Examples:
        >>> import numpy as np
        >>> parts = decompose(np.array([[0], [0], [1], [2]]), np.array([1]))
        >>> parts.error, parts.bias, parts.variance, parts.helpful_variance
        (array([0.75]), array([1.]), array([0.5]), array([0.25]))
    """
    pred_label, gt_label = np.asarray(pred_label), np.asarray(gt_label)
    if pred_label.shape[1:] != gt_label.shape or not len(pred_label):
        raise ValueError(
            'pred_label and gt_label must have shapes (R, N) and '
            f'(N, ), R > 0, but got {pred_label.shape} and '
            f'{gt_label.shape}.'
        )
    num_models = len(pred_label)
    right = np.sum(pred_label == gt_label, axis=0)
    # How many models each one agrees with, itself among them.
    votes = np.stack([np.sum(pred_label == labels, axis=0) for labels in pred_label])
    most = votes.max(axis=0)
    # A label with the most votes is counted by each model that predicts it.
    num_main = np.sum(votes == most, axis=0) // most
    unbiased = np.where(right == most, 1 / num_main, 0.0)
    variance = (num_models - most) / num_models
    return Decomposition(
        error=(num_models - right) / num_models,
        bias=1 - unbiased,
        variance=variance,
        unbiased_variance=unbiased * variance,
        helpful_variance=(1 - unbiased) * right / num_models,
        ties=num_main > 1,
    )


def bias_variance(
    pred_label: np.ndarray, gt_label: np.ndarray, groups: GroupsLike
) -> dict[str, dict[str, float]]:
    """Compute bias and variance overall and by class size.

    They are averaged over the images of a class, then over the classes of a
    group, or over all of them: classes count alike.

    Args:
        pred_label (np.ndarray): Labels that R models predict, (R, N).
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).

    Returns:
        dict[str, dict[str, float]]: Under 'many', 'medium', 'few' and
        'overall' the number of classes and, in percent, the measures of
        :class:`Decomposition`; 'net_variance' is the unbiased variance less
        the helpful one, so that error = bias + net_variance. Classes without
        images are passed over, a group without any is left out.

    Raises:
        UserError: If a label is not a class.
    """
    groups = ClassGroups.of(groups)
    num_classes = len(groups)
    validate_labels(np.asarray(gt_label), num_classes, 'True label')
    validate_labels(np.asarray(pred_label), num_classes, 'Predicted label')
    parts = decompose(pred_label, gt_label)
    images = np.bincount(gt_label, minlength=num_classes)
    tested = images > 0
    masks = dict(groups.masks, overall=np.ones(num_classes, dtype=bool))
    figures = {
        name: dict(classes=int(np.sum(classes & tested)))
        for name, classes in masks.items()
        if np.any(classes & tested)
    }
    for measure, shares in vars(parts).items():
        sums = np.bincount(gt_label, shares, num_classes)
        by_class = 100.0 * sums / np.maximum(images, 1)
        for name, values in figures.items():
            values[measure] = float(by_class[masks[name] & tested].mean())
    for values in figures.values():
        values['net_variance'] = values['unbiased_variance'] - values['helpful_variance']
    return figures


def bias_variance_table(
    figures: dict[str, Figures], num_runs: int, thresholds: Thresholds
) -> Table:
    """Lay out bias and variance of some configs, group by group.

    Args:
        figures (dict[str, dict]): What :func:`bias_variance` returns, by the
            name of the config.
        num_runs (int): Number of models of a config.
        thresholds (str | Sequence[int]): What many, medium and few are.

    Returns:
        rich.table.Table: The table, for ``rich.print``.
    """
    titles = group_titles(thresholds)
    rows = [
        [
            titles[group],
            name,
            str(groups[group]['classes']),
            *(f'{groups[group][measure]:.2f}' for measure in _SHOWN),
        ]
        for group in (*GROUPS, 'overall')
        for name, groups in figures.items()
        if group in groups
    ]
    table = build_table(
        f'Bias and variance of {num_runs} runs (%): error = bias + net variance',
        [
            'training images',
            'config',
            'classes',
            *(measure.replace('_', ' ') for measure in _SHOWN),
        ],
        rows,
    )
    table.columns[1].justify = 'left'
    return table


def compare_bias_variance(
    folders: Sequence[str | Path],
    plot: str | Path | None = None,
    json_file: str | Path | None = None,
) -> dict[str, Figures]:
    """Print and draw bias and variance of what a sweep has trained.

    Args:
        folders (Sequence[str | Path]): The folder of each config's runs,
            which ``tools/sweep.py --resample`` wrote.
        plot (str | Path, optional): The picture to write. Defaults to None,
            which means none.
        json_file (str | Path, optional): Where to write the figures as JSON.
            Defaults to None, which means nowhere.

    Returns:
        dict[str, dict]: What :func:`bias_variance` returns, by the name of
        the folder.

    Raises:
        UserError: If the configs cannot be compared, or have other numbers
            of runs.
    """
    named = [
        f'{Path(folder).name}={file}'
        for folder in folders
        for file in _prediction_files(Path(folder))
    ]
    runs = read_runs(named)
    for name, models in runs.methods.items():
        _check_samples(name, models, len(runs.methods[runs.baseline]))
    figures = {
        name: bias_variance(
            np.stack([run.pred_label for run in models]), runs.gt_label, runs.groups
        )
        for name, models in runs.methods.items()
    }
    # Wide enough for any name, also where the output is a pipe.
    Console(width=1000).print(
        bias_variance_table(figures, len(runs.methods[runs.baseline]), runs.groups.thresholds)
    )
    if plot is not None:
        print(plot_bias_variance(figures, plot, runs.groups.thresholds))
    if json_file is not None:
        content = {
            name: dict(runs=len(runs.methods[name]), groups=groups)
            for name, groups in figures.items()
        }
        write_file(json_file, json.dumps(content, indent=2) + '\n')
        print(json_file)
    return figures


def _prediction_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob('seed_*/predictions.npz'))
    if not files:
        raise UserError(
            f'{folder}: expected the runs of a config, '
            'seed_0/predictions.npz and so on, which '
            'tools/sweep.py --resample writes'
        )
    return files


def _check_samples(name: str, models: Sequence[Run], expected: int) -> None:
    """Check that each model has a training set of its own."""
    if len(models) != expected:
        raise UserError(
            f'{name} has {len(models)} runs, the first config '
            f'{expected}: fewer runs give a lower variance'
        )
    samples = {
        tuple(
            (key, value)
            for key, value in run.made_by['options'].items()
            if key.startswith('train_dataloader.') and key.endswith(('.subset_seed', '.seed'))
        )
        for run in models
    }
    if len(samples) < len(models):
        raise UserError(
            f'{name}: some of these runs had the same training '
            'images; use tools/sweep.py --resample to give each '
            'run its own'
        )
