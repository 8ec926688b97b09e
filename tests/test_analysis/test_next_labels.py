from math import log

import numpy as np
import pytest
import torch

from ride_mm.analysis import next_labels
from ride_mm.analysis.next_labels import Doubts


def random_scores(*shape):
    return torch.randn(*shape, dtype=torch.float64).softmax(-1)


def test_margin():
    scores = random_scores(20, 5)
    for row, found in zip(scores.tolist(), next_labels.margin(scores).tolist()):
        *_, second, first = sorted(row)
        assert found == pytest.approx(1 - first + second)


def test_disagreement_is_the_mean_divergence_from_the_mean():
    scores = random_scores(3, 20, 5)
    for image, found in enumerate(next_labels.disagreement(scores).tolist()):
        experts = scores[:, image].tolist()
        mean = [sum(column) / 3 for column in zip(*experts)]
        divergences = [
            sum(p * log(p / q) for p, q in zip(expert, mean) if p > 0) for expert in experts
        ]
        assert found == pytest.approx(sum(divergences) / 3)
    certain = torch.eye(3, dtype=torch.float64).unsqueeze(1)
    assert next_labels.disagreement(certain).item() == pytest.approx(log(3))


def test_router_doubt_needs_every_router():
    logits = torch.tensor([[2.0, 2.0, -1.0], [3.0, -3.0, 3.0]])
    expected = 1 / (1 + np.exp([-2.0, 3.0, 1.0]))
    np.testing.assert_allclose(next_labels.router_doubt(logits), expected, rtol=1e-6)


def test_for_smallest_classes():
    """Class 1 has one image, which is not enough to reach class 0."""
    rng = np.random.default_rng(0)
    doubts = Doubts(rng.choice([0, 2, 3], 60), rng.random(60))
    counts = [9, 1, 4, 6]
    chosen, sizes = [], np.array(counts)
    for _ in range(12):
        label = min((label for label in (0, 2, 3)), key=lambda label: sizes[label])
        left = [i for i in np.flatnonzero(doubts.pred_label == label) if i not in chosen]
        chosen.append(max(left, key=lambda i: doubts.doubt[i]))
        sizes[label] += 1
    assert next_labels.for_smallest_classes(doubts, counts, 12).tolist() == chosen
    assert sorted(next_labels.for_smallest_classes(doubts, counts, 100)) == list(range(60))
