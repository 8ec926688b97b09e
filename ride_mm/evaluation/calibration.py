from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmpretrain.registry import METRICS

from ride_mm.datasets.class_groups import GroupsLike, key_prefix
from ride_mm.utils.errors import UserError

from .by_group import images_by_prefix
from .class_group_metric import ClassGroupMetric

NUM_BINS = 15
TITLES = dict(ece='ECE (%)', nll='NLL', brier='Brier score')


class ScoreQuality(NamedTuple):
    """Quality of the scores of N images.

    Args:
        confidence (np.ndarray): Score of the predicted class, (N, ).
        hits (np.ndarray): Whether the predicted class is the true one, (N, ).
        nll (np.ndarray): Negative log-likelihood of the true class, nats, (N, ).
        brier (np.ndarray): Squared distance of the scores from the one-hot
            label, summed over classes, 0 to 2, (N, ).
    """

    confidence: np.ndarray
    hits: np.ndarray
    nll: np.ndarray
    brier: np.ndarray


def score_quality(pred_score: torch.Tensor, gt_label: torch.Tensor) -> ScoreQuality:
    """Compare scores with the true classes, in float64.

    Scores are clipped to the smallest normal float32: a softmax may have
    rounded a score to 0, whose logarithm would outweigh all other images.

    Args:
        pred_score (torch.Tensor): Probabilities, (N, K).
        gt_label (torch.Tensor): True labels, (N, ).

    Returns:
        ScoreQuality: Quality of the scores of the N images.
    """
    scores = pred_score.double()
    labels = gt_label.to(scores.device)
    confidence, best = scores.max(dim=1)
    true_score = scores.gather(1, labels[:, None]).squeeze(1)
    columns = (
        confidence,
        best == labels,
        -true_score.clamp_min(torch.finfo(torch.float32).tiny).log(),
        scores.square().sum(1) - 2 * true_score + 1,
    )
    return ScoreQuality(*(column.cpu().numpy() for column in columns))


def calibration_error(confidence: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Compute the expected calibration error (ECE).

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015; Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017, eq. 3.

    Args:
        confidence (np.ndarray): Score of the predicted class, (N, ).
        hits (np.ndarray): Whether the predicted class is the true one, (N, ).
        num_bins (int): Number of bins of equal width. Defaults to 15.

    Returns:
        float: The error in percent.
    """
    # Importing torchmetrics takes a second or two.
    from torchmetrics.functional.classification import binary_calibration_error

    scores, targets = torch.from_numpy(_below_one(confidence)), torch.as_tensor(hits).long()
    return 100.0 * binary_calibration_error(scores, targets, n_bins=num_bins).item()


def _below_one(confidence: np.ndarray) -> np.ndarray:
    """Clip scores below 1: a softmax of one dominant class is 1 or slightly
    above, which would open another bin."""
    return np.minimum(np.asarray(confidence, dtype=np.float64), np.nextafter(1.0, 0.0))


class ReliabilityBins(NamedTuple):
    """Bins of a reliability diagram.

    Args:
        edges (np.ndarray): Edges from 0 to 1, (B + 1, ).
        images (np.ndarray): Number of images, (B, ).
        confidence (np.ndarray): Mean confidence, NaN in an empty bin, (B, ).
        accuracy (np.ndarray): Share of correct predictions, NaN in an empty
            bin, (B, ).
    """

    edges: np.ndarray
    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_bins(
    confidence: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Group images by confidence, in the bins of :func:`calibration_error`.

    Args:
        confidence (np.ndarray): Score of the predicted class, (N, ).
        hits (np.ndarray): Whether the predicted class is the true one, (N, ).
        num_bins (int): Number of bins of equal width; only the last one
            includes its upper edge. Defaults to 15.

    Returns:
        ReliabilityBins: The B = ``num_bins`` bins.
    """
    # The same rounding as in torchmetrics.
    edges = torch.linspace(0.0, 1.0, num_bins + 1, dtype=torch.float64).numpy()
    confidence = _below_one(confidence)
    bins = np.searchsorted(edges, confidence, side='right') - 1
    images = np.bincount(bins, minlength=num_bins)
    sums = (np.bincount(bins, weights=values, minlength=num_bins) for values in (confidence, hits))
    with np.errstate(invalid='ignore'):
        return ReliabilityBins(edges, images, *(total / images for total in sums))


def calibration(
    quality: ScoreQuality, gt_label: np.ndarray, groups: GroupsLike, num_bins: int = NUM_BINS
) -> dict[str, float]:
    """Compute the calibration of the scores, overall and by group.

    Args:
        quality (ScoreQuality): Quality of the scores of the N images.
        gt_label (np.ndarray): True labels, (N, ).
        groups (ClassGroups | Sequence[int]): Class groups or class counts, (K, ).
        num_bins (int): Number of bins of the calibration error. Defaults to 15.

    Returns:
        dict[str, float]: 'ece' (percent, see :func:`calibration_error`),
        'nll' (mean negative log-likelihood, nats) and 'brier' (mean Brier
        score, 0 to 2), then the same with the prefixes 'many\\_', 'medium\\_'
        and 'few\\_'. A group without images is left out.

    Raises:
        UserError: If a label is not a class.
    """
    figures = {}
    for prefix, images in images_by_prefix(gt_label, groups).items():
        confidence, hits, nll, brier = (column[images] for column in quality)
        figures[f'{prefix}ece'] = calibration_error(confidence, hits, num_bins)
        figures[f'{prefix}nll'] = float(nll.mean())
        figures[f'{prefix}brier'] = float(brier.mean())
    return figures


@METRICS.register_module()
class CalibrationMetric(ClassGroupMetric):
    """Calibration of the scores, overall and by class group.

    The metrics are ``calibration/ece`` (expected calibration error, percent),
    ``calibration/nll`` (negative log-likelihood, nats) and
    ``calibration/brier`` (Brier score, 0 to 2), and the same for each group,
    such as ``calibration/few_ece``. A group without images is left out.

    Four numbers are kept per image, and no scores.

    Args:
        num_bins (int): Number of bins of equal width of the calibration error.
            Defaults to 15.
        **kwargs: Arguments of :class:`.ClassGroupMetric`. The prefix defaults to
            'calibration'.
    """

    default_prefix: str | None = 'calibration'

    def __init__(self, num_bins: int = NUM_BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_bins < 1:
            raise UserError(f'CalibrationMetric: num_bins must be 1 or more, but got {num_bins}.')
        self.num_bins = num_bins

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the label and the quality of the scores of each image."""
        gt_label = self.gt_labels(data_samples)
        columns = (gt_label, *score_quality(self.scores(data_samples), gt_label))
        self.results.extend(zip(*(column.tolist() for column in columns)))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the metrics of the whole dataset and log them as a table."""
        if not results:
            return {}
        gt_label, *quality = map(np.array, zip(*results))
        figures = calibration(ScoreQuality(*quality), gt_label, self.groups, self.num_bins)
        self.log_by_group(
            'Calibration',
            TITLES.values(),
            lambda group: [f'{figures[key_prefix(group) + name]:.4f}' for name in TITLES],
            gt_label,
        )
        return figures
