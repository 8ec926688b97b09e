"""Comparison of methods over their seeds and the test images."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import mmengine
import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from ride_mm.analysis.accuracy.accuracy_by_class import bar_note, draw_classes, label_classes
from ride_mm.analysis.comparison.intervals import LEVEL, Difference, bootstrap, check_draws
from ride_mm.analysis.comparison.runs import Runs, read_runs
from ride_mm.analysis.style import (
    GROUP_COLORS,
    INK,
    PANEL_TITLE,
    SOFT,
    check_format,
    clean,
    new_figure,
    save,
    set_head,
)
from ride_mm.datasets.class_groups import GROUPS
from ride_mm.evaluation import accuracy_by_class, long_tail_accuracy
from ride_mm.evaluation.long_tail import MEAN_TITLES
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.utils.errors import UserError

FIGURES = ('overall', 'balanced', *GROUPS)
# Parts of a group that get an interval of their own.
_PARTS = 4
_NOTE = (
    f'Whiskers: {100 * LEVEL:g}% intervals. Filled: differs from 0. '
    'Right: diamonds are means over classes of similar size.'
)


@dataclass(frozen=True)
class Comparison:
    """Accuracies of several methods, and their differences from a baseline.

    Attributes:
        runs (Runs): The compared runs.
        figures (dict[str, list[dict[str, float]]]): Accuracy of every run of
            each method in percent, see :func:`.long_tail_accuracy`.
        by_class (dict[str, np.ndarray]): Accuracy of each method by class in
            percent, the mean over its runs, (K, ); NaN for a class without
            test images.
        differences (dict[str, dict[str, Difference]]): Difference of each
            other method from the baseline under 'overall', 'balanced',
            'many', 'medium' and 'few'. A group without images is left out.
        parts (list[np.ndarray]): The classes with test images, from the
            largest to the smallest, in up to four parts per group.
        by_part (dict[str, list[Difference]]): Mean difference of each other
            method from the baseline over the classes of each part.
    """

    runs: Runs
    figures: dict[str, list[dict[str, float]]]
    by_class: dict[str, np.ndarray]
    differences: dict[str, dict[str, Difference]]
    parts: list[np.ndarray]
    by_part: dict[str, list[Difference]]

    def mean(self, method: str, figure: str) -> float:
        """Average a figure over the runs of a method."""
        return mean(run[figure] for run in self.figures[method])

    def deviation(self, method: str, figure: str) -> float | None:
        """Sample standard deviation over the runs, None for a single run."""
        values = [run[figure] for run in self.figures[method]]
        return stdev(values) if len(values) > 1 else None

    def class_differences(self, method: str) -> np.ndarray:
        """Difference from the baseline by class in points, (K, ), or NaN."""
        return self.by_class[method] - self.by_class[self.runs.baseline]

    def class_shares(self, method: str, figure: str) -> tuple[float, float]:
        """Percent of the classes of a group that are better, and worse."""
        points = self.class_differences(method)
        points = points[self.runs.groups.masks.get(figure, slice(None))]
        points = points[~np.isnan(points)]
        return 100.0 * np.mean(points > 0), 100.0 * np.mean(points < 0)


def compare(runs: Runs, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Compare methods over their seeds and the test images.

    'overall', 'many', 'medium' and 'few' average over images, 'balanced'
    over classes, as in :func:`.long_tail_accuracy`; differences are between
    means over runs, with intervals from :func:`.intervals.bootstrap`. Images are
    resampled within each class, so that every resample has the classes of
    the test set, and identically for all methods, so that the difficulty of
    the images cancels out. Classes with one test image are pooled with
    others of similar size.

    Args:
        runs (Runs): The runs. Those of a method that shares its weights with
            the baseline are compared in pairs.
        resamples (int): Number of bootstrap resamples. Defaults to 2000.
        seed (int): Random seed of the bootstrap. Defaults to 0.

    Returns:
        Comparison: Accuracies and differences. There are no differences for
        a single method.

    Raises:
        UserError: If labels do not fit the class counts, or there are too
            few resamples.
    """
    labels, num_classes = runs.gt_label, len(runs.groups)
    hits = {method: runs.hits(method) for method in runs.methods}
    figures = {
        method: [long_tail_accuracy(run, labels, runs.groups) for run in of_method]
        for method, of_method in hits.items()
    }
    by_class = {
        method: accuracy_by_class(of_method.ravel(), np.tile(labels, len(of_method)), num_classes)
        for method, of_method in hits.items()
    }
    parts = _split_groups(runs)
    differences, by_part = {}, {}
    if runs.others:
        weights, part_weights = _image_weights(runs, parts)
        found = bootstrap(
            [_terms(runs, hits, method) for method in runs.others],
            _strata(runs, parts),
            np.stack([*weights.values(), *part_weights]),
            resamples,
            seed,
        )
        for method, row in zip(runs.others, found):
            differences[method] = dict(zip(weights, row))
            by_part[method] = row[len(weights) :]
    return Comparison(runs, figures, by_class, differences, parts, by_part)


