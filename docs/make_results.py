"""Make docs/results.md from the files in results/; --check only compares."""

import json
import sys
from pathlib import Path

from ride_mm.analysis.comparison.seeds import STAGES, mean_text, plot_seeds, read_seeds
from ride_mm.compat.atomic_backend import write_file
from ride_mm.datasets.class_groups import GROUPS
from ride_mm.utils.errors import UserError, run_tool

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Results

Made by `python docs/make_results.py` from the files in
[`results/`](../results), which `tools/sweep.py` leaves: change those, not this
page.

Accuracy in percent on the balanced test set after the last epoch; no
checkpoint is chosen on it. Many-shot classes have more than 100 training
images, few-shot ones fewer than 20. Several seeds are given as mean ± standard
deviation; one seed has none, so small differences between single runs mean
nothing. Compute is in multiply-adds, 1 for all experts on every image. Rows
*in italics* are quoted, not measured with this code.
"""
SHORT = """
## Every recipe for ten epochs

CIFAR-100-LT, ResNet-32, one seed, ten epochs of stage 1 instead of 200,
compiled, in float32: each recipe runs, from its config, on real images. **Ten
epochs rank nothing**: most of the learning rate's schedule, the re-weighted
epochs above all, has not happened, and runs differ by more than recipes do.
"""
# In the picture of the README.
SHOWN = {
    'cross entropy': 'ce_r32_cifar100_lt_amp',
    'RIDE, 3 experts, routed': 'ride_r32_cifar100_lt_amp',
}
COLUMNS = ('run', 'seeds', 'epochs', 'all', *GROUPS, 'compute', 'source')


def make_page(root: Path) -> str:
    """Write the page.

    Args:
        root (Path): The folder that holds ``results/``.

    Returns:
        str: The page in Markdown.
    """
    runs, short = (
        read_seeds(
            sorted(
                (root / folder).glob('*_seed*.json'), key=lambda path: path.stem.rpartition('_seed')
            )
        )
        for folder in ('results', 'results/short')
    )
    path = root / 'results/quoted.json'
    quoted = json.loads(path.read_text())['quoted'] if path.exists() else []
    page = HEAD + '\n## CIFAR-100-LT, imbalance 100\n' + _table(runs, quoted)
    if short:
        page += SHORT + _table(short, [])
    return (
        page
        + '\n## Runs\n'
        + ''.join(
            _describe(folder, results)
            for folder, found in (('results', runs), ('results/short', short))
            for results in found.values()
        )
    )


def _table(runs: dict, quoted: list) -> str:
    rows = [COLUMNS, ['---'] * len(COLUMNS)]
    for name, results in runs.items():
        stages = results[0]['figures']
        for stage in stages:
            title = f', {STAGES[stage]}' if 'stage_1' in stages else ''
            rows.append(
                [
                    f'`{name}`{title}',
                    str(len(results)),
                    str(stages[stage]['epoch']),
                    *(
                        mean_text(results, stage, f'long_tail/{key}')
                        for key in ('overall', *GROUPS)
                    ),
                    mean_text(results, stage, 'experts/compute', 2) * bool(title),
                    f'[command](#{name})',
                ]
            )
            rows += [
                [
                    f'*{quote["method"]}*',
                    '',
                    '',
                    *(f'*{quote[key]:.1f}*' if key in quote else '' for key in ('all', *GROUPS)),
                    '',
                    f'[{quote["source"]}]({quote["link"]})',
                ]
                for quote in quoted
                if quote['name'] == name and quote.get('stage', 'final') == stage
            ]
    return '\n' + ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def _describe(folder: str, results: list) -> str:
    """How to repeat the runs of one name, and what they ran on."""
    name = results[0]['name']
    commands = '\n'.join(dict.fromkeys(r['command'] for r in results))
    lines = [f'\n### {name}\n', f'```bash\n{commands}\n```\n']
    for result in results:
        seed, minutes = result['seed'], result['training_seconds'] / 60
        machines = dict.fromkeys(
            f'{piece["machine"]}, torch {piece["torch"]}' for piece in result['pieces']
        )
        lines.append(
            f'- [seed {seed}](../{folder}/{name}_seed{seed}.json): '
            f'{minutes:.0f} min of training steps; '
            f'{"; then ".join(machines)}'
        )
    return '\n'.join([*lines, ''])


def main() -> None:
    path, page = ROOT / 'docs/results.md', make_page(ROOT)
    if '--check' not in sys.argv:
        write_file(path, page)
        runs = {
            label: read_seeds(sorted((ROOT / 'results').glob(f'{name}_seed*.json')))[name]
            for label, name in SHOWN.items()
        }
        plot_seeds(runs, ROOT / 'docs/accuracy.svg')
    elif path.read_text() != page:
        raise UserError(f'{path} is not what results/ gives: run python docs/make_results.py')


if __name__ == '__main__':
    run_tool(main)
