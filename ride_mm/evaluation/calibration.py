from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmpretrain.registry import METRICS
from torchmetrics.functional.classification import binary_calibration_error

from ride_mm.datasets.class_groups import ClassGroups, GroupsLike, Thresholds, key_prefix
from ride_mm.utils.errors import UserError

from .by_group import mean_by_group
from .class_group_metric import ClassGroupMetric

NUM_BINS = 15
TITLES = dict(ece='ECE (%)', nll='NLL', brier='Brier score')


class ScoreQuality(NamedTuple):
    """Quality of the scores of N images.

    Args:
        confidence (np.ndarray): Score of the predicted class, (N, ).
        hits (np.ndarray): Bool, whether the predicted class is the true one,
            (N, ).
        nll (np.ndarray): Minus the log score of the true class, (N, ), in
            nats.
        brier (np.ndarray): Squared distance of the scores from the one-hot
            label, summed over classes, (N, ), from 0 to 2.
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
        pred_score (torch.Tensor): Probabilities with shape (N, K).
        gt_label (torch.Tensor): True labels with shape (N, ).

    Returns:
        ScoreQuality: Score quality of the N images.
    """
    scores = pred_score.double()
    labels = gt_label.to(scores.device)
    confidence, best = scores.max(dim=1)
    true_score = scores.gather(1, labels[:, None]).squeeze(1)
    smallest = torch.finfo(torch.float32).tiny
    columns = (
        confidence,
        best == labels,
        -true_score.clamp_min(smallest).log(),
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
        num_bins (int): Bins of equal width. Defaults to 15.

    Returns:
        float: Percent.
    """
    confidence = torch.from_numpy(_below_one(confidence))
    hits = torch.from_numpy(np.asarray(hits)).long()
    error = binary_calibration_error(confidence, hits, n_bins=num_bins)
    return 100.0 * error.item()


def _below_one(confidence: np.ndarray) -> np.ndarray:
    """Clip scores below 1: a softmax of one dominant class is 1 or slightly
    above, which would open another bin."""
    confidence = np.asarray(confidence, dtype=np.float64)
    return np.minimum(confidence, np.nextafter(1.0, 0.0))


class ReliabilityBins(NamedTuple):
    """Bins of a reliability diagram.

    Args:
        edges (np.ndarray): Edges from 0 to 1, shape (B + 1, ).
        images (np.ndarray): Number of images, (B, ).
        confidence (np.ndarray): Mean confidence, (B, ); NaN in an empty bin.
        accuracy (np.ndarray): Share of correct predictions, (B, ); NaN in an
            empty bin.
    """

    edges: np.ndarray
    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_bins(
    confidence: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sort images by their confidence, as :func:`calibration_error` does.

    Args:
        confidence (np.ndarray): Score of the predicted class, (N, ).
        hits (np.ndarray): Whether the predicted class is the true one, (N, ).
        num_bins (int): Bins of equal width; only the last includes its upper
            edge. Defaults to 15.

    Returns:
        ReliabilityBins: The B = ``num_bins`` bins.
    """
    # Rounded as torchmetrics rounds them.
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
    """Compute the calibration of the scores, overall and by class size.

    Args:
        quality (ScoreQuality): Score quality of the N images.
        gt_label (np.ndarray): True labels with shape (N, ).
        groups (ClassGroups | Sequence[int]): The class groups, or the
            training images per class, (K, ).
        num_bins (int): Bins of the calibration error. Defaults to 15.

    Returns:
        dict[str, float]: 'ece' (percent, see :func:`calibration_error`),
        'nll' (mean negative log-likelihood, nats) and 'brier' (mean Brier
        score, 0 to 2); then the same with 'many\\_', 'medium\\_' and 'few\\_'
        in front. A group without images is left out.
    """
    groups = ClassGroups.of(groups)
    means = mean_by_group(dict(nll=quality.nll, brier=quality.brier), gt_label, groups)
    figures = {}
    for group, images in groups.of_images(gt_label).items():
        prefix = key_prefix(group)
        figures[f'{prefix}ece'] = calibration_error(
            quality.confidence[images], quality.hits[images], num_bins
        )
        for name in ('nll', 'brier'):
            figures[prefix + name] = means[prefix + name]
    return figures


@METRICS.register_module()
class CalibrationMetric(ClassGroupMetric):
    """Calibration of the scores, overall and by class size.

    The figures are ``calibration/ece`` (expected calibration error,
    percent), ``calibration/nll`` (negative log-likelihood, nats) and
    ``calibration/brier`` (Brier score, 0 to 2), and the same for each group,
    such as ``calibration/few_ece``. A group without images is left out.

    The metric keeps four numbers per image, never the scores.

    Args:
        num_bins (int): Bins of equal width of the calibration error.
            Defaults to 15.
        thresholds (str | Sequence[int]): Class groups, see
            :class:`LongTailMetric`. Defaults to "ride".
        class_counts (Sequence[int] | str, optional): Training images per
            class, or a file to read them from. Defaults to None, which means
            ``metainfo['class_counts']`` of the evaluated dataset.
        collect_device (str): Device used to collect the results of several
            processes, 'cpu' or 'gpu'. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None,
            which means 'calibration'.
    """

    default_prefix: str | None = 'calibration'

    def __init__(
        self,
        num_bins: int = NUM_BINS,
        thresholds: Thresholds = 'ride',
        class_counts: Sequence[int] | str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(thresholds, class_counts, collect_device, prefix)
        if num_bins < 1:
            raise UserError(f'CalibrationMetric: num_bins must be 1 or more, but got {num_bins}.')
        self.num_bins = num_bins

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the label and the quality of the scores of each image.

        Args:
            data_batch: A batch of the dataloader, not used.
            data_samples (Sequence[dict]): A batch of outputs of the model.
        """
        gt_label = self.gt_labels(data_samples)
        quality = score_quality(self.scores(data_samples), gt_label)
        columns = (gt_label, *quality)
        self.results.extend(zip(*(column.tolist() for column in columns)))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the figures of the whole dataset and log them as a table.

        Args:
            results (list[tuple]): (label, confidence, hit, nll, brier) of
                every image.

        Returns:
            dict[str, float]: The figures, without prefix.
        """
        if not results:
            return {}
        gt_label, *quality = map(np.array, zip(*results))
        figures = calibration(ScoreQuality(*quality), gt_label, self.groups, self.num_bins)
        self.log_by_group('Calibration', TITLES, figures, gt_label, digits=4)
        return figures
