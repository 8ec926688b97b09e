"""Make docs/results.md and its picture from the files in results/."""
import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Dict, List, Optional, Sequence

from results_groups import by_data, is_shortened, label_of, read_groups
from results_picture import curves, digest, draw_curves

from ride_mm.datasets.class_counts import GROUPS
from ride_mm.utils.atomic_backend import write_file
from ride_mm.utils.errors import UserError, run_tool

ROOT = Path(__file__).resolve().parents[1]
STAGES = dict(stage_1='all experts', final='routed')
HEAD = """# Results

Made by `python docs/make_results.py` from the files in
[`results/`](../results): change those, not this page.

Accuracy in percent on the balanced test set after the last epoch; no
checkpoint is chosen on it. Many-shot classes have more than 100 training
images, few-shot ones fewer than 20. Where there are several seeds, figures are
mean ± standard deviation over them; those of one seed have none, so small
differences between them mean nothing. *Quoted* figures were not measured with
this code; their sources stand below the tables.
"""
ROUTING = """
The router sends an image on to the next expert only where it is in doubt.
Compute is in multiply-adds, 1 for all experts on every image.
"""
CURVES = """
## Training curves

![Training loss and accuracy by epoch](results.svg)

Lines are means over the seeds, bands reach from the lowest to the highest.
The classification loss of an expert is on another scale for each kind of loss,
and changes its scale where classes begin to be re-weighted.
"""
RUNS = """
## Runs

Options are what differed from the config at the time of the training. The time
is that of the training steps, from the logged time of an iteration and their
number; start-up, validation and checkpoints come on top.
"""


def make_page(root: Path) -> str:
    """Write the page.

    Args:
        root (Path): The folder that holds ``results/`` and ``configs/``.

    Returns:
        str: The page in Markdown.
    """
    groups = read_groups(root)
    quoted = _read_quoted(root)
    parts = [HEAD]
    sources = []
    for data, names in by_data(groups).items():
        parts += [
            f'\n## {data}\n',
            _accuracy_table(groups, names, quoted, sources),
            _routing_table(groups, names)
        ]
    if groups:
        parts.append(CURVES)
    parts.append(_not_measured(root, groups, quoted, sources))
    parts.append(_source_list(sources))
    if groups:
        parts += [RUNS, *map(_describe_run, groups.values())]
    return ''.join(parts)


def _read_quoted(root: Path) -> List[dict]:
    path = root / 'results' / 'quoted.json'
    return json.loads(path.read_text())['quoted']


def _accuracy_table(groups: Dict[str, List[dict]], names: List[str],
                    quoted: List[dict], sources: List[dict]) -> str:
    rows = []
    for name in names:
        for stage in groups[name][0]['figures']:
            rows.append([
                _row_title(groups[name], stage),
                str(groups[name][0]['figures'][stage]['epoch']),
                str(len(groups[name])),
                *(_figure(groups[name], stage, f'long_tail/{key}')
                  for key in ('overall', *GROUPS, 'overall_top5')),
                *_quoted_cells(
                    [q for q in quoted if _is_beside(q, groups[name], stage)],
                    sources)
            ])
    return _table([
        'measured', 'epochs', 'seeds', 'all', *GROUPS, 'top-5', 'quoted: all',
        *(f'quoted: {group}' for group in GROUPS)
    ], rows)


def _row_title(results: List[dict], stage: str) -> str:
    link = f"[{label_of(results)}](#{results[0]['name']})"
    if 'stage_1' in results[0]['figures']:
        return f'{link}: {STAGES[stage]}'
    return link


def _figure(results: List[dict], stage: str, key: str, digits: int = 1) -> str:
    """Mean and, over several seeds, standard deviation."""
    values = [result['figures'][stage].get(key) for result in results]
    if None in values:
        return '–'
    text = f'{mean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {stdev(values):.{digits}f}'
    return text


def _is_beside(quote: dict, results: List[dict], stage: str) -> bool:
    """Whether a quoted figure stands beside this measured row."""
    asked = quote.get('stage', 'final')
    if asked not in results[0]['figures']:
        asked = 'final'
    return quote['name'] == results[0]['name'] and asked == stage


def _quoted_cells(quotes: List[dict], sources: List[dict]) -> List[str]:
    cells = ['<br>'.join(_quoted_text(quote, sources) for quote in quotes)]
    cells += [
        '<br>'.join(_percent(quote.get(group)) for quote in quotes)
        for group in GROUPS
    ]
    return [cell or '–' for cell in cells]


def _quoted_text(quote: dict, sources: List[dict]) -> str:
    """The overall accuracy with the number of its source."""
    source = dict(text=quote['source'], link=quote['link'])
    if source not in sources:
        sources.append(source)
    return f"{quote['all']:.1f} <sup>{sources.index(source) + 1}</sup>"


def _percent(value: Optional[float]) -> str:
    return '–' if value is None else f'{value:.1f}'


