"""The picture of docs/results.md: training curves."""
import hashlib
import itertools
import json
from pathlib import Path
from statistics import mean
from typing import Dict, List, Optional

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from results_groups import by_data, label_of

# Okabe and Ito's palette: distinct for every common form of colour blindness.
COLORS = ('#E69F00', '#009E73', '#0072B2', '#CC79A7', '#D55E00', '#56B4E9',
          '#000000')
PANELS = dict(
    loss='training loss of an expert',
    all='accuracy, all classes (%)',
    few='accuracy, few-shot classes (%)')
MAX_MARKED = 30
STYLE = {
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.titlelocation': 'left',
    'grid.color': '#dddddd',
    'text.color': '#222222',
    'axes.labelcolor': '#222222',
    'xtick.color': '#666666',
    'ytick.color': '#666666',
    'xtick.labelcolor': '#222222',
    'ytick.labelcolor': '#222222',
    'svg.hashsalt': 'ride_mm',
}


def curves(groups: Dict[str, List[dict]]) -> Dict[str, Dict[str, dict]]:
    """Compute what the picture shows.

    Args:
        groups (dict[str, list[dict]]): The results by name.

    Returns:
        dict[str, dict[str, dict]]: By data set and by label: 'loss', 'all'
        and 'few', each a dict from the epoch to (lowest, mean, highest) over
        the seeds, and 'switch', the last epoch before the router or None.
    """
    shown = {}
    for data, names in by_data(groups).items():
        shown[data] = {}
        for name in names:
            results = groups[name]
            experts = results[0]['experts'] or 1
            stage_1 = results[0]['figures'].get('stage_1')
            loss = [{
                record['epoch']: record['loss_cls'] / experts
                for record in result['log']['train'] if 'loss_cls' in record
            } for result in results]
            shown[data][label_of(results)] = dict(
                loss=_spread(loss),
                all=_spread(_validated(results, 'long_tail/overall')),
                few=_spread(_validated(results, 'long_tail/few')),
                switch=stage_1 and stage_1['epoch'])
    return shown


def _validated(results: List[dict], key: str) -> List[Dict[int, float]]:
    return [{
        record['epoch']: record[key]
        for record in result['log']['val'] if key in record
    } for result in results]


def _spread(seeds: List[Dict[int, float]]) -> Dict[int, tuple]:
    """Lowest, mean and highest of the epochs that all seeds have."""
    epochs = set(seeds[0]).intersection(*seeds)
    spread = {}
    for epoch in sorted(epochs):
        values = [values[epoch] for values in seeds]
        spread[epoch] = (min(values), mean(values), max(values))
    return spread


def draw_curves(shown: Dict[str, Dict[str, dict]], path: Path) -> None:
    """Draw what :func:`curves` returns into an SVG file.

    Args:
        shown (dict[str, dict[str, dict]]): The curves by data set and label.
        path (Path): The file to write.
    """
    labels = dict.fromkeys(label for lines in shown.values()
                           for label in lines)
    colors = dict(zip(labels, itertools.cycle(COLORS)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(12, .6 + 3.9 * len(shown)), layout='constrained')
        parts = figure.subfigures(len(shown), squeeze=False)[:, 0]
        for part, (data, lines) in zip(parts, shown.items()):
            kinds = [
                kind for kind in PANELS
                if any(values[kind] for values in lines.values())
            ]
            panels = part.subplots(1, len(kinds), sharex=True, squeeze=False)
            for axes, kind in zip(panels[0], kinds):
                for label, values in lines.items():
                    _draw(axes, values[kind], values['switch'], colors[label])
                axes.set_title(PANELS[kind], fontsize=11)
                axes.set(xlabel='epoch', ylim=(0, None))
            # shared, so not before the last panel is drawn
            panels[0, 0].set_xlim(left=0)
            part.suptitle(data, x=.01, ha='left', fontweight='bold')
            part.legend(
                handles=_handles(lines, colors),
                loc='outside lower left',
                frameon=False,
                ncols=4)
        figure.savefig(
            path,
            format='svg',
            facecolor='white',
            metadata=dict(Date=None, Description=digest(shown)))


def _draw(axes: Axes, values: Dict[int, tuple], switch: Optional[int],
          color: str) -> None:
    """A line of the mean and a band over the seeds; routed: a diamond."""
    if not values:
        return
    epochs = list(values)
    lows, means, highs = zip(*values.values())
    axes.plot(
        epochs,
        means,
        color=color,
        linewidth=1.6,
        marker='.' if len(epochs) < MAX_MARKED else '')
    axes.fill_between(epochs, lows, highs, color=color, alpha=.2, linewidth=0)
    if switch and epochs[-1] > switch:
        axes.plot(epochs[-1], means[-1], 'D', color=color, markersize=6)


def _handles(lines: Dict[str, dict], colors: Dict[str, str]) -> List[Line2D]:
    handles = [
        Line2D([], [], color=colors[label], label=label) for label in lines
    ]
    if any(values['switch'] for values in lines.values()):
        handles.append(
            Line2D([], [],
                   color='#666666',
                   marker='D',
                   linestyle='',
                   label='routed, after stage 2'))
    return handles


def digest(shown: Dict[str, Dict[str, dict]]) -> str:
    """What tells whether a picture shows these curves."""
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()
