"""Show what is in the data of a training, and what is wrong with it."""

import argparse
import json
import os.path as osp
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich import progress
from rich.console import Console

from ride_mm.compat.atomic_backend import write_file
from ride_mm.datasets.check import Finding, Split, check_data
from ride_mm.datasets.class_groups import ClassGroups, group_titles
from ride_mm.engine import launch
from ride_mm.engine.config import add_cfg_options, load_config, type_name
from ride_mm.evaluation.tables import build_table, render_table
from ride_mm.utils.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/check_data.py my_images.py
  python tools/check_data.py data/my_images --json found.json

A folder holds train/, and val/ or test/, with a sub-folder for each class; or
the class folders themselves. All images are read. Exit code: 0 if nothing has
to be fixed, 1 if something has, 2 if the data cannot be checked.
"""
SPLITS = ('train', 'val', 'test')
NAMED = 5

Builders = dict[str, Callable[[], Any]]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', help='a config, or a folder of images')
    parser.add_argument('--json', metavar='FILE', help='write all findings (.json)')
    add_cfg_options(parser, 'override settings of the config')
    return parser.parse_args(argv)


def of_folder(root: str) -> Builders:
    """What builds the data sets of a folder."""
    names = [name for name in SPLITS if osp.isdir(osp.join(root, name))]
    if 'train' not in names:
        options = dict(type='LongTailList', data_prefix=root)
        return dict(train=partial(DATASETS.build, options))
    return {
        name: partial(
            DATASETS.build,
            dict(
                type='LongTailList',
                data_root=root,
                data_prefix=name,
                class_counts=None if name == 'train' else 'train',
            ),
        )
        for name in names
    }


def of_config(cfg: dict) -> Builders:
    """What builds the data sets of a config; equal ones once."""
    found: dict[str, dict] = {}
    for name in SPLITS:
        dataset = (cfg.get(f'{name}_dataloader') or {}).get('dataset')
        if dataset is not None and dataset not in found.values():
            found[name] = dataset
    if not found:
        raise UserError('the config has no train_dataloader.dataset, nor one of val or test')
    return {name: partial(DATASETS.build, dataset) for name, dataset in found.items()}


def find_thresholds(cfg: dict) -> Any:
    """What the metrics of a config take many, medium and few for."""
    metrics = cfg.get('val_evaluator') or []
    metrics = metrics if isinstance(metrics, list) else [metrics]
    for metric in metrics:
        if type_name(metric) == 'LongTailMetric':
            return metric.get('thresholds', 'ride')
    return 'ride'


def check_head(cfg: dict, splits: Sequence[Split]) -> list[Finding]:
    """Compare the classes of the head with those that are trained on."""
    wanted = ((cfg.get('model') or {}).get('head') or {}).get('num_classes')
    return [
        Finding(
            split.name,
            f'model.head.num_classes={wanted}, but the data has {len(split.counts)} classes',
            f'set it to {len(split.counts)}, or give the data the list of all by classes=[...]',
        )
        for split in splits[:1]
        if wanted not in (None, len(split.counts))
    ]


def summarize(split: Split, thresholds: Any) -> dict:
    """Count the images and classes of a split."""
    counts = split.counts
    groups = ClassGroups(split.training_counts, thresholds).masks
    return dict(
        split=split.name,
        images=sum(counts),
        classes=sum(count > 0 for count in counts),
        of_classes=len(counts),
        largest=max(counts),
        smallest=min(counts),
        class_counts={split.class_name(i): count for i, count in enumerate(counts)},
        groups={
            name: dict(
                classes=int(mask.sum()), images=sum(n for n, inside in zip(counts, mask) if inside)
            )
            for name, mask in groups.items()
        },
    )


def show(found: dict, thresholds: Any) -> None:
    """Print tables of what is there and of what was found."""
    splits = found['splits']
    if splits:
        rows = [
            [
                split['split'],
                f'{split["images"]:,}',
                f'{split["classes"]} of {split["of_classes"]}',
                f'{split["largest"]:,}',
                f'{split["smallest"]:,}',
            ]
            for split in splits
        ]
        columns = ['split', 'images', 'classes', 'largest', 'smallest']
        print(render_table(build_table('Images', columns, rows)))
        titles = group_titles(thresholds)
        rows = [
            [
                titles[name],
                str(splits[0]['groups'][name]['classes']),
                *(f'{split["groups"].get(name, {}).get("images", 0):,}' for split in splits),
            ]
            for name in splits[0]['groups']
        ]
        columns = ['training images', 'classes'] + [
            f'images in {split["split"]}' for split in splits
        ]
        print(render_table(build_table('Groups', columns, rows)))
    for finding in found['findings']:
        kind = 'ERROR' if finding['error'] else 'note'
        print(f'{kind} ({finding["split"]}): {finding["what"]}')
        for place in finding['places'][:NAMED]:
            print(f'    {place}')
        if len(finding['places']) > NAMED:
            print(f'    and {len(finding["places"]) - NAMED} more')
        print(f'  What to do: {finding["advice"]}.')
    errors = sum(finding['error'] for finding in found['findings'])
    notes = len(found['findings']) - errors
    print(f'{errors} to fix, {notes} to review' if errors or notes else 'Nothing to fix was found.')


def show_progress(name: str) -> Callable[[Iterable, int], Iterable]:
    """Show how far the reading of a split is, with the time that is left."""

    def follow(results: Iterable, total: int) -> Iterable:
        console = Console(stderr=True)
        bar = progress.Progress(
            progress.TextColumn(f'Reading {name}'),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        with bar:
            yield from bar.track(results, total)

    return follow


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.json:
        launch.check_output_file(args.json, ('.json',), '--json')
    init_default_scope('mmpretrain')
    # What data sets warn of is among the findings.
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg: dict = {}
    if osp.isdir(args.data):
        datasets = of_folder(args.data)
    else:
        cfg = load_config(args.data, args.cfg_options)
        datasets = of_config(cfg)
    thresholds = find_thresholds(cfg)
    splits, findings = check_data(datasets, show_progress)
    findings += check_head(cfg, splits)
    found = dict(
        splits=[summarize(split, thresholds) for split in splits],
        findings=[asdict(finding) for finding in findings],
    )
    show(found, thresholds)
    if args.json:
        write_file(args.json, json.dumps(found, indent=1) + '\n')
    if any(finding.error for finding in findings):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
