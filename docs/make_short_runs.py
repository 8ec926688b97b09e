"""Train every recipe for ten epochs, and make docs/short_runs.md of it."""
import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from ride_mm.analysis import collect_result, write_result
from ride_mm.datasets.class_counts import GROUPS
from ride_mm.utils.atomic_backend import write_file
from ride_mm.utils.errors import UserError, run_tool

ROOT = Path(__file__).resolve().parents[1]
WORK_DIRS = 'work_dirs/short_runs'
EXAMPLE = """example:
  python docs/make_short_runs.py --train    # hours on two cores; goes on
  python docs/make_short_runs.py --check    # where it was interrupted
"""
HEAD = """# Every recipe for ten epochs

Made by `python docs/make_short_runs.py` from the files in
[`results/short/`](../results/short). CIFAR-100-LT, imbalance 100, ResNet-32,
one seed, ten epochs instead of 200, compiled, in float32: each recipe runs,
from its config, on real images. **Ten epochs rank nothing**: most of the
learning rate's schedule, the re-weighted epochs above all, has not happened,
and runs differ by more than the recipes do.

Accuracy in percent on the balanced test set after the last epoch of stage 1,
all experts on every image. To repeat all of them, one after the other:

```bash
python docs/make_short_runs.py --train
```

"""


class Run(NamedTuple):
    """A recipe.

    Args:
        title (str): Its name in the table.
        config (str): Its config, in ``configs/``.
        options (dict): What shortens it.
    """
    title: str
    config: str
    options: Dict[str, object]


def last_checkpoint(name: str) -> str:
    return f'{WORK_DIRS}/{name}/epoch_10.pth'


ONE_STAGE = {
    'train_cfg.max_epochs': 10,
    'param_scheduler.0.end': 2,
    'param_scheduler.1.milestones': [8, 9],
}
REWEIGHTED = {**ONE_STAGE, 'default_hooks.reweighting.begin': 8}
# Two epochs of the router after ten of the experts.
TWO_STAGES = {**REWEIGHTED, 'train_cfg.max_epochs': 12,
              'default_hooks.two_stage.begin': 10}  # yapf: disable
RUNS = dict(
    ce=Run('cross entropy', 'baselines/ce_r32_cifar100_lt.py', ONE_STAGE),
    ldam_drw=Run('LDAM-DRW', 'baselines/ldam_drw_r32_cifar100_lt.py',
                 REWEIGHTED),
    balanced_softmax=Run('balanced softmax',
                         'baselines/balanced_softmax_r32_cifar100_lt.py',
                         ONE_STAGE),
    ride=Run('RIDE, 3 experts', 'ride_r32_cifar100_lt.py', TWO_STAGES),
    teacher=Run('the teacher: RIDE, 6 experts',
                'ride_r32_cifar100_lt_teacher.py', REWEIGHTED),
    distill=Run(
        'RIDE, 3 experts, distilled', 'ride_r32_cifar100_lt_distill.py', {
            **TWO_STAGES,
            'model.teacher.checkpoint': last_checkpoint('teacher')
        }),
    ride_balanced_softmax=Run('RIDE with balanced softmax',
                              'ride_r32_cifar100_lt_balanced_softmax.py', {
                                  **ONE_STAGE, 'train_cfg.max_epochs': 12,
                                  'default_hooks.two_stage.begin': 10
                              }),
    sade=Run('the experts of SADE', 'sade_r32_cifar100_lt.py', ONE_STAGE),
    crt=Run('cRT on RIDE, ten epochs more', 'ride_r32_cifar100_lt_crt.py',
            {'load_from': last_checkpoint('ride')}),
)


def train(root: Path, cfg_options: Sequence[str]) -> None:
    """Train what ``results/short/`` lacks, one after the other.

    Args:
        root (Path): The project.
        cfg_options (Sequence[str]): More options of ``tools/train.py``, such
            as where the data lies.

    Raises:
        UserError: If a training fails.
    """
    for name, run in RUNS.items():
        if result_file(root, name).is_file():
            continue
        command = [
            sys.executable, 'tools/train.py', f'configs/{run.config}',
            '--work-dir', f'{WORK_DIRS}/{name}', '--resume', '--cfg-options',
            'compile=True', *cfg_options
        ] + [
            f'{key}={json.dumps(value).replace(" ", "")}'.replace('"', '')
            for key, value in run.options.items()
        ]
        print(f'{run.title}: {" ".join(command[1:])}', flush=True)
        if subprocess.run(command, cwd=root).returncode:
            raise UserError(f'the training of {run.title} failed, see above')
        result = collect_result(root / WORK_DIRS / name, name)
        write_result(result, root / 'results/short')


def result_file(root: Path, name: str) -> Path:
    return root / 'results/short' / f'{name}_seed0.json'


def make_page(root: Path) -> str:
    """Write the page.

    Args:
        root (Path): The folder that holds ``results/``.

    Returns:
        str: The page in Markdown.
    """
    columns = ['recipe', 'all', *GROUPS, 'routed: all', 'config']
    lines = [columns, ['---'] * len(columns)]
    missing = []
    for name, run in RUNS.items():
        path = result_file(root, name)
        if path.is_file():
            lines.append(_row(run, json.loads(path.read_text())['figures']))
        else:
            missing.append(run.title)
    page = HEAD + ''.join(f"| {' | '.join(line)} |\n" for line in lines)
    if missing:
        page += f"\nNot trained yet: {'; '.join(missing)}.\n"
    return page


def _row(run: Run, figures: Dict[str, dict]) -> List[str]:
    shown = figures.get('stage_1', figures['final'])
    routed = figures['final'] if 'stage_1' in figures else {}
    return [
        run.title,
        *(_percent(shown, key) for key in ('overall', *GROUPS)),
        _percent(routed, 'overall'),
        f'[`{Path(run.config).name}`](../configs/{run.config})'
    ]


def _percent(figures: Dict[str, float], key: str) -> str:
    value = figures.get(f'long_tail/{key}')
    return '–' if value is None else f'{value:.1f}'


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--train',
        action='store_true',
        help='first train what results/short/ lacks')
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing, say whether the page is up to date')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='more options for every training, such as where the data lies')
    args = parser.parse_args(argv)
    if args.train:
        train(ROOT, args.cfg_options)
    page = ROOT / 'docs/short_runs.md'
    if not args.check:
        write_file(page, make_page(ROOT))
    elif not page.is_file() or page.read_text() != make_page(ROOT):
        raise UserError(f'{page} is not what results/short/ gives: run '
                        'python docs/make_short_runs.py')


if __name__ == '__main__':
    run_tool(main)
