from collections.abc import Iterable, Sequence
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich import box
from rich.console import Console
from rich.table import Table

from ride_mm.analysis.accuracy.accuracy_by_class import plot_accuracy_by_class
from ride_mm.analysis.predictions import Predictions, read_predictions
from ride_mm.analysis.routing.expert_usage import plot_expert_usage
from ride_mm.analysis.run_options import options_of_test
from ride_mm.datasets.class_groups import GROUPS, ClassGroups, GroupsLike, key_prefix
from ride_mm.engine.config import load_config, type_name
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
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.errors import UserError


def load_test_classes(
    config: str | Path, options: dict | None = None
) -> tuple[ClassGroups, dict, int]:
    """Read from a config what the test images are grouped by.

    ``thresholds`` and ``class_counts`` of a ``LongTailMetric`` in the
    ``test_evaluator`` hold here as well, so that the figures are those of
    the test run.

    Args:
        config (str | Path): The config file.
        options (dict, optional): What to override in it, by dotted key.
            Defaults to None.

    Returns:
        tuple: The class groups, ``metainfo`` of the test dataset and its
        length.

    Raises:
        UserError: If the config has no test dataset, or this one no class
            counts.
    """
    cfg = load_config(str(config), options, is_built=False)
    dataset_cfg = cfg.get('test_dataloader', {}).get('dataset')
    if dataset_cfg is None:
        raise UserError(
            f'{config} has no `test_dataloader.dataset`, from which the class counts are read.'
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    dataset = DATASETS.build(dataset_cfg)
    metric = _long_tail_options(cfg.get('test_evaluator'))
    counts = resolve_class_counts(metric.get('class_counts'), dataset.metainfo, 'LongTailMetric')
    groups = ClassGroups(counts, metric.get('thresholds', 'ride'))
    return groups, dataset.metainfo, len(dataset)


def _long_tail_options(evaluator) -> dict:
    metrics = evaluator if isinstance(evaluator, list) else [evaluator]
    for metric in metrics:
        if isinstance(metric, dict) and type_name(metric) == 'LongTailMetric':
            return metric
    return {}


def summarize(
    predictions: Predictions, groups: GroupsLike, model_prior: str | None = None
) -> dict[str, float]:
    """Compute the figures that the metrics of a test run report, and more.

    Args:
        predictions (Predictions): The predictions for N images.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        model_prior (str, optional): Class frequencies that the model
            assumes, "uniform" or "training", for the correction of its
            scores where those of the test set are others and known. Defaults
            to None, which means no such figures.

    Returns:
        dict[str, float]: The figures of :func:`long_tail_accuracy` (top-1)
        under 'long_tail/...', of :func:`shift_table` under
        'label_shift/...', where there are scores of :func:`calibration`
        under 'calibration/...', where the model has experts of
        :func:`expert_usage` under 'experts/...' and, where their logits were
        kept, of :func:`expert_figures` under 'expert/...'. With a
        ``model_prior`` those of :func:`corrected_shift_table` under
        'label_shift_corrected/...'.

    Raises:
        UserError: If the class counts do not fit the predictions, or there
            are no scores to correct.
    """
    groups = ClassGroups.of(groups)
    class_counts = groups.counts
    _validate_classes(predictions, class_counts)
    labels = predictions.gt_label
    args = (labels, groups)
    figures = dict(long_tail=long_tail_accuracy(predictions.hits, *args))
    if predictions.pred_score is not None:
        quality = score_quality(*_tensors(predictions.pred_score, labels))
        figures['calibration'] = calibration(quality, *args)
    if predictions.num_experts_used is not None:
        figures['experts'] = expert_usage(
            predictions.num_experts_used, predictions.relative_compute, *args
        )
    if predictions.expert_logits is not None:
        figures['expert'] = expert_figures(*_tensors(predictions.expert_logits, labels), groups)
    figures['label_shift'] = shift_table(
        accuracy_by_class(predictions.hits, labels, len(class_counts)), class_counts
    )
    if model_prior is not None:
        figures['label_shift_corrected'] = corrected_shift_table(
            predictions, class_counts, model_prior
        )
    return {
        f'{kind}/{name}': value
        for kind, values in figures.items()
        for name, value in values.items()
    }


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def corrected_shift_table(
    predictions: Predictions, class_counts: Sequence[int], model_prior: str
) -> dict[str, float]:
    """Accuracy on shifted test sets whose class frequencies are known.

    Args:
        predictions (Predictions): With scores.
        class_counts (Sequence[int]): Training images per class, K numbers.
        model_prior (str): Class frequencies that the model assumes:
            "training" after plain cross entropy, "uniform" where the loss
            makes up for them.

    Returns:
        dict[str, float]: As :func:`shift_table`, of predictions after
        :func:`correct_prior`.

    Raises:
        UserError: If there are no scores, or the prior is unknown.
    """
    priors = dict(uniform=np.ones(len(class_counts)), training=np.array(class_counts))
    if model_prior not in priors:
        raise UserError(f'model_prior must be one of {", ".join(priors)}, but got {model_prior}')
    if predictions.pred_score is None:
        raise UserError(
            'these predictions hold no scores that known class frequencies could correct'
        )
    scores, labels = _tensors(predictions.pred_score, predictions.gt_label)
    figures = {}
    for name, prior in shift_priors(class_counts).items():
        corrected = correct_prior(scores, prior, priors[model_prior])
        hits = (corrected.argmax(1) == labels).numpy()
        figures[name] = shifted_accuracy(
            accuracy_by_class(hits, predictions.gt_label, len(class_counts)), prior
        )
    return figures


def _validate_classes(predictions: Predictions, class_counts: Sequence[int]) -> None:
    num_classes = len(class_counts)
    if predictions.num_classes not in (None, num_classes):
        raise UserError(
            f'The predictions are for {predictions.num_classes} classes, but '
            f'the config has class counts of {num_classes}. Were they made '
            'with another config?'
        )
    validate_labels(predictions.gt_label, num_classes, 'True label')
    validate_labels(predictions.pred_label, num_classes, 'Predicted label')


def summary_tables(
    figures: dict[str, float], predictions: Predictions, groups: GroupsLike
) -> list[Table]:
    """Lay out the figures of :func:`summarize`.

    Args:
        figures (dict[str, float]): The figures.
        predictions (Predictions): The predictions that they describe.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).

    Returns:
        list[rich.table.Table]: Tables for ``rich.print``: the groups, the
        means over classes, the experts where their logits were kept, and
        shifted test sets.
    """
    groups = ClassGroups.of(groups)
    tables = [
        _group_table(figures, predictions, groups.of_images(predictions.gt_label), groups.titles)
    ]
    means = {title: figures[f'long_tail/{name}'] for name, title in MEAN_TITLES.items()}
    tables.append(_one_row('Accuracy over the classes (%)', [means]))
    expert = _of_kind(figures, 'expert')
    if expert:
        names = [name for name in expert if name.split('_')[0] not in GROUPS]
        tables.append(
            build_table(
                'Experts: accuracy (%), disagreement (%), KL (nats)',
                ['training images', *(name.replace('_', ' ') for name in names)],
                [
                    [groups.titles[group]]
                    + [f'{expert[key_prefix(group) + name]:.2f}' for name in names]
                    for group in groups.of_images(predictions.gt_label)
                ],
            )
        )
    kinds = ('label_shift', 'label_shift_corrected')
    shifts = [_of_kind(figures, kind) for kind in kinds]
    tables.append(
        _one_row(
            'Accuracy on shifted test sets (%); second row: corrected for '
            'their known class frequencies'
            if shifts[1]
            else 'Accuracy on shifted test sets (%)',
            filter(None, shifts),
        )
    )
    for table in tables:
        table.box = box.ROUNDED
    return tables


def _group_table(
    figures: dict[str, float],
    predictions: Predictions,
    groups: dict[str, np.ndarray],
    titles: dict[str, str],
) -> Table:
    usage = _of_kind(figures, 'experts')
    quality = _of_kind(figures, 'calibration')
    rows = [
        [
            titles[name],
            str(np.unique(predictions.gt_label[images]).size),
            str(np.count_nonzero(images)),
            f'{figures[f"long_tail/{name}"]:.2f}',
            *(f'{quality[key_prefix(name) + key]:.3f}' for key in CALIBRATION_TITLES if quality),
            *(usage_cells(usage, name) if usage else ()),
        ]
        for name, images in groups.items()
    ]
    columns = ['training images', 'classes', 'images', 'accuracy (%)']
    columns += CALIBRATION_TITLES.values() if quality else ()
    columns += usage_columns(usage) if usage else ()
    title = 'Accuracy' + ', calibration' * bool(quality)
    if usage:
        title += ', experts used (% of the images), compute (1 = all experts)'
    return build_table(title, columns, rows)


def _one_row(title: str, rows: Iterable[dict[str, float]]) -> Table:
    """A table of figures that are columns."""
    rows = list(rows)
    return build_table(
        title,
        [name.replace('_', ' ') for name in rows[0]],
        [[f'{value:.2f}' for value in row.values()] for row in rows],
    )


def _of_kind(figures: dict[str, float], kind: str) -> dict[str, float]:
    return {
        key[len(kind) + 1 :]: value for key, value in figures.items() if key.startswith(f'{kind}/')
    }


def draw_summary(
    figures: dict[str, float],
    predictions: Predictions,
    groups: GroupsLike,
    out_dir: str | Path,
    class_names: Sequence[str] | None = None,
) -> list[Path]:
    """Draw the figures of :func:`summarize` into PNG files.

    Args:
        figures (dict[str, float]): The figures.
        predictions (Predictions): The predictions that they describe.
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        out_dir (str | Path): The folder to write into.
        class_names (Sequence[str], optional): K names. Defaults to None.

    Returns:
        list[Path]: The accuracy by class, and the expert usage where the
        model has experts.
    """
    out_dir, groups = Path(out_dir), ClassGroups.of(groups)
    paths = [
        plot_accuracy_by_class(
            accuracy_by_class(predictions.hits, predictions.gt_label, len(groups)),
            groups,
            out_dir / 'accuracy_by_class.png',
            figures['long_tail/overall'],
            {g: figures[f'long_tail/{g}'] for g in GROUPS if f'long_tail/{g}' in figures},
            class_names=class_names,
        )
    ]
    usage = _of_kind(figures, 'experts')
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
    """Print and draw a summary of a file of predictions.

    The options of the test that say where its data lies, how it was chosen
    and how classes are grouped hold here as well: the predictions tell them.

    Args:
        config (str | Path): The config that the predictions were made with.
        predictions_file (str | Path): What ``tools/test.py --out`` wrote.
        out_dir (str | Path, optional): The folder for the plots. Defaults to
            None, which means that of the predictions.
        json_file (str | Path, optional): Where to write the figures as JSON.
            Defaults to None, which means nowhere.
        model_prior (str, optional): See :func:`summarize`. Defaults to None.
        cfg_options (dict, optional): Settings of the config to override,
            such as where the data is now. Defaults to None.

    Returns:
        dict[str, float]: The figures of :func:`summarize`.

    Raises:
        UserError: If the files are not what they should be, or do not belong
            together.
    """
    predictions = read_predictions(predictions_file)
    run = predictions.run or {}
    options = options_of_test(predictions_file, run, cfg_options)
    try:
        groups, meta, num_images = load_test_classes(config, options)
    except TypeError as error:
        raise UserError(
            f'the options {options} do not fit the data of '
            f'{config}: {error}. Is it the config of the '
            'test?'
        ) from error
    if len(predictions) != num_images:
        raise UserError(
            f'{predictions_file} holds predictions for {len(predictions)} '
            f'images, but the test dataset of {config} has {num_images}. '
            'Were they made with another config?'
        )
    _check_groups(predictions_file, run, config, groups)
    figures = summarize(predictions, groups, model_prior)

    # Wide enough for any number of experts, also where the output is a pipe.
    console = Console(width=1000)
    for table in summary_tables(figures, predictions, groups):
        console.print(table)
    if predictions.num_experts_used is None:
        console.print('No plot of experts used: the predictions hold no num_experts_used.')
    written = draw_summary(
        figures, predictions, groups, out_dir or Path(predictions_file).parent, meta.get('classes')
    )
    if json_file is not None:
        mmengine.dump(figures, str(json_file), file_format='json', indent=2)
        written.append(json_file)
    for path in written:
        print(path)
    return figures


def _check_groups(file: str | Path, run: dict, config: str | Path, groups: ClassGroups) -> None:
    """Check that classes are grouped as in the test, where that is known."""
    for key, found in (('class_counts', groups.counts.tolist()), ('thresholds', groups.thresholds)):
        if run.get(key) not in (None, found):
            raise UserError(
                f'{file} was tested with other {key} than those of {config}. '
                f'Pass the config of the test, {run["config"]}.'
            )
