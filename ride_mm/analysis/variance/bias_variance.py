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
from matplotlib import colormaps
from rich.table import Table

from ride_mm.analysis.comparison.runs import EvaluatedRun, read_runs
from ride_mm.analysis.style import INK, PANEL_TITLE, SOFT, clean, new_figure, save, set_head
from ride_mm.datasets.class_groups import GROUPS, ClassGroups, GroupsLike
from ride_mm.evaluation.by_group import validate_labels
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.utils.errors import UserError
from ride_mm.utils.files import write_file

# The figures of one config: by group, by measure.
Figures = dict[str, dict[str, float]]
_SHOWN = ('error', 'bias', 'variance', 'net_variance', 'ties')
# With more bars per panel there is no room for the numbers above them.
_MAX_LABELS = 12


@dataclass(frozen=True)
class Decomposition:
    """Bias and variance of R models, for each of N images.

    With h(x) the prediction of a model, y the true label and m the main
    prediction (the most frequent prediction for the image)::

        error = bias + unbiased_variance - helpful_variance

    If several labels are most frequent, the mean over all choices of m is
    taken. Choosing the first of them would favor head classes in datasets
    whose classes are numbered by size.

    All attributes have shape (N, ) and, except ``ties``, dtype float64.

    Attributes:
        error (np.ndarray): Expected 0-1 loss, P[h(x) != y].
        bias (np.ndarray): 1[m != y], a fraction in case of ties.
        variance (np.ndarray): P[h(x) != m].
        unbiased_variance (np.ndarray): The variance where m = y, which
            increases the error.
        helpful_variance (np.ndarray): P[h(x) = y] where m != y, the part of
            the variance that decreases the error.
        ties (np.ndarray): Whether several labels are most frequent, bool.
    """

    error: np.ndarray
    bias: np.ndarray
    variance: np.ndarray
    unbiased_variance: np.ndarray
    helpful_variance: np.ndarray
    ties: np.ndarray


def decompose(pred_label: np.ndarray, gt_label: np.ndarray) -> Decomposition:
    """Decompose the 0-1 loss of each image.

    Args:
        pred_label (np.ndarray): Predicted labels of R models, (R, N).
        gt_label (np.ndarray): True labels, (N, ).

    Returns:
        Decomposition: Error, bias and variance.

    Raises:
        ValueError: If the shapes do not match, or there is no model.

    Examples:
        >>> import numpy as np
        >>> parts = decompose(np.array([[0], [0], [1], [2]]), np.array([1]))
        >>> parts.error, parts.bias, parts.variance, parts.helpful_variance
        (array([0.75]), array([1.]), array([0.5]), array([0.25]))
    """
    pred_label, gt_label = np.asarray(pred_label), np.asarray(gt_label)
    num_models = len(pred_label)
    if pred_label.shape[1:] != gt_label.shape or not num_models:
        raise ValueError(
            'pred_label and gt_label must have shapes (R, N) and (N, ), R > 0, '
            f'but got {pred_label.shape} and {gt_label.shape}.'
        )
    right = np.sum(pred_label == gt_label, axis=0)
    # The number of models with the same prediction, for each model.
    votes = np.stack([np.sum(pred_label == labels, axis=0) for labels in pred_label])
    most = votes.max(axis=0)
    # Each model that predicts a most frequent label counts it once.
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


def bias_variance(pred_label: np.ndarray, gt_label: np.ndarray, groups: GroupsLike) -> Figures:
    """Compute bias and variance, overall and by class size.

    They are averaged over the images of each class, then over the classes of
    a group or over all classes, with equal weights.

    Args:
        pred_label (np.ndarray): Predicted labels of R models, (R, N).
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): The groups of the classes, or
            the training images per class, (K, ).

    Returns:
        dict[str, dict[str, float]]: Under 'many', 'medium', 'few' and
        'overall' the number of 'classes' and, in percent, the measures of
        :class:`Decomposition` and 'net_variance', the unbiased variance
        minus the helpful one, so that error = bias + net_variance. Classes
        without images, and groups without such classes, are left out.

    Raises:
        UserError: If a label is not a class.
    """
    groups = ClassGroups.of(groups)
    num_classes = len(groups)
    validate_labels(np.asarray(gt_label), num_classes, 'True label')
    validate_labels(np.asarray(pred_label), num_classes, 'Predicted label')
    images = np.bincount(gt_label, minlength=num_classes)
    by_class = {
        measure: 100.0 * np.bincount(gt_label, shares, num_classes) / np.maximum(images, 1)
        for measure, shares in vars(decompose(pred_label, gt_label)).items()
    }
    figures: Figures = {}
    for name, classes in dict(groups.masks, overall=np.full(num_classes, True)).items():
        tested = classes & (images > 0)
        if tested.any():
            means = {measure: float(values[tested].mean()) for measure, values in by_class.items()}
            net_variance = means['unbiased_variance'] - means['helpful_variance']
            figures[name] = dict(classes=int(tested.sum()), **means, net_variance=net_variance)
    return figures


