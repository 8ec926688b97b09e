"""The sections of a report."""

import platform
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.accuracy.confusion_plot import plot_group_confusion
from ride_mm.analysis.accuracy.hardest import hardest_images
from ride_mm.analysis.calibration.reliability_diagram import plot_reliability
from ride_mm.analysis.report.figure_maker import FigureMaker
from ride_mm.analysis.report.findings import Findings
from ride_mm.analysis.report.overview import configuration
from ride_mm.analysis.report.page import Details, Facts, Gallery, Note, Section, Table
from ride_mm.analysis.routing.expert_usage import plot_expert_usage, plot_experts_by_class
from ride_mm.analysis.routing.tradeoff import RoutingSimulator, plot_tradeoff
from ride_mm.analysis.training.training_curves import plot_training_curves
from ride_mm.datasets.class_groups import key_prefix
from ride_mm.evaluation import accuracy_by_class, reliability_bins, score_quality
from ride_mm.evaluation.calibration import TITLES as CALIBRATION_TITLES
from ride_mm.evaluation.expert_usage import usage_cells
from ride_mm.evaluation.long_tail import MEAN_TITLES
from ride_mm.version import __version__

_PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmpretrain', 'numpy', 'matplotlib')


def accuracy(found: Findings, _: FigureMaker) -> Section:
    """Tables by group, and over the classes."""
    quality = found.of_kind('calibration')
    columns = ['training images', 'classes', 'test images', 'accuracy (%)']
    columns += ['all experts (%)'] if found.all_experts else []
    columns += CALIBRATION_TITLES.values()
    if found.is_routed:
        columns += ['mean experts', 'compute']
    rows = []
    for name, images in found.groups.items():
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
        if found.is_routed:
            row += usage_cells(found.usage_figures, name)[-2:]
        rows.append(row)
    means = [f'{found.figures[f"long_tail/{name}"]:.2f}' for name in MEAN_TITLES]
    return Section(
        'accuracy',
        'Accuracy by group',
        'Classes are grouped by their number of training images. Accuracy is '
        'the share of the test images that are classified correctly; ECE, NLL '
        'and Brier score measure the quality of the probabilities, the lower '
        'the better; compute is relative to all experts.',
        [
            Table(columns, rows, 'By group'),
            Table(['', *MEAN_TITLES.values()], [['accuracy (%)', *means]], 'Averaged over classes'),
        ],
    )


def by_class(found: Findings, maker: FigureMaker) -> Section:
    """Accuracy by class size."""
    main, figures = found.main, found.of_kind('long_tail')
    recalls = accuracy_by_class(main.hits, main.gt_label, len(found.classes))
    by_group = {name: figures[name] for name in found.groups}
    overall = by_group.pop('overall')
    figure = maker.draw(
        'accuracy_by_class',
        f'Accuracy of every class above its number of training images. {_listed(by_group)}',
        plot_accuracy_by_class,
        accuracy=recalls,
        groups=found.classes,
        overall=overall,
        group_accuracy=by_group,
        class_names=found.names,
    )
    return Section(
        'classes',
        'Accuracy by class size',
        'Top: accuracy of each class, the largest class on the left. Bottom: '
        'their number of training images. Dashed: the mean of each group. The '
        'less the bars fall to the right, the better the model handles rare '
        'classes.',
        [figure],
    )


def _listed(percent: dict[str, float]) -> str:
    """Figures in words, for those who do not see a picture."""
    return ', '.join(f'{name} {value:.1f}%' for name, value in percent.items())


def confusion(found: Findings, maker: FigureMaker) -> Section:
    """Confusion between head and tail."""
    told = found.confusion
    label = '. '.join(
        f'{name} images are predicted as: {_listed(shares)}' for name, shares in told.share.items()
    )
    figure = maker.draw(
        'confusion',
        label,
        plot_group_confusion,
        confusion=told,
        thresholds=found.classes.thresholds,
    )
    return Section(
        'confusion',
        'Confusion between head and tail',
        'Each row shows the groups predicted for the images of one group and '
        'adds up to 100%; the share of correct predictions is in brackets. '
        "The bars show how many of a group's errors go to a class with more "
        'training images; a bar beyond its black tick means a bias towards '
        'the head.',
        [figure],
    )


def reliability(found: Findings, maker: FigureMaker) -> Section:
    """Reliability diagrams."""
    quality = score_quality(
        torch.from_numpy(found.main.pred_score), torch.from_numpy(found.main.gt_label)
    )
    bins = {
        name: reliability_bins(quality.confidence[images], quality.hits[images])
        for name, images in found.groups.items()
    }
    errors = {name: found.figures[f'calibration/{key_prefix(name)}ece'] for name in found.groups}
    figure = maker.draw(
        'reliability',
        f'Accuracy against confidence. Calibration error: {_listed(errors)}',
        plot_reliability,
        bins=bins,
        errors=errors,
        thresholds=found.classes.thresholds,
    )
    return Section(
        'reliability',
        'Reliability of the probabilities',
        "Images are sorted by the model's confidence into 15 bins. Where the "
        'bars meet the dashed line, 80% confidence means 80% accuracy; below '
        'it, the model is overconfident. The lower bars count the images, and '
        'the calibration error (ECE) is the mean gap over the '
        'images.',
        [figure],
    )


