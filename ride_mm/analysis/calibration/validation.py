"""Outputs of a trained model for its validation set."""

import argparse
from typing import NamedTuple

import torch

from ride_mm.analysis.decoupling import mean_logits
from ride_mm.datasets.class_counts import stated_counts
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine.config import find_metric
from ride_mm.engine.posthoc import check_val_set, load_runner
from ride_mm.models import RIDEClassifier
from ride_mm.utils.errors import UserError


class ValidationOutputs(NamedTuple):
    """What a model gives for N images that it was neither trained nor tested on.

    Args:
        model (RIDEClassifier): The model.
        logits (torch.Tensor): Mean logits of the experts that each image uses,
            adjusted by ``model.test_cfg.logit_adjustment``, (N, K).
        labels (torch.Tensor): Labels, (N, ).
        groups (ClassGroups): The groups of the classes, those of the config's
            metric; one group if the classes' sizes are not known.
    """

    model: RIDEClassifier
    logits: torch.Tensor
    labels: torch.Tensor
    groups: ClassGroups


def validation_outputs(args: argparse.Namespace) -> ValidationOutputs:
    """Run the model of a checkpoint on the validation set of its config.

    Args:
        args (Namespace): Those of ``launch.common_arguments``, and
            ``checkpoint``.

    Returns:
        ValidationOutputs: The outputs.

    Raises:
        UserError: If the model has no experts, or its validation set is not
            separate from the training and test sets.
    """
    runner = load_runner(args, check=check_val_set)
    model, loader = runner.model, runner.val_dataloader
    if not isinstance(model, RIDEClassifier):
        raise UserError(f'expected model.type="RIDEClassifier", found "{type(model).__name__}"')
    counts = stated_counts(loader.dataset)
    if counts is not None and model.adjusts_logits:
        model.set_class_counts(counts)
    logits, labels = mean_logits(model, loader)
    logits = model.head.adjust(logits, model.test_cfg['logit_adjustment'])
    metric = find_metric(runner.cfg.get('val_evaluator'), 'LongTailMetric')
    groups = ClassGroups([1] * logits.size(1))
    if counts is not None:
        groups = ClassGroups(counts, metric.get('thresholds', 'ride'))
    return ValidationOutputs(model, logits, labels, groups)
