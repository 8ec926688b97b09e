"""Which images go on to the next expert, against doing it by hand."""

import math

import pytest
import torch

from ride_mm.models.routing import experts_used, route, router_bound, thresholds_by_router


def test_bounds():
    assert router_bound(0) == -math.inf and router_bound(1) == math.inf
    for p in (0.01, 0.5, 0.9):
        assert 1 / (1 + math.exp(-router_bound(p))) == pytest.approx(p)
    assert thresholds_by_router(0.3, 2) == [0.3, 0.3]
    assert thresholds_by_router((0.3, 0.4), 2) == [0.3, 0.4]


@pytest.mark.parametrize('threshold', [0.0, 0.3, 1.0, [0.6, 0.2, 0.5]])
def test_experts_used(threshold):
    logits = torch.randn(3, 50, dtype=torch.float64)
    bounds = threshold if isinstance(threshold, list) else [threshold] * 3
    expected = []
    for image in range(50):
        used = 1
        while used < 4 and torch.sigmoid(logits[used - 1, image]) > bounds[used - 1]:
            used += 1
        expected.append(used)
    assert experts_used(logits, threshold).tolist() == expected


def test_images_stop_and_never_come_back():
    """Each expert runs on the rows in doubt alone; the mean is of those."""
    trunk = torch.randn(40, 5, dtype=torch.float64)
    weights = torch.randn(3, 5, 4, dtype=torch.float64)
    doubts = torch.randn(2, 5, dtype=torch.float64)
    seen = []

    def run_expert(k, rows):
        seen.append(len(rows))
        return rows

    mean, used = route(
        trunk,
        run_expert,
        lambda k, rows: rows @ weights[k],
        lambda k, rows, logits: rows @ doubts[k],
        [0.4, 0.6],
    )
    assert used.tolist() == experts_used((doubts @ trunk.T), [0.4, 0.6]).tolist()
    assert set(used.tolist()) == {1, 2, 3}
    assert seen == [40, int((used > 1).sum()), int((used > 2).sum())]
    for row, count in enumerate(used.tolist()):
        by_hand = sum(trunk[row] @ weights[k] for k in range(count)) / count
        torch.testing.assert_close(mean[row], by_hand)
