"""Draw docs/gallery/ from predictions: python docs/make_gallery.py NAME=FILE.npz ..."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.accuracy.summary import of_kind, summarize
from ride_mm.analysis.calibration.reliability_diagram import plot_reliability
from ride_mm.analysis.predictions import read_own_predictions
from ride_mm.analysis.routing.expert_usage import plot_expert_usage
from ride_mm.datasets.class_groups import ClassGroups, key_prefix
from ride_mm.evaluation import accuracy_by_class, reliability_bins, score_quality
from ride_mm.utils.errors import run_tool

FOLDER = Path(__file__).resolve().parent / 'gallery'


def draw(name: str, file: str) -> None:
    """Draw accuracy by class, reliability and, with several experts, their usage."""
    predictions = read_own_predictions(file)
    groups = ClassGroups(predictions.run['class_counts'], predictions.run['thresholds'])
    figures, labels = summarize(predictions, groups), predictions.gt_label
    plot_accuracy_by_class(
        accuracy_by_class(predictions.hits, labels, len(groups)),
        of_kind(figures, 'long_tail'),
        groups,
        FOLDER / f'{name}_accuracy.svg',
    )
    quality = score_quality(torch.from_numpy(predictions.pred_score), torch.from_numpy(labels))
    members = groups.of_images(labels)
    plot_reliability(
        {
            group: reliability_bins(quality.confidence[images], quality.hits[images])
            for group, images in members.items()
        },
        {group: figures[f'calibration/{key_prefix(group)}ece'] for group in members},
        groups,
        FOLDER / f'{name}_reliability.svg',
    )
    usage = of_kind(figures, 'experts')
    if usage.get('used_1', 100) < 100:
        plot_expert_usage(usage, groups, FOLDER / f'{name}_experts.svg')


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'runs', nargs='+', metavar='NAME=FILE', help='output of tools/test.py --out'
    )
    for run in parser.parse_args(argv).runs:
        draw(*run.split('=', 1))


if __name__ == '__main__':
    run_tool(main)
