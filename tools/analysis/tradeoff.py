"""Compute accuracy against compute for every threshold of the routers.

To compare, the same for a threshold of the experts' confidence, and for images
on which the experts disagree, both without routers.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

import mmengine

from ride_mm.analysis import RoutingSimulator, choose_point
from ride_mm.analysis.predictions import check_held_out, read_own_predictions
from ride_mm.analysis.routing.guarantee import guaranteed_point
from ride_mm.analysis.routing.tradeoff import (
    OperatingPoint,
    at_compute,
    by_agreement,
    by_confidence,
    plot_tradeoff,
    points_table,
    thinned,
)
from ride_mm.analysis.run_options import options_of_test
from ride_mm.analysis.style import check_format
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine import launch
from ride_mm.engine.config import add_cfg_options, load_config
from ride_mm.evaluation.tables import print_tables
from ride_mm.utils.errors import run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/test.py CONFIG CHECKPOINT --all-experts \\
      --out work_dirs/experts.npz
  python tools/analysis/tradeoff.py work_dirs/experts.npz --budget 0.6 \\
      --plot work_dirs/tradeoff.png \\
      --config CONFIG --out-config work_dirs/cheap.py
  python tools/test.py work_dirs/cheap.py CHECKPOINT

To be within one point of the accuracy of all experts on new images, with a
probability of 0.9, in each class group:

  python tools/test.py CONFIG CHECKPOINT --split val --all-experts \\
      --out work_dirs/val.npz
  python tools/analysis/tradeoff.py work_dirs/val.npz --max-loss 0.01 --each-group

Choose a threshold on images that are not used for evaluation: those of
val_dataloader, with --split val, see docs/recipes.md on holding out images.
"""
_ROWS, _JSON_POINTS = 11, 200


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('predictions', help='output of tools/test.py --all-experts --out')
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        '--budget',
        type=float,
        metavar='X',
        help='choose the most accurate point with at most this compute (1 = all experts)',
    )
    wanted.add_argument(
        '--accuracy',
        type=float,
        metavar='PERCENT',
        help='choose the cheapest point with at least this accuracy',
    )
    wanted.add_argument(
        '--max-loss',
        type=float,
        metavar='X',
        help='choose the cheapest threshold that, with --confidence, loses at most this much of '
        'the accuracy of all experts on new images (0.01 = one point)',
    )
    wanted.add_argument(
        '--max-disagreement',
        type=float,
        metavar='X',
        help='choose the cheapest threshold at which, with --confidence, at most this share of '
        'new images has another answer than that of all experts',
    )
    parser.add_argument(
        '--confidence',
        type=float,
        default=0.9,
        metavar='P',
        help='probability that --max-loss or --max-disagreement holds (default: 0.9)',
    )
    parser.add_argument(
        '--each-group',
        action='store_true',
        help='--max-loss or --max-disagreement for the images of each class group',
    )
    parser.add_argument(
        '--group',
        default='overall',
        choices=['overall', 'many', 'medium', 'few'],
        help='group whose accuracy decides (default: overall)',
    )
    parser.add_argument(
        '--per-router', action='store_true', help='choose a threshold for each router'
    )
    parser.add_argument(
        '--out-config', metavar='FILE', help='config to write with the chosen threshold (.py)'
    )
    parser.add_argument(
        '--config',
        metavar='FILE',
        help='the config of the test, for --out-config; a config is Python code and is executed',
    )
    add_cfg_options(parser, 'override settings of the config')
    parser.add_argument('--plot', metavar='FILE', help='plot to write')
    parser.add_argument('--json', metavar='FILE', help='JSON file to write the figures to')
    args = parser.parse_args(argv)
    promised = args.max_loss is not None or args.max_disagreement is not None
    chosen = promised or args.budget is not None or args.accuracy is not None
    if args.out_config and not chosen:
        parser.error('--out-config needs --budget, --accuracy, --max-loss or --max-disagreement')
    if args.per_router and (promised or not chosen):
        parser.error('--per-router needs --budget or --accuracy')
    if args.each_group and not promised:
        parser.error('--each-group needs --max-loss or --max-disagreement')
    if bool(args.out_config) != bool(args.config):
        parser.error(
            '--out-config and --config need each other: --out-config writes the config of the '
            'test with the chosen threshold'
        )
    return args


def chosen_point(
    args: argparse.Namespace,
    run: dict,
    simulator: RoutingSimulator,
    curve: Sequence[OperatingPoint],
) -> OperatingPoint | None:
    """The point that the options ask for, None without such an option."""
    limit = args.max_loss if args.max_disagreement is None else args.max_disagreement
    if limit is not None:
        check_held_out(args.predictions, run)
        disagreement = args.max_disagreement is not None
        return guaranteed_point(simulator, limit, args.confidence, args.each_group, disagreement)
    if args.budget is None and args.accuracy is None:
        return None
    points = [*curve, *(simulator.grid() if args.per_router else ())]
    return choose_point(points, args.budget, args.accuracy, args.group)


def promise_of(args: argparse.Namespace) -> str:
    """A line on what holds for the chosen threshold, or nothing."""
    images = 'new images' + (' of each class group' if args.each_group else '')
    if args.max_loss is not None:
        promise = f'{images.capitalize()} lose at most {args.max_loss:g} of the accuracy'
    elif args.max_disagreement is not None:
        promise = f'At most {args.max_disagreement:g} of {images} have another answer than that'
    else:
        return ''
    return f'{promise} of all experts with a probability of {args.confidence:g}.\n'


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.out_config:
        launch.check_output_file(args.out_config, ('.py',), '--out-config')
    if args.plot:
        check_format(args.plot)
    predictions = read_own_predictions(args.predictions, experts=True)
    run = predictions.run
    if args.config:
        options = options_of_test(args.predictions, run, args.cfg_options, of_model=True)
    groups = ClassGroups(run['class_counts'], run['thresholds'])
    simulator = RoutingSimulator(predictions, groups)
    curve = simulator.curve()
    confidence = RoutingSimulator(by_confidence(predictions), groups).curve()
    half = [0.5] * len(simulator.router_logits)
    marked = {'0.5': simulator.at(half)}
    agreement = RoutingSimulator(by_agreement(predictions), groups).at(half)
    point = chosen_point(args, run, simulator, curve)
    if point is not None:
        marked['chosen'] = point

    rows = {str(index): point for index, point in enumerate(thinned(curve, _ROWS))}
    by_compute = {
        f'confidence, {label}': at_compute(confidence, point.compute)
        for label, point in marked.items()
    }
    print_tables(points_table({**rows, **marked, **by_compute, 'agreement': agreement}))
    print(promise_of(args), end='')
    if args.plot:
        print(plot_tradeoff(curve, marked, args.plot, confidence))
    if args.json:
        content = dict(
            curve=list(map(asdict, thinned(curve, _JSON_POINTS))),
            marked={label: asdict(point) for label, point in marked.items()},
            confidence=list(map(asdict, thinned(confidence, _JSON_POINTS))),
            agreement=asdict(agreement),
        )
        mmengine.dump(content, args.json, file_format='json', indent=1)
        print(args.json)
    if args.out_config:
        cfg = load_config(args.config, options)
        test_cfg = cfg.model.get('test_cfg') or {}
        cfg.model.test_cfg = dict(test_cfg, mode='route', threshold=marked['chosen'].threshold)
        write_file(args.out_config, cfg.pretty_text)
        print(args.out_config)


if __name__ == '__main__':
    run_tool(main)
