"""The sections of a report."""

import platform
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.accuracy.class_table import COLUMNS, class_cells, class_rows
from ride_mm.analysis.accuracy.confusion import plot_group_confusion
from ride_mm.analysis.accuracy.hardest import hardest_images
from ride_mm.analysis.calibration.reliability_diagram import plot_reliability
from ride_mm.analysis.report.findings import Findings
from ride_mm.analysis.report.overview import configuration
from ride_mm.analysis.report.page import (
    Details,
    Facts,
    Figure,
    FigureMaker,
    Gallery,
    Note,
    Section,
    Table,
)
from ride_mm.analysis.report.source import test_command
from ride_mm.analysis.routing.expert_usage import plot_expert_usage, plot_experts_by_class
from ride_mm.analysis.routing.tradeoff import RoutingSimulator, plot_tradeoff
from ride_mm.analysis.training.training_curves import plot_training_curves
from ride_mm.datasets.class_groups import key_prefix
from ride_mm.evaluation import accuracy_by_class, reliability_bins, score_quality
from ride_mm.evaluation.calibration import TITLES as CALIBRATION_TITLES
from ride_mm.evaluation.expert_usage import usage_cells
from ride_mm.evaluation.long_tail import MEAN_TITLES
from ride_mm.version import __version__

# Classes in the table.
_WORST = 15
_PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmpretrain', 'numpy', 'matplotlib')


def accuracy(found: Findings) -> Section:
    """Accuracy by group, and averaged over classes."""
    quality, usage = found.of_kind('calibration'), found.usage if found.is_routed else None
    columns = ['training images', 'classes', 'test images', 'accuracy (%)']
    columns += ['all experts (%)'] if found.all_experts else []
    columns += CALIBRATION_TITLES.values()
    columns += ['mean experts', 'compute'] if usage else []
    sets = found.of_kind('sets')
    columns += ['label in the set (%)', 'labels in the set'] if sets else []
    rows = []
    for name, images in found.members.items():
        labels = found.main.gt_label[images]
        row = [found.titles[name], f'{np.unique(labels).size:,}', f'{len(labels):,}']
        row += [
            f'{figures[f"long_tail/{name}"]:.2f}'
            for figures in (found.figures, found.all_experts)
            if figures
        ]
        row += [
            f'{quality[key_prefix(name) + key]:.{digits}f}'
            for key, digits in zip(CALIBRATION_TITLES, (2, 3, 3))
        ]
        row += usage_cells(usage, name)[-2:] if usage else []
        if sets:
            row += [f'{sets[key_prefix(name) + key]:.1f}' for key in ('coverage', 'size')]
        rows.append(row)
    means = [f'{found.figures[f"long_tail/{name}"]:.2f}' for name in MEAN_TITLES]
    return Section(
        'accuracy',
        'Accuracy by group',
        'Classes are grouped by their number of training images. Accuracy is the share of the '
        'test images that are classified correctly; ECE, NLL and Brier score measure the quality '
        'of the probabilities, the lower the better; compute is relative to all experts.',
        [
            Table(columns, rows, 'By group'),
            Table(['', *MEAN_TITLES.values()], [['accuracy (%)', *means]], 'Averaged over classes'),
        ],
    )


def by_class(found: Findings, maker: FigureMaker) -> Section:
    """Accuracy by class size."""
    main, figures = found.main, found.of_kind('long_tail')
    by_group = {name: figures[name] for name in found.members if name != 'overall'}
    figure = maker.draw(
        'accuracy_by_class',
        f'Accuracy of every class above its number of training images. {_listed(by_group)}',
        plot_accuracy_by_class,
        accuracy=accuracy_by_class(main.hits, main.gt_label, len(found.groups)),
        figures=figures,
        groups=found.groups,
        class_names=found.names,
    )
    rows = class_rows(main, found.groups, found.names)[:_WORST]
    return Section(
        'classes',
        'Accuracy by class size',
        'Top: accuracy of each class, the largest class on the left. Bottom: number of training '
        'images. Dashed: mean of each group. The less the bars fall to the right, the better the '
        'model handles rare classes. The table names the classes that are recognized least often, '
        'and the label that most of their other images get.',
        [figure, Table(COLUMNS, class_cells(rows), 'Classes with the lowest accuracy')],
    )


