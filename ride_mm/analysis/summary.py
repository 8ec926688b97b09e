import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich import box
from rich.console import Console
from rich.table import Table

from ride_mm.datasets.class_counts import (GROUPS, Thresholds,
                                           resolve_thresholds)
from ride_mm.evaluation import (accuracy_by_class, expert_usage,
                                long_tail_accuracy)
from ride_mm.evaluation.expert_usage import usage_cells, usage_columns
from ride_mm.evaluation.groups import (group_titles, resolve_class_counts,
                                       sample_groups, validate_labels)
from ride_mm.evaluation.tables import build_table
from ride_mm.utils.errors import UserError
from .plots import plot_accuracy_by_class, plot_expert_usage
from .predictions import Predictions, read_predictions


def load_test_classes(config: Union[str, Path]
                      ) -> Tuple[np.ndarray, Tuple[int, int], dict, int]:
    """Read from a config what the test images are grouped by.

    ``thresholds`` and ``class_counts`` of a ``LongTailMetric`` in the
    ``test_evaluator`` hold here as well, so that the figures are those of
    the test run.

    Args:
        config (str | Path): The config file.

    Returns:
        tuple: Training images per class with shape (K, ), the two
        thresholds, ``metainfo`` of the test dataset and its length.

    Raises:
        UserError: If the config has no test dataset, or this one no class
            counts.
    """
    cfg = Config.fromfile(config)
    dataset_cfg = cfg.get('test_dataloader', {}).get('dataset')
    if dataset_cfg is None:
        raise UserError(f'{config} has no `test_dataloader.dataset`, from '
                        'which the class counts are read.')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    dataset = DATASETS.build(dataset_cfg)
    metric = _long_tail_options(cfg.get('test_evaluator'))
    counts = resolve_class_counts(
        metric.get('class_counts'), dataset.metainfo, 'LongTailMetric')
    thresholds = resolve_thresholds(metric.get('thresholds', 'ride'))
    return counts, thresholds, dataset.metainfo, len(dataset)


def _long_tail_options(evaluator) -> dict:
    metrics = evaluator if isinstance(evaluator, list) else [evaluator]
    for metric in metrics:
        if isinstance(metric, dict) and metric.get('type') == 'LongTailMetric':
            return metric
    return {}


def summarize(predictions: Predictions,
              class_counts: Sequence[int],
              thresholds: Thresholds = 'ride') -> Dict[str, float]:
    """Compute the figures that the metrics of a test run report.

    Args:
        predictions (Predictions): The predictions for N images.
        class_counts (Sequence[int]): Training images per class, K numbers.
        thresholds (str | Sequence[int]): What many, medium and few are, see
            :func:`group_masks`. Defaults to "ride".

    Returns:
        dict[str, float]: The figures of :func:`long_tail_accuracy` (top-1)
        under 'long_tail/...', and where the model has experts those of
        :func:`expert_usage` under 'experts/...'.

    Raises:
        UserError: If the class counts do not fit the predictions.
    """
    _validate_classes(predictions, class_counts)
    accuracy = long_tail_accuracy(
        predictions.pred_label == predictions.gt_label, predictions.gt_label,
        class_counts, thresholds)
    figures = {f'long_tail/{name}': value for name, value in accuracy.items()}
    if predictions.num_experts_used is not None:
        usage = expert_usage(predictions.num_experts_used,
                             predictions.relative_compute,
                             predictions.gt_label, class_counts, thresholds)
        figures.update((f'experts/{k}', value) for k, value in usage.items())
    return figures


def _validate_classes(predictions: Predictions,
                      class_counts: Sequence[int]) -> None:
    num_classes = len(class_counts)
    if predictions.num_classes not in (None, num_classes):
        raise UserError(
            f'The predictions are for {predictions.num_classes} classes, but '
            f'the config has class counts of {num_classes}. Were they made '
            'with another config?')
    validate_labels(predictions.gt_label, num_classes, 'True label')
    validate_labels(predictions.pred_label, num_classes, 'Predicted label')


