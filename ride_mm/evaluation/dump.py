"""Predictions as a file that records their origin."""

import hashlib
import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from ride_mm.datasets.class_groups import NAMED_THRESHOLDS

from .class_group_metric import ClassGroupMetric


class DumpPredictions(DumpResults):
    """Write the prediction for every image, and its origin, to a file.

    The file has the format of mmpretrain's tools, a list with one dict per
    image. Each dict has an additional field ``run``, the same for all.

    Args:
        out_file_path (str): The ``.pkl`` file.
        run (dict): Origin of the predictions, see :func:`describe_run`.
        **kwargs: Other options of :class:`mmengine.evaluator.DumpResults`.
    """

    def __init__(self, out_file_path: str, run: dict, **kwargs) -> None:
        super().__init__(out_file_path, **kwargs)
        self.run = run

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Args:
            data_batch: A batch of the dataloader, not used.
            predictions (Sequence[dict]): A batch of outputs of the model.
        """
        super().process(data_batch, predictions)
        # One object for all images: a pickle writes it once.
        for sample in self.results[-len(predictions) :]:
            sample['run'] = self.run


def describe_run(runner: Runner, config: str, options: dict | None, checkpoint: str) -> dict:
    """Describe the origin of the predictions of a test.

    Args:
        runner (Runner): The runner of the test.
        config (str): Its config file.
        options (dict, optional): Its ``--cfg-options``.
        checkpoint (str): Its checkpoint.

    Returns:
        dict: 'config', 'options' and 'checkpoint' as given, 'weights' (see
        :func:`fingerprint`), 'num_experts' (None if the model has none), and
        the settings of the class groups: 'classes' (their names or None),
        'class_counts' (None if neither a metric nor a data set has them) and
        'thresholds'.
    """
    meta = runner.test_evaluator.dataset_meta or {}
    counts, thresholds = meta.get('class_counts'), NAMED_THRESHOLDS['ride']
    for metric in runner.test_evaluator.metrics:
        if isinstance(metric, ClassGroupMetric):
            counts, thresholds = metric.class_counts, metric.thresholds
            break
    model = runner.model
    while hasattr(model, 'module'):  # several processes, augmented images
        model = model.module
    return dict(
        config=config,
        options=options or {},
        checkpoint=checkpoint,
        weights=fingerprint(checkpoint),
        num_experts=getattr(model, 'num_experts', None),
        classes=None if meta.get('classes') is None else list(meta['classes']),
        class_counts=None if counts is None else [int(n) for n in counts],
        thresholds=thresholds,
    )


def fingerprint(path: str) -> str | None:
    """Identify the content of a file.

    Args:
        path (str): The file.

    Returns:
        str, optional: 16 hexadecimal digits of its SHA-256 hash; None if it is
        not a local file.
    """
    if not osp.isfile(path):
        return None
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