def _split_groups(runs: Runs) -> list[np.ndarray]:
    """The tested classes, from the largest, in up to four parts per group."""
    tested = np.bincount(runs.gt_label, minlength=len(runs.groups)) > 0
    largest_first = runs.groups.largest_first
    parts = []
    for group in runs.groups.masks.values():
        classes = largest_first[(group & tested)[largest_first]]
        parts += [part for part in np.array_split(classes, _PARTS) if part.size]
    return parts


def _image_weights(
    runs: Runs, parts: list[np.ndarray]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The weight in percent of each image in each figure, and in the mean
    over the classes of each part."""
    labels = runs.gt_label
    weights = {
        name: 100.0 * group / np.count_nonzero(group)
        for name, group in runs.groups.of_images(labels).items()
    }
    images = np.bincount(labels)
    weights['balanced'], *by_part = (
        100.0 * np.isin(labels, part) / (len(part) * images[labels])
        for part in (np.flatnonzero(images), *parts)
    )
    return {name: weights[name] for name in FIGURES if name in weights}, by_part


def _strata(runs: Runs, parts: list[np.ndarray]) -> np.ndarray:
    """The class of each image; for classes with one image, their part."""
    num_classes = len(runs.groups)
    stratum = np.arange(num_classes)
    images = np.bincount(runs.gt_label, minlength=num_classes)
    for i, part in enumerate(parts):
        stratum[part[images[part] == 1]] = num_classes + i
    return stratum[runs.gt_label]


def _terms(runs: Runs, hits: dict[str, np.ndarray], method: str) -> list[np.ndarray]:
    """Independent terms that add up to the difference from the baseline."""
    ours, theirs = (hits[name].astype(float) for name in (method, runs.baseline))
    return [ours - theirs] if runs.share_weights(method) else [ours, -theirs]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Build the tables of a comparison.

    Args:
        comparison (Comparison): The comparison.

    Returns:
        list[rich.table.Table]: The accuracy of the methods, then one table
        per other method with its differences from the baseline.
    """
    runs = comparison.runs
    names = [name for name in FIGURES if name in comparison.figures[runs.baseline][0]]
    titles = dict(MEAN_TITLES, **runs.groups.titles)
    tables = [
        build_table(
            'Accuracy (%), mean ± standard deviation over the runs',
            ['method', 'runs', *(titles[name] for name in names)],
            [
                [method, str(len(of_method))]
                + [_mean_cell(comparison, method, name) for name in names]
                for method, of_method in runs.methods.items()
            ],
        )
    ]
    columns = ['training images', 'points', f'{100 * LEVEL:g}% interval', 'verdict']
    columns += ['classes better (%)', 'classes worse (%)']
    for method, differences in comparison.differences.items():
        rows = [
            [
                titles[name],
                f'{found.value:+.2f}',
                '-' if math.isnan(found.low) else f'{found.low:+.2f} to {found.high:+.2f}',
                found.verdict,
                *(f'{share:.0f}' for share in comparison.class_shares(method, name)),
            ]
            for name, found in differences.items()
        ]
        title = f'{method} minus {runs.baseline}, accuracy'
        tables.append(build_table(title, columns, rows))
    return tables


def _mean_cell(comparison: Comparison, method: str, figure: str) -> str:
    deviation = comparison.deviation(method, figure)
    text = '-' if deviation is None else f'{deviation:.2f}'
    return f'{comparison.mean(method, figure):.2f} ± {text}'


def coverage_note(runs: Runs) -> str:
    """Explain which variation the intervals cover."""
    single = [m for m, of_method in runs.methods.items() if len(of_method) == 1]
    if not single:
        return 'The intervals are about the methods: they cover other test images and other seeds.'
    return (
        f'Methods with a single run: {", ".join(single)}. The intervals cover '
        'other test images but not other training seeds: they are about '
        'these weights, not about the methods.'
    )


def to_json(comparison: Comparison) -> dict:
    """Convert a comparison to plain values.

    Args:
        comparison (Comparison): The comparison.

    Returns:
        dict: For JSON, with None for NaN: 'baseline', 'thresholds',
        'class_counts', 'methods' ('runs', 'mean' and 'deviation' of each
        figure, accuracy 'by_class') and 'differences' ('same_weights',
        'figures', 'by_class', 'by_part').
    """
    runs = comparison.runs
    return dict(
        baseline=runs.baseline,
        thresholds=runs.groups.thresholds,
        class_counts=runs.groups.counts.tolist(),
        methods={m: _method_json(comparison, m) for m in runs.methods},
        differences={m: _difference_json(comparison, m) for m in runs.others},
    )


def _method_json(comparison: Comparison, method: str) -> dict:
    figures = comparison.figures[method]
    keys = ('config', 'options', 'checkpoint', 'weights')
    return dict(
        runs=[
            dict(file=run.file, **{key: run.made_by[key] for key in keys}, figures=of_run)
            for run, of_run in zip(comparison.runs.methods[method], figures)
        ],
        mean={key: comparison.mean(method, key) for key in figures[0]},
        deviation={key: comparison.deviation(method, key) for key in figures[0]},
        by_class=_plain(comparison.by_class[method]),
    )


def _difference_json(comparison: Comparison, method: str) -> dict:
    figures = {}
    for name, difference in comparison.differences[method].items():
        better, worse = comparison.class_shares(method, name)
        shares = dict(classes_better=better, classes_worse=worse)
        figures[name] = dict(_plain_difference(difference), **shares)
    return dict(
        same_weights=comparison.runs.share_weights(method),
        figures=figures,
        by_class=_plain(comparison.class_differences(method)),
        by_part=[
            dict(classes=part.tolist(), **_plain_difference(difference))
            for part, difference in zip(comparison.parts, comparison.by_part[method])
        ],
    )


def _plain_difference(difference: Difference) -> dict:
    value, low, high = _plain([difference.value, difference.low, difference.high])
    return dict(difference=value, low=low, high=high, verdict=difference.verdict)


def _plain(values: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


def plot_differences(comparison: Comparison, path: str | Path) -> Path:
    """Plot the differences from the baseline, one row per method.

    The differences by group are on the left, those by class, from the
    largest class to the smallest, on the right.

    Args:
        comparison (Comparison): A comparison of at least two methods.
        path (str | Path): Where to save the plot, see :func:`.save`.

    Returns:
        Path: The file.
    """
    groups, methods = comparison.runs.groups, comparison.differences
    order = groups.largest_first
    figure = new_figure(1.3 + 2.9 * len(methods))
    rows = figure.subplots(
        len(methods), 2, squeeze=False, sharex='col', sharey='col', width_ratios=(1, 1.5)
    )
    for (left, right), method in zip(rows, methods):
        _draw_groups(left, methods[method], dict(groups.titles, balanced='class mean'))
        points = comparison.class_differences(method)[order]
        for name, mask in groups.masks.items():
            draw_classes(right, np.flatnonzero(mask[order]), points, GROUP_COLORS[name], 0.45)
        for part, difference in zip(comparison.parts, comparison.by_part[method]):
            place = np.flatnonzero(np.isin(order, part)).mean()
            _draw_interval(right, difference, place, INK, upright=True)
        title = f'{method} minus {comparison.runs.baseline}'
        left.set_title(title, **PANEL_TITLE)
        right.set_ylabel('points')
        right.axhline(0, color=INK, linewidth=0.8)
        clean(right, grid='y')
    bottom_left, bottom_right = rows[-1]
    bottom_left.set_xlabel('points')
    label_classes(bottom_right, order, note=bar_note(len(order)).replace(' (', '\n('))
    bottom_right.set_xlim(-0.5, len(order) - 0.5)
    figure.supxlabel(_NOTE, x=0.01, ha='left', fontsize=9, color=SOFT)
    set_head(figure, 'Difference in accuracy', [])
    return save(figure, path)


def _draw_groups(axes: Axes, differences: dict[str, Difference], titles: dict[str, str]) -> None:
    """A dot with whiskers for each group, with its value to the right."""
    right_edge = axes.get_yaxis_transform()
    for row, (name, difference) in enumerate(differences.items()):
        _draw_interval(axes, difference, row, GROUP_COLORS.get(name, INK))
        text = f'{difference.value:+.2f}'.replace('-', '\N{MINUS SIGN}')
        axes.text(1.02, row, text, transform=right_edge, va='center', color=INK)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(differences)), [titles[name] for name in differences])
    axes.set_ylim(len(differences) - 0.5, -0.5)
    clean(axes, grid='x')
    axes.tick_params(axis='y', length=0)


