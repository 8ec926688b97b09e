"""Temperature scaling.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

import math

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from ride_mm.utils.errors import UserError

# A trained classifier that makes errors has a temperature in this range.
BOUNDS = (0.01, 100.0)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Find the temperature with the lowest negative log-likelihood.

    Args:
        logits (torch.Tensor): Logits, (N, K).
        labels (torch.Tensor): True labels, (N, ).

    Returns:
        float: The divisor of the logits, with a relative error of 1e-6.

    Raises:
        UserError: If there is no such temperature: all predictions are
            correct, so that the likelihood grows as the temperature falls,
            or the logits are unrelated to the labels.
    """
    logits = logits.double()
    # Convex in 1 / T, so there is a single minimum in log T as well.
    low, high = map(math.log, BOUNDS)
    found = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(low, high),
        method='bounded',
        options=dict(xatol=1e-6),
    )
    all_right = (logits.argmax(1) == labels).all()
    if all_right or min(found.x - low, high - found.x) < 1e-3:
        raise UserError(
            f'no temperature between {BOUNDS[0]} and {BOUNDS[1]} fits these '
            f'{len(labels)} images: was the model trained on them, or are they '
            'too few?'
        )
    return math.exp(found.x)
