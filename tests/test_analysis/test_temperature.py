import math

import pytest
import torch

from ride_mm.analysis.calibration.temperature import fit_temperature
from ride_mm.utils.errors import UserError


def plain_nll(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits, labels):
        exps = [math.exp(z / temperature) for z in row]
        total -= math.log(exps[label] / sum(exps))
    return total / len(labels)


@pytest.mark.parametrize('scale', [0.3, 1.0, 8.0])
def test_least_negative_log_likelihood(scale):
    torch.manual_seed(0)
    probs = (2 * torch.randn(300, 4).double()).softmax(1)
    labels = torch.multinomial(probs, 1).squeeze(1)
    logits = scale * probs.log()
    found = fit_temperature(logits, labels)
    # drawn from the softmax of logits / scale
    assert found == pytest.approx(scale, rel=0.2)
    args = logits.tolist(), labels.tolist()
    least = plain_nll(*args, found)
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2):
        assert plain_nll(*args, factor * found) > least


def test_nothing_to_fit():
    logits = torch.eye(3) * 5
    with pytest.raises(UserError, match='trained on them, or are they too few'):
        fit_temperature(logits, torch.arange(3))
    with pytest.raises(UserError, match='no temperature between'):
        fit_temperature(logits, torch.tensor([1, 2, 0]))