def _draw_interval(
    axes: Axes, difference: Difference, place: float, color: str, upright: bool = False
) -> None:
    value = difference.value
    reach = [[value - difference.low], [difference.high - value]]
    fill = color if difference.verdict in ('better', 'worse') else 'white'
    if upright:
        axes.errorbar(place, value, reach, fmt='D', color=color, mfc=fill, ms=4, elinewidth=1.2)
    else:
        axes.errorbar(value, place, None, reach, fmt='o', color=color, mfc=fill, ms=7, elinewidth=2)


def compare_files(
    arguments: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    plot_file: str | Path | None = None,
    json_file: str | Path | None = None,
) -> Comparison:
    """Print and plot a comparison of files of predictions.

    Args:
        arguments (Sequence[str]): See :func:`.read_runs`.
        resamples (int): Number of bootstrap resamples. Defaults to 2000.
        seed (int): Random seed of the bootstrap. Defaults to 0.
        plot_file (str | Path, optional): Where to save the plot. Defaults to
            None, which means no plot.
        json_file (str | Path, optional): Where to save the figures as JSON.
            Defaults to None, which means nowhere.

    Returns:
        Comparison: See :func:`compare`.

    Raises:
        UserError: If the files cannot be compared, or there is no difference
            to plot.
    """
    check_draws(resamples, seed)
    if plot_file is not None:
        check_format(plot_file)
    runs = read_runs(arguments)
    if plot_file is not None and not runs.others:
        raise UserError(
            'a plot shows differences, but these are runs of one '
            f'method, {runs.baseline}. Methods with the same config need '
            'names: METHOD=FILE.'
        )
    comparison = compare(runs, resamples, seed)
    for method, of_method in runs.methods.items():
        print(f'{method}:', *(run.file for run in of_method))
    print_tables(*comparison_tables(comparison))
    if runs.others:
        print(coverage_note(runs))
    if plot_file is not None:
        print(plot_differences(comparison, plot_file))
    if json_file is not None:
        content = dict(to_json(comparison), level=LEVEL, resamples=resamples, seed=seed)
        mmengine.dump(content, str(json_file), file_format='json', indent=2)
        print(json_file)
    return comparison