def summary_table(figures: Dict[str, float],
                  predictions: Predictions,
                  class_counts: Sequence[int],
                  thresholds: Thresholds = 'ride') -> Table:
    """Lay out the figures of :func:`summarize`, one row per group.

    Args:
        figures (dict[str, float]): The figures.
        predictions (Predictions): The predictions that they describe.
        class_counts (Sequence[int]): Training images per class, K numbers.
        thresholds (str | Sequence[int]): What many, medium and few are, see
            :func:`group_masks`. Defaults to "ride".

    Returns:
        rich.table.Table: The table, for ``rich.print``.
    """
    usage = _usage_figures(figures)
    titles = group_titles(thresholds)
    groups = sample_groups(predictions.gt_label, class_counts, thresholds)
    rows = [[
        titles[name],
        str(np.unique(predictions.gt_label[images]).size),
        str(np.count_nonzero(images)),
        f"{figures[f'long_tail/{name}']:.2f}",
        *(usage_cells(usage, name) if usage else ())
    ] for name, images in groups.items()]
    table = build_table(
        'Accuracy, experts used (% of the images), compute (1 = all experts)'
        if usage else 'Accuracy (%)',
        ['training images', 'classes', 'images', 'accuracy'] +
        (usage_columns(usage) if usage else []), rows)
    table.box = box.ROUNDED
    return table


def draw_summary(figures: Dict[str, float],
                 predictions: Predictions,
                 class_counts: Sequence[int],
                 out_dir: Union[str, Path],
                 thresholds: Thresholds = 'ride',
                 class_names: Optional[Sequence[str]] = None) -> List[Path]:
    """Draw the figures of :func:`summarize` into PNG files.

    Args:
        figures (dict[str, float]): The figures.
        predictions (Predictions): The predictions that they describe.
        class_counts (Sequence[int]): Training images per class, K numbers.
        out_dir (str | Path): The folder to write into.
        thresholds (str | Sequence[int]): What many, medium and few are, see
            :func:`group_masks`. Defaults to "ride".
        class_names (Sequence[str], optional): K names. Defaults to None.

    Returns:
        list[Path]: The accuracy by class, and the expert usage where the
        model has experts.
    """
    out_dir = Path(out_dir)
    hits = predictions.pred_label == predictions.gt_label
    paths = [
        plot_accuracy_by_class(
            accuracy_by_class(hits, predictions.gt_label, len(class_counts)),
            class_counts,
            out_dir / 'accuracy_by_class.png',
            figures['long_tail/overall'],
            thresholds,
            {g: figures[f'long_tail/{g}']
             for g in GROUPS if f'long_tail/{g}' in figures},
            class_names=class_names)
    ]
    usage = _usage_figures(figures)
    if usage:
        paths.append(
            plot_expert_usage(usage, out_dir / 'expert_usage.png', thresholds))
    return paths


def _usage_figures(figures: Dict[str, float]) -> Dict[str, float]:
    return {
        key[len('experts/'):]: value
        for key, value in figures.items() if key.startswith('experts/')
    }


def summarize_file(config: Union[str, Path],
                   predictions_file: Union[str, Path],
                   out_dir: Union[str, Path, None] = None,
                   json_file: Union[str, Path, None] = None
                   ) -> Dict[str, float]:
    """Print and draw a summary of a file of predictions.

    Args:
        config (str | Path): The config that the predictions were made with.
        predictions_file (str | Path): What ``tools/test.py --out`` wrote.
        out_dir (str | Path, optional): The folder for the plots. Defaults to
            None, which means that of the predictions.
        json_file (str | Path, optional): Where to write the figures as JSON.
            Defaults to None, which means nowhere.

    Returns:
        dict[str, float]: The figures of :func:`summarize`.

    Raises:
        UserError: If the files are not what they should be, or do not belong
            together.
    """
    predictions = read_predictions(predictions_file)
    counts, thresholds, meta, num_images = load_test_classes(config)
    if len(predictions) != num_images:
        raise UserError(
            f'{predictions_file} holds predictions for {len(predictions)} '
            f'images, but the test dataset of {config} has {num_images}. '
            'Were they made with another config?')
    figures = summarize(predictions, counts, thresholds)

    # Wide enough for any number of experts, also where the output is a pipe.
    console = Console(width=1000)
    console.print(summary_table(figures, predictions, counts, thresholds))
    if predictions.num_experts_used is None:
        console.print('No plot of the experts used: the predictions hold no '
                      'num_experts_used.')
    written = draw_summary(figures, predictions, counts, out_dir
                           or Path(predictions_file).parent, thresholds,
                           meta.get('classes'))
    if json_file is not None:
        written.append(_write_json(figures, json_file))
    for path in written:
        print(path)
    return figures


def _write_json(figures: Dict[str, float], path: Union[str, Path]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + '\n')
    return path
