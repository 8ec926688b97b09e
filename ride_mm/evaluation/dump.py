"""Predictions as a file that records their origin."""

import hashlib
import io
import json
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import put
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner

from ride_mm.datasets.class_groups import NAMED_THRESHOLDS
from ride_mm.utils.errors import UserError

from .class_group_metric import ClassGroupMetric

_FIELDS = (
    'gt_label',
    'pred_score',
    'num_experts_used',
    'relative_compute',
    'expert_logits',
    'router_logits',
    'routed_compute',
)


class DumpPredictions(BaseMetric):
    """Write the predictions of all images, and their origin, to an .npz file.

    Each field of the data samples is an array whose first axis is the image:
    ``gt_label`` (N, ), ``pred_score`` (N, K) and, if the model predicts them,
    ``num_experts_used`` (N, ), ``relative_compute`` (N, ), ``expert_logits``
    (N, E, K), ``router_logits`` (N, E - 1) and ``routed_compute`` (N, E).
    ``run`` is the origin as JSON.

    Args:
        out_file_path (str): Path of the file.
        run (dict): Origin of the predictions, see :func:`describe_run`.
    """

    def __init__(self, out_file_path: str, run: dict) -> None:
        super().__init__()
        self.out_file_path = out_file_path
        self.run = run

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Raises:
            UserError: If an image does not have exactly one true label, or
                there are no scores.
        """
        for sample in data_samples:
            if len(sample.get('gt_label', ())) != 1 or 'pred_score' not in sample:
                raise UserError(
                    f'{self.out_file_path} can hold images with scores and exactly one label, '
                    f'but {sample.get("img_path", "an image")} has others. '
                    'Use --out FILE.pkl to write any fields.'
                )
            fields = {name: _to_numpy(sample[name]) for name in _FIELDS if name in sample}
            fields['gt_label'] = fields['gt_label'][0]
            self.results.append(fields)

    def compute_metrics(self, results: list[dict]) -> dict:
        """Write the file; there are no metrics."""
        arrays: dict[str, Any] = {
            name: np.stack([fields[name] for fields in results]) for name in results[0]
        }
        file = io.BytesIO()
        np.savez(file, run=json.dumps(self.run), **arrays)
        put(file.getvalue(), self.out_file_path)
        return {}


def _to_numpy(value: Any) -> np.ndarray:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    half = value.dtype in (torch.float16, torch.bfloat16)
    return (value.float() if half else value).cpu().numpy()


def describe_run(
    runner: Runner, config: str, options: dict | None, checkpoint: str, split: str = 'test'
) -> dict:
    """Describe the origin of the predictions of a test.

    Args:
        runner (Runner): The runner of the test.
        config (str): Its config file.
        options (dict, optional): Its ``--cfg-options``.
        checkpoint (str): Its checkpoint.
        split (str): Whether its images are those of the test set or, "val", of
            ``val_dataloader``. Defaults to "test".

    Returns:
        dict: 'config', 'options', 'checkpoint' and 'split' as given, 'weights' (see
        :func:`fingerprint`), 'num_experts' (None if the model has none),
        'prior' (``model.test_cfg.prior``), 'set_thresholds' (those of the
        prediction sets, or None), and
        the settings of the class groups: 'classes' (names or None),
        'class_counts' (None if unknown) and
        'thresholds'.
    """
    meta = runner.test_evaluator.dataset_meta or {}
    metrics = (m for m in runner.test_evaluator.metrics if isinstance(m, ClassGroupMetric))
    metric = next(metrics, None)
    counts = metric.class_counts if metric else meta.get('class_counts')
    model, averaged = runner.model, False
    while hasattr(model, 'module'):  # distributed, test-time augmentation
        averaged = averaged or isinstance(model, BaseTTAModel)
        model = model.module
    gives_sets = getattr(model, 'gives_sets', False) and not averaged
    return dict(
        config=config,
        options=options or {},
        checkpoint=checkpoint,
        split=split,
        prior=(getattr(model, 'test_cfg', None) or {}).get('prior'),
        set_thresholds=model.head.set_thresholds.tolist() if gives_sets else None,
        weights=fingerprint(checkpoint),
        num_experts=getattr(model, 'num_experts', None),
        classes=None if meta.get('classes') is None else list(meta['classes']),
        class_counts=None if counts is None else [int(n) for n in counts],
        thresholds=metric.thresholds if metric else NAMED_THRESHOLDS['ride'],
    )


def fingerprint(path: str) -> str | None:
    """Identify the content of a file.

    Args:
        path (str): Path of the file.

    Returns:
        str | None: The first 16 hexadecimal digits of its SHA-256 hash; None if
        it is not a local file.
    """
    if not osp.isfile(path):
        return None
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
