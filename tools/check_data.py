"""Count the images and classes of training data, and find problems."""

import argparse
import json
import os.path as osp
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from ride_mm.datasets.check import Finding, Split, check_data
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine import launch
from ride_mm.engine.config import add_cfg_options, load_config, type_name
from ride_mm.evaluation.tables import build_table, render_table
from ride_mm.utils.errors import UserError, run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/check_data.py my_images.py
  python tools/check_data.py data/my_images --json found.json

A folder contains train/, and val/ or test/, with one sub-folder per class; or
the class folders themselves. All images are read. Exit code: 0 if nothing has
to be fixed, 1 if something has, 2 if the data cannot be checked.
"""
SPLITS = ('train', 'val', 'test')
NAMED = 5


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', help='a config, or a folder of images')
    parser.add_argument('--json', metavar='FILE', help='write all findings (.json)')
    add_cfg_options(parser, 'override settings of the config')
    return parser.parse_args(argv)


def datasets_of_folder(root: str) -> dict[str, dict]:
    """Get the configs of the datasets in a folder, by split."""
    names = [name for name in SPLITS if osp.isdir(osp.join(root, name))]
    if 'train' not in names:
        return dict(train=dict(type='LongTailList', data_prefix=root))
    options = dict(type='LongTailList', data_root=root)
    return {
        name: dict(options, data_prefix=name, class_counts=None if name == 'train' else 'train')
        for name in names
    }


def datasets_of_config(cfg: dict) -> dict[str, dict]:
    """Get the configs of a config's datasets, by split; equal ones once."""
    found: dict[str, dict] = {}
    for name in SPLITS:
        dataset = (cfg.get(f'{name}_dataloader') or {}).get('dataset')
        if dataset is not None and dataset not in found.values():
            found[name] = dataset
    if not found:
        raise UserError('the config has no train_dataloader.dataset, nor one of val or test')
    return found


def find_thresholds(cfg: dict) -> Any:
    """Get the class groups of a config's metrics."""
    metrics = cfg.get('val_evaluator') or []
    metrics = metrics if isinstance(metrics, list) else [metrics]
    for metric in metrics:
        if type_name(metric) == 'LongTailMetric':
            return metric.get('thresholds', 'ride')
    return 'ride'


def check_head(cfg: dict, splits: Sequence[Split]) -> list[Finding]:
    """Compare ``num_classes`` of the head with the first split."""
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


def summarize(split: Split, groups: ClassGroups) -> dict:
    """Count the images and classes of a split."""
    counts = split.counts
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
            for name, mask in groups.masks.items()
        },
    )


def show(splits: list[dict], groups: list[ClassGroups], findings: list[Finding]) -> None:
    """Print tables of the splits with their class groups, and the findings."""
    if splits:
        columns = ['split', 'images', 'classes', 'largest', 'smallest']
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
        print(render_table(build_table('Images', columns, rows)))
        columns = ['training images', 'classes', *(f'images in {s["split"]}' for s in splits)]
        rows = [
            [
                groups[0].titles[name],
                str(group['classes']),
                *(f'{split["groups"].get(name, {}).get("images", 0):,}' for split in splits),
            ]
            for name, group in splits[0]['groups'].items()
        ]
        print(render_table(build_table('Groups', columns, rows)))
    for finding in findings:
        print(f'{"ERROR" if finding.error else "note"} ({finding.split}): {finding.what}')
        for place in finding.places[:NAMED]:
            print(f'    {place}')
        if len(finding.places) > NAMED:
            print(f'    and {len(finding.places) - NAMED} more')
        print(f'  What to do: {finding.advice}.')
    errors = sum(finding.error for finding in findings)
    print(
        f'{errors} to fix, {len(findings) - errors} to review'
        if findings
        else 'Nothing to fix was found.'
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.json:
        launch.check_output_file(args.json, ('.json',), '--json')
    init_default_scope('mmpretrain')
    # The findings include the warnings of datasets.
    MMLogger.get_current_instance().setLevel('ERROR')
    cfg: dict = {}
    if osp.isdir(args.data):
        datasets = datasets_of_folder(args.data)
    else:
        cfg = load_config(args.data, args.cfg_options)
        datasets = datasets_of_config(cfg)
    thresholds = find_thresholds(cfg)
    splits, findings = check_data(
        {name: partial(DATASETS.build, dataset) for name, dataset in datasets.items()}
    )
    findings += check_head(cfg, splits)
    groups = [ClassGroups(split.training_counts, thresholds) for split in splits]
    summaries = list(map(summarize, splits, groups))
    show(summaries, groups, findings)
    if args.json:
        found = dict(splits=summaries, findings=[asdict(finding) for finding in findings])
        write_file(args.json, json.dumps(found, indent=1) + '\n')
    if any(finding.error for finding in findings):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
