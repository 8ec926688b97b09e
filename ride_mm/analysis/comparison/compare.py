"""Methods compared over the seeds and the test images."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import mmengine
import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ride_mm.analysis.comparison.compare_plot import plot_differences
from ride_mm.analysis.comparison.intervals import LEVEL, Difference, bootstrap, check_draws
from ride_mm.analysis.comparison.runs import Runs, read_runs
from ride_mm.analysis.style import check_format
from ride_mm.datasets.class_groups import GROUPS
from ride_mm.evaluation import accuracy_by_class, long_tail_accuracy
from ride_mm.evaluation.long_tail import MEAN_TITLES
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.errors import UserError

FIGURES = ('overall', 'balanced', *GROUPS)
# Parts of a group that get an interval of their own.
_PARTS = 4


@dataclass(frozen=True)
class Comparison:
    """What is known of several methods and their differences.

    Attributes:
        runs (Runs): What is compared.
        figures (dict[str, list[dict[str, float]]]): Accuracy of every run of
            a method, percent, see :func:`long_tail_accuracy`.
        by_class (dict[str, np.ndarray]): Accuracy of a method by class, the
            mean over its runs, percent, shape (K, ); NaN for a class without
            test images.
        differences (dict[str, dict[str, Difference]]): Of each method but
            the baseline from it, under 'overall', 'balanced', 'many',
            'medium' and 'few' as far as these have images.
        parts (list[np.ndarray]): The classes with test images, from the
            largest to the smallest, in up to four parts a group.
        by_part (dict[str, list[Difference]]): Of each method but the
            baseline, the mean difference over the classes of each part.
    """

    runs: Runs
    figures: dict[str, list[dict[str, float]]]
    by_class: dict[str, np.ndarray]
    differences: dict[str, dict[str, Difference]]
    parts: list[np.ndarray]
    by_part: dict[str, list[Difference]]

    def mean(self, method: str, figure: str) -> float:
        """The mean of a figure over the runs of a method."""
        return mean(run[figure] for run in self.figures[method])

    def deviation(self, method: str, figure: str) -> float | None:
        """The standard deviation over the runs (n - 1), None of one run."""
        values = [run[figure] for run in self.figures[method]]
        return stdev(values) if len(values) > 1 else None

    def class_differences(self, method: str) -> np.ndarray:
        """The difference by class, points, shape (K, ), with NaN."""
        return self.by_class[method] - self.by_class[self.runs.baseline]

    def class_shares(self, method: str, figure: str) -> tuple[float, float]:
        """Percent of the classes of a group that are better, and worse."""
        groups = self.runs.groups.masks
        points = self.class_differences(method)
        points = points[groups.get(figure, slice(None))]
        points = points[~np.isnan(points)]
        return 100.0 * np.mean(points > 0), 100.0 * np.mean(points < 0)


def compare(runs: Runs, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Compare methods over their seeds and the test images.

    'overall', 'many', 'medium' and 'few' average over images, 'balanced'
    over classes, as :func:`long_tail_accuracy` does; a difference is that of
    the means over the runs. :func:`bootstrap` says how its interval comes
    about. The images are drawn class by class, so every resample has the
    classes of the test set, and the same ones for all methods, so that it
    does not matter how hard they are. Classes of one test image are drawn
    together with others of their size that have one.

    Args:
        runs (Runs): The runs. Those of a method that has the baseline's
            weights are compared one by one.
        resamples (int): How often images are drawn. Defaults to 2000.
        seed (int): Random seed of the bootstrap. Defaults to 0.

    Returns:
        Comparison: Accuracies and differences, without any where there is
        only one method.

    Raises:
        UserError: If labels do not fit the class counts, or there are too
            few resamples.
    """
    labels, num_classes = runs.gt_label, len(runs.groups)
    figures = {
        method: [long_tail_accuracy(run.hits, labels, runs.groups) for run in of_method]
        for method, of_method in runs.methods.items()
    }
    hits = {method: runs.hits(method) for method in runs.methods}
    by_class = {
        method: accuracy_by_class(of_method.ravel(), np.tile(labels, len(of_method)), num_classes)
        for method, of_method in hits.items()
    }
    parts = _split_groups(runs)
    weights = _image_weights(runs, parts)
    differences, by_part = {}, {}
    if runs.others:
        found = bootstrap(
            [_terms(runs, hits, m) for m in runs.others],
            _strata(runs, parts),
            np.stack(list(weights.values())),
            resamples,
            seed,
        )
        for method, row in zip(runs.others, found):
            named = dict(zip(weights, row))
            by_part[method] = [named.pop(i) for i in range(len(parts))]
            differences[method] = named
    return Comparison(runs, figures, by_class, differences, parts, by_part)


def _split_groups(runs: Runs) -> list[np.ndarray]:
    """The tested classes, from the largest, in up to four parts a group."""
    tested = np.bincount(runs.gt_label, minlength=len(runs.groups)) > 0
    largest_first = np.argsort(-runs.groups.counts, kind='stable')
    parts = []
    for group in runs.groups.masks.values():
        classes = largest_first[(group & tested)[largest_first]]
        parts += [part for part in np.array_split(classes, _PARTS) if part.size]
    return parts


def _image_weights(runs: Runs, parts: list[np.ndarray]) -> dict:
    """The weight, in percent, of each image in each figure, and in the mean
    over the classes of each part."""
    labels, num_classes = runs.gt_label, len(runs.groups)
    images = np.bincount(labels, minlength=num_classes)
    weights = {
        name: 100.0 * group / np.count_nonzero(group)
        for name, group in runs.groups.of_images(labels).items()
    }
    for name, part in (('balanced', np.flatnonzero(images)), *enumerate(parts)):
        chosen = np.isin(np.arange(num_classes), part)[labels]
        weights[name] = 100.0 * chosen / (len(part) * images[labels])
    order = [name for name in FIGURES if name in weights]
    return {name: weights[name] for name in (*order, *range(len(parts)))}