def bias_variance_table(figures: dict[str, Figures], num_runs: int, groups: ClassGroups) -> Table:
    """Build a table of bias and variance by group and config.

    Args:
        figures (dict[str, dict]): See :func:`bias_variance`, by the name of
            the config.
        num_runs (int): Number of models per config.
        groups (ClassGroups): The groups of the classes.

    Returns:
        rich.table.Table: The table, for ``rich.print``.
    """
    rows = [
        [groups.titles[group], name, str(values[group]['classes'])]
        + [f'{values[group][measure]:.2f}' for measure in _SHOWN]
        for group in (*GROUPS, 'overall')
        for name, values in figures.items()
        if group in values
    ]
    title = f'Bias and variance of {num_runs} runs (%): error = bias + net variance'
    columns = ['training images', 'config', 'classes', *_SHOWN]
    table = build_table(title, [column.replace('_', ' ') for column in columns], rows)
    table.columns[1].justify = 'left'
    return table


def plot_bias_variance(figures: dict[str, Figures], groups: ClassGroups, path: str | Path) -> Path:
    """Plot bias and variance by group, with one bar per config.

    Args:
        figures (dict[str, dict]): See :func:`bias_variance`, by the name of
            the config.
        groups (ClassGroups): The groups of the classes, for the labels.
        path (str | Path): Where to save the plot, see :func:`.save`.

    Returns:
        Path: The file.
    """
    names = [
        name for name in (*GROUPS, 'overall') if any(name in values for values in figures.values())
    ]
    titles = [groups.titles[name].replace(' (', '\n(') for name in names]
    figure = new_figure(4.8)
    panels = figure.subplots(1, 2, sharey=True)
    colors = colormaps['viridis'](np.linspace(0.15, 0.8, len(figures)))
    width = 0.8 / len(figures)
    for axes, measure in zip(panels, ('bias', 'variance')):
        for i, (config, values) in enumerate(figures.items()):
            places = np.arange(len(names)) + (i - (len(figures) - 1) / 2) * width
            heights = [values.get(name, {}).get(measure, 0) for name in names]
            bars = axes.bar(places, heights, width=0.94 * width, color=colors[i], label=config)
            if len(figures) * len(names) <= _MAX_LABELS:
                axes.bar_label(bars, fmt='%.1f', fontsize=9, padding=2, color=INK)
        axes.axvline(len(names) - 1.5, color=SOFT, linewidth=0.8, ls=(0, (4, 3)))
        axes.set_title(measure, **PANEL_TITLE)
        axes.set_xticks(range(len(names)), titles, fontsize=11)
        clean(axes, grid='y')
        axes.tick_params(axis='x', length=0)
    panels[0].set_ylabel('% of the test images, averaged over classes')
    set_head(figure, 'Bias and variance by class size')
    return save(figure, path)


def compare_bias_variance(
    folders: Sequence[str | Path],
    plot: str | Path | None = None,
    json_file: str | Path | None = None,
) -> dict[str, Figures]:
    """Print and plot bias and variance of the configs of a sweep.

    Args:
        folders (Sequence[str | Path]): The folder with the runs of each
            config, written by ``tools/sweep.py --resample``.
        plot (str | Path, optional): Where to save the plot. Defaults to
            None, which means no plot.
        json_file (str | Path, optional): Where to save the figures as JSON.
            Defaults to None, which means nowhere.

    Returns:
        dict[str, dict]: See :func:`bias_variance`, by the name of the
        folder, or by its path if several have the same name.

    Raises:
        UserError: If the configs cannot be compared, or differ in their
            number of runs.
    """
    names = [Path(folder).absolute().name for folder in folders]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    runs = read_runs(
        [
            (name, str(file))
            for name, folder in zip(names, folders)
            for file in _prediction_files(Path(folder))
        ]
    )
    num_runs = len(runs.methods[runs.baseline])
    for name, models in runs.methods.items():
        _check_samples(name, models, num_runs)
    figures = {
        name: bias_variance(
            np.stack([run.pred_label for run in models]), runs.gt_label, runs.groups
        )
        for name, models in runs.methods.items()
    }
    print_tables(bias_variance_table(figures, num_runs, runs.groups))
    if plot is not None:
        print(plot_bias_variance(figures, runs.groups, plot))
    if json_file is not None:
        content = {name: dict(runs=num_runs, groups=groups) for name, groups in figures.items()}
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


def _check_samples(name: str, models: Sequence[EvaluatedRun], expected: int) -> None:
    """Check that each model has a training set of its own."""
    if len(models) != expected:
        raise UserError(
            f'{name} has {len(models)} runs, but the first config has '
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
            f'{name}: some of these runs had the same training images; use '
            'tools/sweep.py --resample to give each run its own'
        )