def experts(found: Findings, maker: FigureMaker) -> Section:
    """What experts know, and how many are asked."""
    section = Section(
        'experts',
        'Experts',
        'The accuracy of each expert alone and of the first ones together, '
        'how often two experts differ, and how many experts each image uses.',
    )
    if found.num_experts is None:
        section.parts.append(Note('Experts and trade-off are left out: the model has none.'))
        return section
    section.parts.append(_opinions_table(found))
    usage = found.usage
    if usage is None:
        section.parts.append(
            Note(
                'Experts used and trade-off are left out: every image ran '
                'all experts, and the file has no outputs of a trained '
                'router.'
            )
        )
        return section
    figures = found.usage_figures
    section.parts.extend(
        [
            maker.draw(
                'expert_usage',
                'Experts used by group, on average '
                + f'{figures["mean"]:.2f} of {found.num_experts}',
                plot_expert_usage,
                figures=figures,
                groups=found.classes,
            ),
            maker.draw(
                'experts_by_class',
                'Experts used by class, from the largest class to the smallest',
                plot_experts_by_class,
                num_experts_used=usage.num_experts_used,
                gt_label=usage.gt_label,
                groups=found.classes,
                class_names=found.names,
            ),
        ]
    )
    return section


def _opinions_table(found: Findings):
    """What each expert knows, or why this is not known."""
    figures = found.of_kind('expert')
    if not figures:
        return Note(
            'The outputs of each expert and the trade-off are left '
            'out: the predictions do not hold them. Create them with '
            f'`{found.source.test_command}`.'
        )
    columns = {
        **{f'alone_{k}': f'expert {k}' for k in range(1, found.num_experts + 1)},
        **{f'first_{k}': f'first {k}' for k in range(2, found.num_experts + 1)},
    }
    if 'disagree' in figures:
        columns.update(disagree='two differ (%)', kl='KL (nats)')
    rows = [
        [found.titles[group]] + [f'{figures[key_prefix(group) + name]:.2f}' for name in columns]
        for group in found.groups
    ]
    return Table(['training images', *columns.values()], rows, 'Accuracy of the experts (%)')


def tradeoff(found: Findings, maker: FigureMaker) -> Section:
    """Accuracy against compute."""
    simulator = RoutingSimulator(found.routed, found.classes)
    curve = simulator.curve()
    values = dict.fromkeys(f'{value:g}' for value in found.routing)
    marked = {f'threshold {", ".join(values)}': simulator.at(found.routing)}
    figure = maker.draw(
        'tradeoff',
        'Accuracy against compute, from one expert on every '
        f'image, {curve[-1].accuracy["overall"]:.1f}% overall, to all '
        f'experts, {curve[0].accuracy["overall"]:.1f}%',
        plot_tradeoff,
        curve=curve,
        marked=marked,
    )
    return Section(
        'tradeoff',
        'Trade-off of accuracy and compute',
        'Each point of a curve is one threshold of the routers, from one '
        'expert for every image (left) to all experts (right). The dashed '
        'line is the threshold of the config; `tools/analysis/tradeoff.py` '
        'finds the threshold for a budget.',
        [figure],
    )


def hardest(found: Findings, num_images: int) -> Section:
    """The images that the model has most trouble with."""
    section = Section(
        'images',
        'The hardest images',
        'The images of each group whose true class gets the lowest '
        "probability: their class, the model's prediction, and each expert's "
        'prediction with its own probability.',
    )
    config = found.source.data
    images = hardest_images(found.main, found.classes, num_images, config)
    section.parts.append(
        Gallery(
            {found.titles[name]: group for name, group in images.items()},
            found.names,
            found.classes.counts,
            found.is_routed,
        )
    )
    if config is None:
        section.parts.append(
            Note(
                'The images are left out: to show them, pass the config of '
                'the test with `--config '
                f'{found.source.predictions.run["config"]}`. A config is '
                'Python code and is executed.'
            )
        )
    return section


def training(found: Findings, maker: FigureMaker) -> Section:
    """The course of the training."""
    curves = found.source.curves
    text = 'Accuracy on the validation set and training losses, by epoch.'
    if curves is not None and curves.router_begin:
        text += ' Shaded: the epochs of the router, in which the experts are frozen.'
    section = Section('training', 'Training', text)
    if curves is None:
        section.parts.append(
            Note(
                'The training curves are left out: they need the work_dir of '
                'the training with its logs.'
            )
        )
    else:
        section.parts.append(
            maker.draw(
                'training', 'Accuracy and losses by epoch', plot_training_curves, curves=curves
            )
        )
    return section


def origin(found: Findings, command: str) -> Section:
    """How the report was made."""
    run, source = found.source.predictions.run, found.source
    now = datetime.now(timezone.utc)
    facts = {
        'report': f'{now:%Y-%m-%d %H:%M} UTC, `{command}`',
        'predictions': f'{source.file}, made with {run["config"]}'
        + ''.join(f' {key}={value}' for key, value in run['options'].items()),
        'checkpoint': f'{run["checkpoint"]}, fingerprint {run["weights"]}',
        'versions': ', '.join(_versions()),
    }
    parts: list = [Facts(facts)]
    if source.training is not None:
        parts.append(Details('The config', source.training.pretty_text))
    return Section('origin', 'How this was made', 'What is needed to reproduce it.', parts)


def _versions() -> list[str]:
    texts = [f'ride_mm {__version__}', f'Python {platform.python_version()}']
    for name in _PACKAGES:
        try:
            texts.append(f'{name} {version(name)}')
        except PackageNotFoundError:  # another distribution of the same
            continue
    return texts


def builders(
    found: Findings, maker: FigureMaker, num_images: int, command: str
) -> list[Callable[[], Section]]:
    """What makes the sections, in their order."""
    drawn = [configuration, accuracy, by_class, confusion, reliability, experts]
    if found.routed is not None:
        drawn.append(tradeoff)
    makers = [partial(build, found, maker) for build in drawn]
    if num_images:
        makers.append(partial(hardest, found, num_images))
    return makers + [partial(training, found, maker), partial(origin, found, command)]
