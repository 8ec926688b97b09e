"""Simulate test sets with other class frequencies without a forward pass.

Zhang et al., "Self-Supervised Aggregation of Diverse Experts for
Test-Agnostic Long-Tailed Recognition", NeurIPS 2022.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ride_mm.utils.errors import UserError, name_some

# Imbalance ratios in the tables of the paper (SADE).
RATIOS = (50, 25, 10, 5, 2)


def shifted_prior(
    class_counts: Sequence[int] | np.ndarray, ratio: float, backward: bool = False
) -> np.ndarray:
    """Compute the class frequencies of a long-tailed test set.

    They decrease exponentially from the largest training class to the
    smallest, or increase ("backward").

    Args:
        class_counts (Sequence[int]): Training images per class, (K, ).
        ratio (float): Largest frequency divided by the smallest one, 1 or
            more; 1 is a balanced test set.
        backward (bool): Whether the smallest training class is the largest
            test class. Defaults to False.

    Returns:
        np.ndarray: Frequencies that sum to 1, (K, ). Training classes of equal
        size keep their order.

    Raises:
        UserError: If the ratio is below 1.
    """
    if ratio < 1:
        raise UserError(f'the imbalance ratio of a test set must be at least 1, but got {ratio}.')
    counts = np.asarray(class_counts)
    falling = np.geomspace(ratio, 1.0, len(counts))
    prior = np.empty(len(counts))
    prior[np.argsort(-counts, kind='stable')] = falling[::-1] if backward else falling
    return prior / prior.sum()


def shifted_accuracy(by_class: np.ndarray, prior: np.ndarray) -> float:
    """Compute the expected accuracy on a test set with other frequencies.

    Args:
        by_class (np.ndarray): Accuracy of each class, percent, (K, ). Classes
            without images (NaN) are left out.
        prior (np.ndarray): Frequencies of the classes, (K, ).

    Returns:
        float: Percent.
    """
    tested = ~np.isnan(by_class)
    return float(np.average(by_class[tested], weights=prior[tested]))


def shift_table(
    by_class: np.ndarray, class_counts: Sequence[int] | np.ndarray, ratios: Sequence[float] = RATIOS
) -> dict[str, float]:
    """Compute the accuracy on forward, uniform and backward test sets.

    Args:
        by_class (np.ndarray): Accuracy of each class, percent, (K, ).
        class_counts (Sequence[int]): Training images per class, (K, ).
        ratios (Sequence[float]): Imbalance ratios. Defaults to
            (50, 25, 10, 5, 2).

    Returns:
        dict[str, float]: Percent under 'forward_50', ..., 'uniform', ...,
        'backward_50', from the most forward to the most backward.
    """
    priors = shift_priors(class_counts, ratios)
    return {name: shifted_accuracy(by_class, prior) for name, prior in priors.items()}


def shift_priors(
    class_counts: Sequence[int] | np.ndarray, ratios: Sequence[float] = RATIOS
) -> dict[str, np.ndarray]:
    """Compute the class frequencies of the test sets of :func:`shift_table`."""
    ascending = sorted(ratios)
    forward = {f'forward_{r:g}': shifted_prior(class_counts, r) for r in reversed(ascending)}
    backward = {f'backward_{r:g}': shifted_prior(class_counts, r, True) for r in ascending}
    return {**forward, 'uniform': shifted_prior(class_counts, 1), **backward}


def correct_prior(
    pred_score: torch.Tensor, prior: np.ndarray, model_prior: np.ndarray
) -> torch.Tensor:
    """Correct scores for a test set whose class frequencies are known.

    Bayes' rule: scores are multiplied by the new frequencies divided by those
    that the model assumes (Saerens et al., "Adjusting the Outputs of a
    Classifier to New a Priori Probabilities", Neural Computation 2002,
    eq. 2.4).

    Args:
        pred_score (torch.Tensor): Probabilities, (N, K).
        prior (np.ndarray): Frequencies of the test classes, (K, ).
        model_prior (np.ndarray): Frequencies that the model assumes, all
            above 0, (K, ): those of the training images after plain cross
            entropy, equal ones after a loss that compensates for them.

    Returns:
        torch.Tensor: Probabilities, (N, K), float64.

    Raises:
        UserError: If the model assumes that a class never occurs.
    """
    prior, model_prior = np.asarray(prior), np.asarray(model_prior)
    never = np.flatnonzero(model_prior <= 0).tolist()
    if never:
        raise UserError(
            f'the model assumes that class {name_some(never)} never occurs (no '
            'training images?), so it has no scores to correct.'
        )
    weights = torch.from_numpy(prior / model_prior)
    scores = pred_score.double() * weights.to(pred_score.device)
    return scores / scores.sum(dim=1, keepdim=True)
