"""Try what docs/decisions.md promises on many splits of real predictions.

    python tools/test.py CONFIG CHECKPOINT --all-experts --out all.npz
    python tests/stress/promises.py all.npz

Each split chooses with some of the images and judges on the others: a threshold
by the usual rule and with a guarantee, sets with one threshold and with one per
group. The exit status is 1 if a promise is broken more often than stated.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from rich.progress import track

from ride_mm.analysis import (
    RoutingSimulator,
    choose_point,
    guaranteed_point,
    set_thresholds,
    sets_of,
)
from ride_mm.analysis.predictions import Predictions, read_own_predictions
from ride_mm.analysis.routing.tradeoff import route
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation.tables import build_table, print_tables

LIMITS, CONFIDENCE, COVERAGE = (0.01, 0.02), 0.9, 0.9
BY_IMAGE = ('gt_label', 'pred_score', 'num_experts_used', 'relative_compute')
BY_EXPERT = ('expert_logits', 'router_logits')


def take(predictions: Predictions, images: np.ndarray) -> Predictions:
    """The predictions for some of the images."""
    parts = {name: getattr(predictions, name)[images] for name in BY_IMAGE}
    parts |= {name: getattr(predictions, name)[:, images] for name in BY_EXPERT}
    return replace(predictions, **parts)


def splits(predictions: Predictions, number: int, size: int) -> Iterator[tuple]:
    """Pairs of the predictions to choose with and those to judge on."""
    for seed in track(range(number), f'splits with {size} images'):
        images = np.random.default_rng(seed).permutation(len(predictions))
        yield take(predictions, images[:size]), take(predictions, images[size:])


def try_thresholds(predictions: Predictions, groups: ClassGroups, number: int) -> dict:
    """Accuracy lost on other images, and compute, by rule and limit: (splits, 2)."""
    found: dict = {}
    for chosen, judged in splits(predictions, number, 1000):
        old, new = RoutingSimulator(chosen, groups), RoutingSimulator(judged, groups)
        routers = len(old.router_logits)
        everyone = [sim.at([0.0] * routers).accuracy['overall'] for sim in (old, new)]
        for limit in LIMITS:
            usual = choose_point(old.curve(), accuracy=everyone[0] - 100 * limit)
            for rule, point in (
                ('usual', usual),
                ('guaranteed', guaranteed_point(old, limit, CONFIDENCE)),
            ):
                judgement = new.at(np.broadcast_to(point.threshold, routers))
                loss = everyone[1] - judgement.accuracy['overall']
                found.setdefault((rule, limit), []).append((loss / 100, judgement.compute))
    return {key: np.array(values) for key, values in found.items()}


def try_sets(predictions: Predictions, groups: ClassGroups, number: int) -> dict:
    """Coverage by group and size of the sets on other images, by rule: (splits, G + 1)."""
    whole = ClassGroups(np.ones(len(groups)))  # one group
    found: dict = {'one threshold': [], 'one per group': []}
    for chosen, judged in splits(predictions, number, 2000):
        for name, by in zip(found, (whole, groups)):
            bounds = set_thresholds(chosen.pred_score, chosen.gt_label, by, COVERAGE)
            sets = sets_of(judged.pred_score, bounds)
            held = sets[np.arange(len(sets)), judged.gt_label]
            members = groups.of_images(judged.gt_label)
            members.pop('overall')
            found[name].append(
                [*(held[images].mean() for images in members.values()), sets.sum(1).mean()]
            )
    return {key: np.array(values) for key, values in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('predictions', help='output of tools/test.py --all-experts --out (.npz)')
    parser.add_argument('--splits', type=int, default=60, metavar='N', help='default: 60')
    args = parser.parse_args(argv)
    predictions = read_own_predictions(args.predictions, experts=True)
    groups = ClassGroups(predictions.run['class_counts'], predictions.run['thresholds'])
    losses = try_thresholds(predictions, groups, args.splits)
    sets = try_sets(route(predictions, 0.5), groups, args.splits)
    broken = {key: int((loss[:, 0] > key[1]).sum()) for key, loss in losses.items()}
    print_tables(
        build_table(
            f'Thresholds for a loss of accuracy, with {1000} images, {args.splits} splits',
            ['rule', 'limit (%)', 'promise broken', 'compute'],
            [
                [rule, f'{100 * limit:g}', str(broken[rule, limit]), f'{loss[:, 1].mean():.2f}']
                for (rule, limit), loss in losses.items()
            ],
        ),
        build_table(
            f'Sets of {COVERAGE:.0%}, with {2000} images, mean of {args.splits} splits',
            ['thresholds', *(f'{name} (%)' for name in groups.masks), 'labels'],
            [
                [
                    name,
                    *(f'{100 * x:.1f}' for x in values.mean(0)[:-1]),
                    f'{values.mean(0)[-1]:.1f}',
                ]
                for name, values in sets.items()
            ],
        ),
    )
    # Of so many splits, chance breaks this many with a probability of 1 %.
    most = np.random.default_rng(0).binomial(args.splits, 1 - CONFIDENCE, 10**5)
    bad = [
        key for key in broken if key[0] == 'guaranteed' and broken[key] > np.quantile(most, 0.99)
    ]
    low = sets['one per group'].mean(0)[:-1] < COVERAGE - 0.01
    sys.exit(bool(bad) or bool(low.any()))


if __name__ == '__main__':
    main()