def _strata(runs: Runs, parts: list[np.ndarray]) -> np.ndarray:
    """What is resampled apart: the classes, those of one image by part."""
    num_classes = len(runs.groups)
    stratum = np.arange(num_classes)
    images = np.bincount(runs.gt_label, minlength=num_classes)
    for i, part in enumerate(parts):
        stratum[part[images[part] == 1]] = num_classes + i
    return stratum[runs.gt_label]


def _terms(runs: Runs, hits: dict[str, np.ndarray], method: str) -> list[np.ndarray]:
    """What adds up to the difference, by what varies independently."""
    ours, theirs = (hits[name].astype(float) for name in (method, runs.baseline))
    return [ours - theirs] if runs.share_weights(method) else [ours, -theirs]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Lay out a comparison.

    Args:
        comparison (Comparison): What to show.

    Returns:
        list[rich.table.Table]: Tables for ``rich.print``: the accuracy of
        the methods, then the differences of each from the baseline.
    """
    runs = comparison.runs
    names = [f for f in FIGURES if f in comparison.figures[runs.baseline][0]]
    titles = dict(MEAN_TITLES, **runs.groups.titles)
    tables = [
        build_table(
            'Accuracy (%), mean ± standard deviation over the runs',
            ['method', 'runs', *(titles[name] for name in names)],
            [
                [escape(method), str(len(runs.methods[method]))]
                + [_mean_cell(comparison, method, name) for name in names]
                for method in runs.methods
            ],
        )
    ]
    for method, differences in comparison.differences.items():
        rows = []
        for name, difference in differences.items():
            shares = comparison.class_shares(method, name)
            rows.append(
                [
                    titles[name],
                    f'{difference.value:+.2f}',
                    _interval_cell(difference),
                    difference.verdict,
                    *(f'{share:.0f}' for share in shares),
                ]
            )
        tables.append(
            build_table(
                f'{escape(method)} minus {escape(runs.baseline)}, accuracy',
                [
                    'training images',
                    'points',
                    f'{100 * LEVEL:g}% interval',
                    'verdict',
                    'classes better (%)',
                    'classes worse (%)',
                ],
                rows,
            )
        )
    for table in tables:
        table.box = box.ROUNDED
    return tables


def _mean_cell(comparison: Comparison, method: str, figure: str) -> str:
    deviation = comparison.deviation(method, figure)
    return (
        f'{comparison.mean(method, figure):.2f} ± '
        f'{"-" if deviation is None else f"{deviation:.2f}"}'
    )


def _interval_cell(difference: Difference) -> str:
    if math.isnan(difference.low):
        return '-'
    return f'{difference.low:+.2f} to {difference.high:+.2f}'


def coverage_note(runs: Runs) -> str:
    """Say what the intervals are about."""
    single = [m for m, of_method in runs.methods.items() if len(of_method) == 1]
    if not single:
        return 'The intervals are about the methods: they cover other test images and other seeds.'
    return (
        f'A single run each: {", ".join(single)}. The intervals cover '
        'other test images but not other training seeds: they are about '
        'these weights, not about the methods.'
    )


def to_json(comparison: Comparison) -> dict:
    """Make plain values of a comparison.

    Args:
        comparison (Comparison): The comparison.

    Returns:
        dict: For JSON, with None for NaN: 'baseline', 'thresholds',
        'class_counts', 'methods' (the runs, 'mean' and 'deviation' of each
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
        figures[name] = dict(
            _plain_difference(difference), classes_better=better, classes_worse=worse
        )
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


def draw_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Draw the differences, see :func:`plot_differences`."""
    runs = comparison.runs
    return plot_differences(
        comparison.differences,
        {m: comparison.class_differences(m) for m in runs.others},
        comparison.by_part,
        comparison.parts,
        runs.groups,
        path,
        baseline=runs.baseline,
    )


def compare_files(
    arguments: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    plot_file: str | Path | None = None,
    json_file: str | Path | None = None,
) -> Comparison:
    """Print, and draw, a comparison of files of predictions.

    Args:
        arguments (Sequence[str]): See :func:`read_runs`.
        resamples (int): How often images are drawn. Defaults to 2000.
        seed (int): Random seed of the bootstrap. Defaults to 0.
        plot_file (str | Path, optional): The picture to write. Defaults to
            None, which means none.
        json_file (str | Path, optional): Where to write the figures as JSON.
            Defaults to None, which means nowhere.

    Returns:
        Comparison: What :func:`compare` found.

    Raises:
        UserError: If the files cannot be compared, or there is no difference
            to draw.
    """
    check_draws(resamples, seed)
    if plot_file is not None:
        check_format(plot_file)
    runs = read_runs(arguments)
    if plot_file is not None and not runs.others:
        raise UserError(
            'a plot shows differences, but these are runs of one '
            f'method, {runs.baseline}. Methods of one config need '
            'names: METHOD=FILE.'
        )
    comparison = compare(runs, resamples, seed)

    # Wide enough for any name, also where the output is a pipe.
    console = Console(width=1000)
    for method, of_method in runs.methods.items():
        print(f'{method}:', *(run.file for run in of_method))
    for table in comparison_tables(comparison):
        console.print(table)
    if runs.others:
        print(coverage_note(runs))
    if plot_file is not None:
        print(draw_comparison(comparison, plot_file))
    if json_file is not None:
        content = dict(to_json(comparison), level=LEVEL, resamples=resamples, seed=seed)
        mmengine.dump(content, str(json_file), file_format='json', indent=2)
        print(json_file)
    return comparison
