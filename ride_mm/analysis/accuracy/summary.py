"""All figures of a file of predictions, as tables, plots and JSON."""

from collections.abc import Sequence
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich.table import Table

from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.accuracy.class_table import class_rows, class_table, write_class_table
from ride_mm.analysis.calibration.conformal import set_figures
from ride_mm.analysis.predictions import Predictions, read_predictions
from ride_mm.analysis.routing.expert_usage import plot_expert_usage
from ride_mm.analysis.run_options import options_of_test
from ride_mm.datasets.class_groups import GROUPS, ClassGroups, key_prefix
from ride_mm.engine.config import find_metric, load_config
from ride_mm.evaluation import (
    accuracy_by_class,
    calibration,
    correct_prior,
    expert_figures,
    expert_usage,
    long_tail_accuracy,
    score_quality,
    shift_priors,
    shift_table,
    shifted_accuracy,
)
from ride_mm.evaluation.by_group import resolve_class_counts, validate_labels
from ride_mm.evaluation.calibration import TITLES as CALIBRATION_TITLES
from ride_mm.evaluation.expert_usage import usage_cells, usage_columns
from ride_mm.evaluation.long_tail import MEAN_TITLES
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.utils.errors import UserError


def load_test_classes(
    config: str | Path, options: dict | None = None
) -> tuple[ClassGroups, dict, int]:
    """Build the test set of a config and read its class groups.

    ``thresholds`` and ``class_counts`` of a ``LongTailMetric`` in the
    ``test_evaluator`` apply, so that the figures match those of the test.

    Args:
        config (str | Path): The config file.
        options (dict, optional): Settings to override, by dotted key.
            Defaults to None.

    Returns:
        tuple: The class groups, and ``metainfo`` and length of the test set.

    Raises:
        UserError: If the config has no test set, or no class counts.
    """
    cfg = load_config(str(config), options, is_built=False)
    dataset_cfg = cfg.get('test_dataloader', {}).get('dataset')
    if dataset_cfg is None:
        raise UserError(
            f'{config} has no `test_dataloader.dataset`, from which the class counts are read.'
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    dataset = DATASETS.build(dataset_cfg)
    metric = find_metric(cfg.get('test_evaluator'), 'LongTailMetric')
    counts = resolve_class_counts(metric.get('class_counts'), dataset.metainfo, 'LongTailMetric')
    groups = ClassGroups(counts, metric.get('thresholds', 'ride'))
    return groups, dataset.metainfo, len(dataset)


def summarize(
    predictions: Predictions, groups: ClassGroups, model_prior: str | None = None
) -> dict[str, float]:
    """Compute the figures of a test run's metrics, and those of shifted sets.

    Args:
        predictions (Predictions): The predictions.
        groups (ClassGroups): The groups of the classes.
        model_prior (str, optional): Class frequencies that the model
            assumes, "uniform" or "training", to correct its scores for
            shifted test sets with known frequencies. Defaults to None, which
            means no such figures.

    Returns:
        dict[str, float]: The figures of

        - :func:`.long_tail_accuracy` under 'long_tail/...',
        - :func:`.calibration` under 'calibration/...',
        - :func:`.expert_usage` under 'experts/...', if there are experts,
        - :func:`.expert_figures` under 'expert/...', if there are logits of
          every expert,
        - :func:`.set_figures` under 'sets/...', if the model gives sets,
        - :func:`.shift_table` under 'label_shift/...',
        - :func:`corrected_shift_table` under 'label_shift_corrected/...', if
          there is a ``model_prior``.

    Raises:
        UserError: If the classes do not fit the predictions.
    """
    num_classes, labels = len(groups), predictions.gt_label
    if predictions.num_classes != num_classes:
        raise UserError(
            f'The predictions are for {predictions.num_classes} classes, but '
            f'the config has class counts of {num_classes}. Were they made '
            'with another config?'
        )
    validate_labels(labels, num_classes, 'True label')
    quality = score_quality(torch.from_numpy(predictions.pred_score), torch.from_numpy(labels))
    figures = dict(
        long_tail=long_tail_accuracy(predictions.hits, labels, groups),
        calibration=calibration(quality, labels, groups),
    )
    used, compute = predictions.num_experts_used, predictions.relative_compute
    if used is not None and compute is not None:
        figures['experts'] = expert_usage(used, compute, labels, groups)
    if predictions.expert_logits is not None:
        logits = torch.from_numpy(predictions.expert_logits)
        figures['expert'] = expert_figures(logits, torch.from_numpy(labels), groups)
    thresholds = predictions.run.get('set_thresholds')
    if thresholds is not None:
        figures['sets'] = set_figures(predictions.pred_score, labels, np.array(thresholds), groups)
    by_class = accuracy_by_class(predictions.hits, labels, num_classes)
    figures['label_shift'] = shift_table(by_class, groups.counts)
    if model_prior is not None:
        figures['label_shift_corrected'] = corrected_shift_table(
            predictions, groups.counts, model_prior
        )
    return {
        f'{kind}/{name}': value
        for kind, values in figures.items()
        for name, value in values.items()
    }


def corrected_shift_table(
    predictions: Predictions, class_counts: np.ndarray, model_prior: str
) -> dict[str, float]:
    """Compute the accuracy on shifted test sets with known frequencies.

    Args:
        predictions (Predictions): The predictions.
        class_counts (np.ndarray): Training images per class, (K, ).
        model_prior (str): Class frequencies that the model assumes:
            "training" after plain cross entropy, "uniform" after a loss that
            compensates for them.

    Returns:
        dict[str, float]: See :func:`.shift_table`; of the scores after
        :func:`.correct_prior`.

    Raises:
        UserError: If the prior is unknown, or assumes that a class never
            occurs.
    """
    priors = dict(uniform=np.ones(len(class_counts)), training=class_counts)
    if model_prior not in priors:
        raise UserError(f'model_prior must be one of {", ".join(priors)}, but got {model_prior}')
    labels, scores = predictions.gt_label, torch.from_numpy(predictions.pred_score)
    figures = {}
    for name, prior in shift_priors(class_counts).items():
        corrected = correct_prior(scores, prior, priors[model_prior]).argmax(1).numpy()
        by_class = accuracy_by_class(corrected == labels, labels, len(class_counts))
        figures[name] = shifted_accuracy(by_class, prior)
    return figures


def summary_tables(
    figures: dict[str, float], predictions: Predictions, groups: ClassGroups
) -> list[Table]:
    """Build the tables of a summary.

    Args:
        figures (dict[str, float]): See :func:`summarize`.
        predictions (Predictions): The predictions.
        groups (ClassGroups): The groups of the classes.

    Returns:
        list[rich.table.Table]: Tables of the groups, of the averages over
        classes, of the experts, if there are logits of every expert, of the
        prediction sets, if there are any, and of shifted test sets.
    """
    members = groups.of_images(predictions.gt_label)
    means = {title: figures[f'long_tail/{name}'] for name, title in MEAN_TITLES.items()}
    tables = [
        _group_table(figures, predictions.gt_label, members, groups.titles),
        _figures_table('Accuracy over the classes (%)', means),
    ]
    expert = of_kind(figures, 'expert')
    if expert:
        names = [name for name in expert if name.split('_')[0] not in GROUPS]
        tables.append(
            build_table(
                'Experts: accuracy (%), disagreement (%), KL (nats)',
                ['training images', *(name.replace('_', ' ') for name in names)],
                [
                    [groups.titles[group], *(f'{expert[key_prefix(group) + n]:.2f}' for n in names)]
                    for group in members
                ],
            )
        )
    sets = of_kind(figures, 'sets')
    if sets:
        tables.append(
            build_table(
                'Prediction sets',
                ['training images', 'label in the set (%)', 'labels in the set'],
                [
                    [
                        groups.titles[group],
                        *(f'{sets[key_prefix(group) + name]:.2f}' for name in ('coverage', 'size')),
                    ]
                    for group in members
                ],
            )
        )
    shifts = [of_kind(figures, kind) for kind in ('label_shift', 'label_shift_corrected')]
    title = 'Accuracy on shifted test sets (%)'
    if shifts[1]:
        title += '; second row: corrected for their known class frequencies'
    tables.append(_figures_table(title, *filter(None, shifts)))
    return tables


def _group_table(
    figures: dict[str, float],
    gt_label: np.ndarray,
    members: dict[str, np.ndarray],
    titles: dict[str, str],
) -> Table:
    usage, quality = of_kind(figures, 'experts'), of_kind(figures, 'calibration')
    rows = [
        [
            titles[name],
            str(np.unique(gt_label[images]).size),
            str(np.count_nonzero(images)),
            f'{figures[f"long_tail/{name}"]:.2f}',
            *(f'{quality[key_prefix(name) + key]:.3f}' for key in CALIBRATION_TITLES),
            *(usage_cells(usage, name) if usage else ()),
        ]
        for name, images in members.items()
    ]
    title = 'Accuracy, calibration'
    columns = ['training images', 'classes', 'images', 'accuracy (%)', *CALIBRATION_TITLES.values()]
    if usage:
        title += ', experts used (% of the images), compute (1 = all experts)'
        columns += usage_columns(usage)
    return build_table(title, columns, rows)


def _figures_table(title: str, *rows: dict[str, float]) -> Table:
    """A table with one column per figure."""
    columns = [name.replace('_', ' ') for name in rows[0]]
    return build_table(title, columns, [[f'{v:.2f}' for v in row.values()] for row in rows])


def of_kind(figures: dict[str, float], kind: str) -> dict[str, float]:
    """Select the figures of a kind, such as 'calibration', without its prefix."""
    return {
        key.removeprefix(f'{kind}/'): value
        for key, value in figures.items()
        if key.startswith(f'{kind}/')
    }


def draw_summary(
    figures: dict[str, float],
    predictions: Predictions,
    groups: ClassGroups,
    out_dir: str | Path,
    class_names: Sequence[str] | None = None,
) -> list[Path]:
    """Plot the accuracy by class and, if there are experts, their usage.

    Args:
        figures (dict[str, float]): See :func:`summarize`.
        predictions (Predictions): The predictions.
        groups (ClassGroups): The groups of the classes.
        out_dir (str | Path): Folder for the PNG files.
        class_names (Sequence[str], optional): K names. Defaults to None.

    Returns:
        list[Path]: The files.
    """
    out_dir = Path(out_dir)
    paths = [
        plot_accuracy_by_class(
            accuracy_by_class(predictions.hits, predictions.gt_label, len(groups)),
            of_kind(figures, 'long_tail'),
            groups,
            out_dir / 'accuracy_by_class.png',
            class_names,
        )
    ]
    usage = of_kind(figures, 'experts')
    if usage:
        paths.append(plot_expert_usage(usage, groups, out_dir / 'expert_usage.png'))
    return paths


def summarize_file(
    config: str | Path,
    predictions_file: str | Path,
    out_dir: str | Path | None = None,
    json_file: str | Path | None = None,
    model_prior: str | None = None,
    cfg_options: dict | None = None,
) -> dict[str, float]:
    """Print and plot a summary of a file of predictions, and list its classes.

    Options of the test that select its data or its class groups are read
    from the file and apply.

    Args:
        config (str | Path): The config of the test.
        predictions_file (str | Path): The file that ``tools/test.py --out``
            wrote.
        out_dir (str | Path, optional): Folder for the plots and
            ``classes.csv``. Defaults to None, which means that of the
            predictions.
        json_file (str | Path, optional): Where to save the figures as JSON.
            Defaults to None, which means nowhere.
        model_prior (str, optional): See :func:`summarize`. Defaults to None.
        cfg_options (dict, optional): Settings of the config to override,
            for example the current path of the data. Defaults to None.

    Returns:
        dict[str, float]: See :func:`summarize`.

    Raises:
        UserError: If a file is invalid, or the files do not belong together.
    """
    predictions = read_predictions(predictions_file)
    run = predictions.run
    options = options_of_test(predictions_file, run, cfg_options)
    try:
        groups, meta, num_images = load_test_classes(config, options)
    except TypeError as error:
        raise UserError(
            f'the options {options} do not fit the data of {config}: {error}. '
            'Is it the config of the test?'
        ) from error
    if len(predictions) != num_images:
        raise UserError(
            f'{predictions_file} holds predictions for {len(predictions)} '
            f'images, but the test dataset of {config} has {num_images}. '
            'Were they made with another config?'
        )
    for key, found in (('class_counts', groups.counts.tolist()), ('thresholds', groups.thresholds)):
        if run.get(key) not in (None, found):
            raise UserError(
                f'{predictions_file} was tested with other {key} than those of '
                f'{config}. Pass the config of the test, {run["config"]}.'
            )
    figures = summarize(predictions, groups, model_prior)
    rows = class_rows(predictions, groups, meta.get('classes'))
    print_tables(*summary_tables(figures, predictions, groups), class_table(rows))
    if predictions.num_experts_used is None:
        print('No plot of experts used: the predictions hold no num_experts_used.')
    out_dir = out_dir or Path(predictions_file).parent
    for path in draw_summary(figures, predictions, groups, out_dir, meta.get('classes')):
        print(path)
    write_class_table(rows, Path(out_dir, 'classes.csv'))
    print(Path(out_dir, 'classes.csv'))
    if json_file is not None:
        mmengine.dump(figures, str(json_file), file_format='json', indent=2)
        print(json_file)
    return figures
