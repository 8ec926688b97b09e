"""Means over the runs of ``tools/sweep.py``."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from ride_mm.analysis.style import INK, LEGEND, clean, save
from ride_mm.datasets.class_groups import GROUPS
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.errors import UserError

STAGES = dict(stage_1='all experts', final='routed')
_COLUMNS = {
    'all': 'long_tail/overall',
    **{group: f'long_tail/{group}' for group in GROUPS},
    'compute': 'experts/compute',
}


def read_seeds(paths: Sequence[str | Path]) -> dict[str, list[dict]]:
    """Read the results of ``tools/sweep.py``.

    Args:
        paths (Sequence[str | Path]): Files ``NAME_seed0.json`` and so on.

    Returns:
        dict[str, list[dict]]: The results by name, in the order of the
        paths.

    Raises:
        UserError: If a file is not a result.
    """
    found = defaultdict(list)
    for path in paths:
        try:
            result = json.loads(Path(path).read_text())
            result['figures']['final'], result['seed']
            found[result['name']].append(result)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f'{path}: expected the figures of a run of tools/sweep.py, found {error!r}'
            ) from error
    return dict(found)


def mean_text(results: Sequence[dict], stage: str, key: str, digits: int = 1) -> str:
    """Format the mean of a figure over seeds, with its standard deviation.

    Args:
        results (Sequence[dict]): The results of one name.
        stage (str): 'stage_1' or 'final'.
        key (str): Name of the metric.
        digits (int): Number of decimals. Defaults to 1.

    Returns:
        str: For example ``48.5 ± 0.5``, without deviation for a single seed;
        empty if a result lacks the figure.
    """
    values = [result['figures'].get(stage, {}).get(key) for result in results]
    if None in values:
        return ''
    text = f'{mean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {stdev(values):.{digits}f}'
    return text


def seeds_table(paths: Sequence[str | Path]) -> Table:
    """Build a table of the accuracy of several configs.

    Args:
        paths (Sequence[str | Path]): See :func:`read_seeds`.

    Returns:
        rich.table.Table: The table, for ``rich.print``.
    """
    rows = []
    for name, results in read_seeds(paths).items():
        stages = results[0]['figures']
        for stage in stages:
            label = f'{name}, {STAGES[stage]}' if 'stage_1' in stages else name
            row = [label, str(len(results)), str(stages[stage]['epoch'])]
            for column, key in _COLUMNS.items():
                row.append(mean_text(results, stage, key, 2 if column == 'compute' else 1))
            rows.append(row)
    title = 'Accuracy (%): mean ± standard deviation over seeds'
    return build_table(title, ['config', 'seeds', 'epochs', *_COLUMNS], rows)


def plot_seeds(results: dict[str, list[dict]], path: str | Path) -> Path:
    """Plot accuracy by class size: bars for means, dots for seeds.

    Args:
        results (dict[str, list[dict]]): Results of each method, see
            :func:`read_seeds`, by the label of the method. Those of the last
            epoch are plotted.
        path (str | Path): Where to save the plot, see :func:`.save`.

    Returns:
        Path: The file.
    """
    titles = list(_COLUMNS)[:4]
    figure = Figure(figsize=(8, 3.6), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(results)
    colors = ('#999999', '#0072B2', '#009E73', '#E69F00', '#CC79A7')
    for i, (label, runs) in enumerate(results.items()):
        finals = [run['figures']['final'] for run in runs]
        values = np.array([[final.get(_COLUMNS[t], np.nan) for t in titles] for final in finals])
        places = np.arange(len(titles)) + (i - (len(results) - 1) / 2) * width
        color = colors[i % len(colors)]
        bars = axes.bar(places, values.mean(0), width=0.92 * width, color=color, label=label)
        axes.bar_label(bars, fmt='%.1f', fontsize=9, padding=8, color=INK)
        axes.scatter(np.tile(places, len(runs)), values.ravel(), s=9, color=INK)
    axes.set_xticks(range(len(titles)), titles)
    axes.set_ylabel('accuracy (%)')
    axes.margins(y=0.1)
    clean(axes, grid='y')
    axes.legend(**dict(LEGEND, ncols=min(3, len(results))))
    return save(figure, path)