def _listed(percent: dict[str, float]) -> str:
    """Figures in words, for a text alternative."""
    return ', '.join(f'{name} {value:.1f}%' for name, value in percent.items())


def confusion(found: Findings, maker: FigureMaker) -> Section:
    """Confusion between head and tail."""
    shares = found.confusion.share.items()
    figure = maker.draw(
        'confusion',
        '. '.join(f'{name} images are predicted as: {_listed(share)}' for name, share in shares),
        plot_group_confusion,
        confusion=found.confusion,
        groups=found.groups,
    )
    return Section(
        'confusion',
        'Confusion between head and tail',
        'Each row shows the groups predicted for the images of one group and adds up to 100%; the '
        'share of correct predictions is in brackets. The bars show how many of the errors of a '
        'group go to a class with more training images; a bar beyond its black tick means a bias '
        'towards the head.',
        [figure],
    )


def reliability(found: Findings, maker: FigureMaker) -> Section:
    """Reliability diagrams."""
    quality = score_quality(
        torch.from_numpy(found.main.pred_score), torch.from_numpy(found.main.gt_label)
    )
    errors = {name: found.figures[f'calibration/{key_prefix(name)}ece'] for name in found.members}
    figure = maker.draw(
        'reliability',
        f'Accuracy against confidence. Calibration error: {_listed(errors)}',
        plot_reliability,
        bins={
            name: reliability_bins(quality.confidence[images], quality.hits[images])
            for name, images in found.members.items()
        },
        errors=errors,
        groups=found.groups,
    )
    return Section(
        'reliability',
        'Reliability of the probabilities',
        "Images are sorted by the model's confidence into 15 bins. Where the bars meet the dashed "
        'line, 80% confidence means 80% accuracy; below it, the model is overconfident. The lower '
        'bars count the images, and the calibration error (ECE) is the mean gap over the images.',
        [figure],
    )


def experts(found: Findings, maker: FigureMaker) -> Section:
    """Accuracy of the experts, and how many of them images use."""
    parts: list
    if not found.num_experts:
        parts = [Note('Experts and trade-off are left out: the model has no experts.')]
    elif found.usage is None:
        text = (
            'Experts used and trade-off are left out: every image ran all experts, and the file '
            'has no outputs of a trained router.'
        )
        parts = [_accuracy_of_experts(found), Note(text)]
    else:
        figures = found.usage
        parts = [
            _accuracy_of_experts(found),
            maker.draw(
                'expert_usage',
                f'Experts used by group, on average {figures["mean"]:.2f} of {found.num_experts}',
                plot_expert_usage,
                figures=figures,
                groups=found.groups,
            ),
            maker.draw(
                'experts_by_class',
                'Experts used by class, from the largest class to the smallest',
                plot_experts_by_class,
                num_experts_used=found.routed.num_experts_used,
                gt_label=found.main.gt_label,
                groups=found.groups,
                class_names=found.names,
            ),
        ]
    return Section(
        'experts',
        'Experts',
        'The accuracy of each expert alone and of the first ones together, how often two experts '
        'differ, and how many experts each image uses.',
        parts,
    )


def _accuracy_of_experts(found: Findings) -> Table | Note:
    figures, run = found.of_kind('expert'), found.main.run
    if not figures:
        command = test_command(run['config'], run['checkpoint'], 'FILE.npz')
        return Note(
            'The outputs of each expert and the trade-off are left out: the predictions do not '
            f'contain them. Create them with `{command}`.'
        )
    columns = {f'alone_{k}': f'expert {k}' for k in range(1, found.num_experts + 1)}
    columns.update((f'first_{k}', f'first {k}') for k in range(2, found.num_experts + 1))
    if 'disagree' in figures:
        columns.update(disagree='two differ (%)', kl='KL (nats)')
    rows = [
        [found.titles[group], *(f'{figures[key_prefix(group) + name]:.2f}' for name in columns)]
        for group in found.members
    ]
    return Table(['training images', *columns.values()], rows, 'Accuracy of the experts (%)')


