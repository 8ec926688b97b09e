"""The temperature that makes scores fit to be trusted.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch.utils.data import DataLoader

from ride_mm.analysis.decoupling import run_batches
from ride_mm.models import RIDEClassifier
from ride_mm.utils.errors import UserError

# Outside lies no classifier that has learned anything and still errs.
BOUNDS = (0.01, 100.0)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Find the temperature with the least negative log-likelihood.

    Args:
        logits (torch.Tensor): (N, K).
        labels (torch.Tensor): True labels, (N, ).

    Returns:
        float: What to divide the logits by, to a relative 1e-6.

    Raises:
        UserError: If there is none: all images are right, so that the
            likelihood grows as the temperature falls, or the logits know
            nothing of the labels.
    """
    logits = logits.double()

    def nll(log_temperature: float) -> float:
        temperature = torch.tensor(log_temperature).double().exp()
        return F.cross_entropy(logits / temperature, labels).item()

    # Convex in 1 / T, so it has one minimum in log T as well.
    low, high = torch.tensor(BOUNDS).double().log().tolist()
    found = minimize_scalar(nll, bounds=(low, high), method='bounded', options=dict(xatol=1e-6))
    all_right = (logits.argmax(1) == labels).all()
    if all_right or min(found.x - low, high - found.x) < 1e-3:
        raise UserError(
            f'no temperature between {BOUNDS[0]} and {BOUNDS[1]} fits these '
            f'{len(labels)} images: did the model train on them, or are they '
            'too few?'
        )
    return float(torch.tensor(found.x).exp())


def collect_logits(model: RIDEClassifier, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict as a test does, up to the softmax.

    Args:
        model (RIDEClassifier): Predicts as its ``test_cfg`` says.
        loader (DataLoader): The images.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Adjusted logits, (N, K), and
        labels, (N, ).
    """
    found, labels = zip(*run_batches(model, loader, model.infer))
    logits = torch.cat([mean_logits for mean_logits, *_ in found])
    tau = model.test_cfg['logit_adjustment']
    return model.head.adjust(logits, tau), torch.cat(labels)
