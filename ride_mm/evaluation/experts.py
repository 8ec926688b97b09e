import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import GroupsLike, key_prefix

from .by_group import mean_by_group
from .class_group_metric import ClassGroupMetric


def expert_columns(expert_logits: torch.Tensor, gt_label: torch.Tensor) -> dict[str, np.ndarray]:
    """Compare the experts with the true labels and with each other.

    Args:
        expert_logits (torch.Tensor): Logits of the experts, (E, N, K).
        gt_label (torch.Tensor): True labels, (N, ).

    Returns:
        dict[str, np.ndarray]: Values of each image, (N, ), float64:

        - 'alone_k': 100 if expert k is correct, else 0, for k = 1..E.
        - 'first_k': 100 if the mean logits of experts 1..k are correct.
        - 'disagree_i_j': 100 if experts i < j predict different classes.
        - 'kl_i_j': mean of the divergences KL(i || j) and KL(j || i) of
          their softmax, nats.
        - 'disagree' and 'kl': the mean over all pairs; absent with one expert.
    """
    logits = expert_logits.double()
    labels = gt_label.to(logits.device)
    alone = logits.argmax(-1)
    counts = torch.arange(1, len(logits) + 1, device=logits.device)
    first = (logits.cumsum(0) / counts[:, None, None]).argmax(-1)
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()

    columns, disagree, kl = {}, {}, {}
    for name, predicted in (('alone', alone), ('first', first)):
        for k, classes in enumerate(predicted, start=1):
            columns[f'{name}_{k}'] = 100.0 * (classes == labels).double()
    for i, j in combinations(range(len(logits)), 2):
        pair = f'{i + 1}_{j + 1}'
        differ = (alone[i] != alone[j]).double()
        disagree[f'disagree_{pair}'] = 100.0 * differ
        # KL(i || j) + KL(j || i)
        kl[f'kl_{pair}'] = 0.5 * ((probs[i] - probs[j]) * (log_probs[i] - log_probs[j])).sum(-1)
    for name, pairs in (('disagree', disagree), ('kl', kl)):
        if pairs:
            columns[name] = sum(pairs.values()) / len(pairs)
            columns.update(pairs)
    return {name: column.cpu().numpy() for name, column in columns.items()}


def expert_figures(
    expert_logits: torch.Tensor, gt_label: torch.Tensor, groups: GroupsLike
) -> dict[str, float]:
    """Compute the accuracy of each expert and the diversity of the experts.

    Args:
        expert_logits (torch.Tensor): Logits of the experts, (E, N, K).
        gt_label (torch.Tensor): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): Class groups or class counts, (K, ).

    Returns:
        dict[str, float]: Means of :func:`expert_columns`, then the same with
        the prefixes 'many\\_', 'medium\\_' and 'few\\_'. A group without
        images is left out.
    """
    columns = expert_columns(expert_logits, gt_label)
    return mean_by_group(columns, gt_label.cpu().numpy(), groups)


@METRICS.register_module()
class ExpertMetric(ClassGroupMetric):
    """Accuracy of each expert and diversity of the experts.

    The metrics are ``expert/alone_1`` to ``expert/alone_{E}`` (accuracy of
    each expert, percent), ``expert/first_1`` to ``expert/first_{E}`` (of the
    first k together), ``expert/disagree`` (percent of the images for which
    two experts predict different classes, mean over all pairs) and
    ``expert/kl`` (divergence of their softmax, nats, mean over all ordered
    pairs); the last two also for each pair, such as ``expert/kl_1_2``; and
    all of them for each group, such as ``expert/few_alone_1``. A group
    without images is left out.

    A few numbers are kept per image, and no logits. Needs
    ``model.test_cfg=dict(mode='ensemble', expert_logits=True)``.

    The arguments are those of :class:`.ClassGroupMetric`; the prefix defaults
    to 'expert'.
    """

    default_prefix: str | None = 'expert'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the label and the values of :func:`expert_columns` of each image."""
        gt_label = self.gt_labels(data_samples)
        hint = (
            ' A `RIDEClassifier` predicts it with `--cfg-options '
            'model.test_cfg.mode=ensemble model.test_cfg.expert_logits=True`.'
        )
        logits = self.scores(data_samples, 'expert_logits', hint).transpose(0, 1)
        columns = expert_columns(logits, gt_label)
        self._names = list(columns)
        self.results.extend(zip(gt_label.tolist(), *(c.tolist() for c in columns.values())))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the metrics of the whole dataset and log them as a table."""
        if not results:
            return {}
        gt_label, *columns = map(np.array, zip(*results))
        figures = mean_by_group(dict(zip(self._names, columns)), gt_label, self.groups)
        # all but the pairs
        shown = [name for name in self._names if not re.fullmatch(r'(disagree|kl)_.*', name)]
        self.log_by_group(
            'Accuracy of the experts (%), disagreement of pairs (%), KL (nats)',
            [name.replace('_', ' ') for name in shown],
            lambda group: [f'{figures[key_prefix(group) + name]:.2f}' for name in shown],
            gt_label,
        )
        return figures