def tradeoff(found: Findings, thresholds: list[float], maker: FigureMaker) -> Section:
    """Accuracy against compute."""
    simulator = RoutingSimulator(found.main, found.groups)
    curve = simulator.curve()
    figure = maker.draw(
        'tradeoff',
        'Accuracy against compute, from one expert on every image, '
        f'{curve[-1].accuracy["overall"]:.1f}% overall, to all experts, '
        f'{curve[0].accuracy["overall"]:.1f}%',
        plot_tradeoff,
        curve=curve,
        marked={found.threshold_label: simulator.at(thresholds)},
    )
    return Section(
        'tradeoff',
        'Trade-off of accuracy and compute',
        'Each point of a curve is one threshold of the routers, from one expert for every image '
        '(left) to all experts (right). The dashed line is the threshold of the config; '
        '`tools/analysis/tradeoff.py` finds the threshold for a budget.',
        [figure],
    )


def hardest(found: Findings, num_images: int) -> Section:
    """The images with the lowest probability of the true class."""
    config = found.source.data
    images = hardest_images(found.main, found.groups, num_images, config)
    groups = {found.titles[name]: group for name, group in images.items()}
    parts: list = [Gallery(groups, found.names, found.groups.counts, found.is_routed)]
    if config is None:
        parts.append(
            Note(
                'The images are left out: to show them, pass the config of the test with '
                f'`--config {found.main.run["config"]}`. A config is Python code and is executed.'
            )
        )
    return Section(
        'images',
        'The hardest images',
        'The images of each group whose true class gets the lowest probability: their class, the '
        "model's prediction, and each expert's prediction with its own probability.",
        parts,
    )


def training(found: Findings, maker: FigureMaker) -> Section:
    """Training curves."""
    curves = found.source.curves
    text = 'Accuracy on the validation set and training losses, by epoch.'
    part: Figure | Note
    if curves is None:
        part = Note(
            'The training curves are left out: they need the work_dir of the training with its '
            'logs.'
        )
    else:
        label = 'Accuracy and losses by epoch'
        part = maker.draw('training', label, plot_training_curves, curves=curves)
        if curves.router_begin:
            text += ' Shaded: the epochs of the router, in which the experts are frozen.'
    return Section('training', 'Training', text, [part])


def origin(found: Findings, command: str) -> Section:
    """Files, command and versions that the report was made with."""
    run, source = found.main.run, found.source
    now = datetime.now(timezone.utc)
    versions = [f'ride_mm {__version__}', f'Python {platform.python_version()}']
    for name in _PACKAGES:
        try:
            versions.append(f'{name} {version(name)}')
        except PackageNotFoundError:  # another distribution of the same
            continue
    facts = {
        'report': f'{now:%Y-%m-%d %H:%M} UTC, `{command}`',
        'predictions': f'{source.file}, made with {run["config"]}'
        + ''.join(f' {key}={value}' for key, value in run['options'].items()),
        'checkpoint': f'{run["checkpoint"]}, fingerprint {run["weights"]}',
        'versions': ', '.join(versions),
    }
    if run.get('prior') is not None:
        possible = sum(share > 0 for share in run['prior'])
        facts['classes that can occur'] = (
            f'{possible} of {len(run["prior"])}, with the frequencies of --classes and --prior'
        )
    parts: list = [Facts(facts)]
    if source.training is not None:
        parts.append(Details('The config', source.training.pretty_text))
    return Section('origin', 'How this was made', 'What is needed to reproduce it.', parts)


def build_sections(
    found: Findings, maker: FigureMaker, num_images: int, command: str
) -> Iterator[Section]:
    """Build the sections of the page, in their order."""
    yield configuration(found)
    yield accuracy(found)
    yield by_class(found, maker)
    yield confusion(found, maker)
    yield reliability(found, maker)
    yield experts(found, maker)
    if found.thresholds is not None:
        yield tradeoff(found, found.thresholds, maker)
    if num_images:
        yield hardest(found, num_images)
    yield training(found, maker)
    yield origin(found, command)
