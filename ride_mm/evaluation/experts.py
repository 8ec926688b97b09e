from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import GroupsLike
from ride_mm.utils.errors import UserError

from .by_group import mean_by_group
from .class_group_metric import ClassGroupMetric


def expert_columns(expert_logits: torch.Tensor, gt_label: torch.Tensor) -> dict[str, np.ndarray]:
    """Compare the experts with the true labels and with each other.

    Args:
        expert_logits (torch.Tensor): Logits of the experts, (E, N, K).
        gt_label (torch.Tensor): True labels with shape (N, ).

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
        gt_label (torch.Tensor): True labels with shape (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).

    Returns:
        dict[str, float]: The means of :func:`expert_columns`; then the same
        with 'many\\_', 'medium\\_' and 'few\\_' in front. A group without
        images is left out.
    """
    columns = expert_columns(expert_logits, gt_label)
    return mean_by_group(columns, gt_label.cpu().numpy(), groups)


@METRICS.register_module()
class ExpertMetric(ClassGroupMetric):
    """Accuracy of each expert and diversity of the experts.

    The figures are ``expert/alone_1`` to ``expert/alone_{E}`` (accuracy of
    each expert, percent), ``expert/first_1`` to ``expert/first_{E}`` (of the
    first k together), ``expert/disagree`` (percent of the images on which
    two experts predict different classes, mean over all pairs),
    ``expert/kl`` (divergence of their softmax, nats, mean over all ordered
    pairs), both for each pair as well, such as ``expert/kl_1_2``; and the
    same for each group, such as ``expert/few_alone_1``. A group without
    images is left out.

    The metric keeps a few numbers per image, never the logits. It needs
    ``model.test_cfg=dict(mode='ensemble', expert_logits=True)``.

    Args:
        thresholds (str | Sequence[int]): Class groups, see
            :class:`LongTailMetric`. Defaults to "ride".
        class_counts (Sequence[int] | str, optional): Training images per
            class, or a file to read them from. Defaults to None, which means
            ``metainfo['class_counts']`` of the evaluated dataset.
        collect_device (str): Device used to collect the results of several
            processes, 'cpu' or 'gpu'. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None,
            which means 'expert'.
    """

    default_prefix: str | None = 'expert'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the label and the experts' figures of each image.

        Args:
            data_batch: A batch of the dataloader, not used.
            data_samples (Sequence[dict]): A batch of outputs of the model.
        """
        gt_label = self.gt_labels(data_samples)
        columns = expert_columns(self._expert_logits(data_samples), gt_label)
        self._names = list(columns)
        rows = np.stack(list(columns.values()), axis=1).tolist()
        self.results.extend((label, *row) for label, row in zip(gt_label.tolist(), rows))

    def _expert_logits(self, data_samples: Sequence[dict]) -> torch.Tensor:
        if any('expert_logits' not in sample for sample in data_samples):
            raise UserError(
                'ExpertMetric needs `expert_logits`, which a `RIDEClassifier` '
                'predicts with `--cfg-options model.test_cfg.mode=ensemble '
                'model.test_cfg.expert_logits=True`.'
            )
        logits = torch.stack([s['expert_logits'] for s in data_samples])
        self.check_scores(logits, data_samples)
        return logits.transpose(0, 1)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the figures of the whole dataset and log them as a table.

        Args:
            results (list[tuple]): (label, figures) of every image.

        Returns:
            dict[str, float]: The figures, without prefix.
        """
        if not results:
            return {}
        table = np.array(results)
        gt_label = table[:, 0].astype(np.int64)
        figures = mean_by_group(dict(zip(self._names, table[:, 1:].T)), gt_label, self.groups)
        self._log(figures, gt_label)
        return figures

    def _log(self, figures: dict[str, float], gt_label: np.ndarray) -> None:
        shown = [
            name
            for name in self._names
            if name.startswith(('alone', 'first')) or name in ('disagree', 'kl')
        ]
        titles = {name: name.replace('_', ' ') for name in shown}
        self.log_by_group(
            'Accuracy of the experts (%), disagreement of pairs (%), KL (nats)',
            titles,
            figures,
            gt_label,
            digits=2,
        )