def _routing_table(groups: Dict[str, List[dict]], names: List[str]) -> str:
    rows = []
    for name in names:
        results = groups[name]
        if 'stage_1' not in results[0]['figures']:
            continue
        shares = [
            _figure(results, 'final', f'experts/used_{num}', 0)
            for num in range(1, results[0]['experts'] + 1)
        ]
        rows.append([
            _row_title(results, 'final'), ' / '.join(shares),
            _figure(results, 'final', 'experts/mean', 2),
            *(_figure(results, 'final', f'experts/{prefix}compute', 2)
              for prefix in ('', *(f'{group}_' for group in GROUPS)))
        ])
    if not rows:
        return ''
    return ROUTING + _table([
        'measured', '% of images using 1 / 2 / ... experts', 'experts / image',
        'compute: all', *GROUPS
    ], rows)


def _not_measured(root: Path, groups: Dict[str, List[dict]],
                  quoted: List[dict], sources: List[dict]) -> str:
    """List the configs that nobody has trained to the end here."""
    measured = {
        name
        for name, results in groups.items() if not is_shortened(results)
    }
    lines = []
    for path in sorted((root / 'configs').rglob('*.py')):
        inner = path.relative_to(root).as_posix()
        if '_base_' in inner or path.stem in measured:
            continue
        quotes = [
            _quoted_text(quote, sources) for quote in quoted
            if quote['name'] == path.stem
        ]
        line = f'- [`{path.stem}`](../{inner})'
        lines.append(line + (f": quoted {', '.join(quotes)}" * bool(quotes)))
    if not lines:
        return ''
    return '\n'.join([
        '\n## Not measured yet\n', 'No run of these configs, with the '
        'schedule as it stands in them, is in `results/`:\n', *lines, ''
    ])


def _source_list(sources: List[dict]) -> str:
    if not sources:
        return ''
    lines = [
        f"{number}. {source['text']}: <{source['link']}>"
        for number, source in enumerate(sources, start=1)
    ]
    return '\n'.join(['\n## Sources of the quoted figures\n', *lines, ''])


def _describe_run(results: List[dict]) -> str:
    """How to repeat the runs of one name, and what they ran on."""
    first = results[0]
    lines = [
        f"\n### {first['name']}\n",
        f"Config: [`{first['config']}`](../{first['config']})."
        f" Options that differ from it: {_options_text(first['options'])}.\n",
        '```bash', *dict.fromkeys(result['command']
                                  for result in results), '```\n'
    ]
    for result in results:
        path = f"{result['name']}_seed{result['seed']}.json"
        commit = f", commit `{result['commit']}`" if result['commit'] else ''
        lines.append(f"- [seed {result['seed']}](../results/{path}){commit}, "
                     f"{result['training_seconds'] / 60:.0f} min of training "
                     f'steps: {_pieces_text(result)}')
    return '\n'.join([*lines, ''])


def _options_text(options: dict) -> str:
    return ', '.join(f'`{key}={json.dumps(value)}`'
                     for key, value in options.items()) or 'none'


def _pieces_text(result: dict) -> str:
    """Where a run was trained, told again only where it went on elsewhere."""
    told = {}
    for piece in result['pieces']:
        text = (f"{piece['machine']}; Python {piece['python']}, torch "
                f"{piece['torch']}, mmengine {piece['mmengine']}")
        if 'options' in piece:
            text += f' (with options: {_options_text(piece["options"])})'
        told.setdefault(text, piece['first_epoch'])
    if len(told) == 1:
        return next(iter(told))
    return '; '.join(f'from epoch {epoch} {text}'
                     for text, epoch in told.items())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n' + ''.join(f"| {' | '.join(line)} |\n" for line in lines)


def write_page(root: Path) -> None:
    """Write ``docs/results.md`` and, with any result, ``docs/results.svg``.

    Args:
        root (Path): The folder that holds ``docs/``.
    """
    write_file(root / 'docs' / 'results.md', make_page(root))
    groups = read_groups(root)
    if groups:
        draw_curves(curves(groups), root / 'docs' / 'results.svg')


def check_page(root: Path) -> None:
    """Check that page and picture are those of the results.

    Args:
        root (Path): The folder that holds ``docs/``.

    Raises:
        UserError: If one of them is missing or out of date.
    """
    groups = read_groups(root)
    page, picture = (
        root / 'docs' / name for name in ('results.md', 'results.svg'))
    if not page.is_file() or page.read_text() != make_page(root):
        raise _out_of_date(page)
    if groups and not (picture.is_file()
                       and digest(curves(groups)) in picture.read_text()):
        raise _out_of_date(picture)


def _out_of_date(path: Path) -> UserError:
    return UserError(f'{path} is not what results/ and configs/ give: run '
                     'python docs/make_results.py.')


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing, say whether they are up to date')
    check_only = parser.parse_args(argv).check
    (check_page if check_only else write_page)(ROOT)


if __name__ == '__main__':
    run_tool(main)
