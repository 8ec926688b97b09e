import numpy as np
import pytest
import torch

from ride_mm.analysis import decoupling


def test_tau_normalized():
    weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    for tau in (0.0, 0.5, 1.0):
        expected = torch.stack([weight[0] / 5**tau, weight[1] / 2**tau])
        torch.testing.assert_close(decoupling.tau_normalized(weight, tau), expected)


def test_choose_tau_by_the_mean_accuracy_of_classes():
    labels = np.array([0] * 8 + [1, 1])
    # tau=1 is best by images, tau=2 and 3 by classes.
    right = {
        0.0: [1] * 4 + [0] * 6,
        1.0: [1] * 8 + [0] * 2,
        2.0: [1] * 6 + [0] * 2 + [1, 1],
        3.0: [1] * 6 + [0] * 2 + [1, 1],
    }

    def predict(tau):
        return torch.tensor(
            [label if hit else 1 - label for label, hit in zip(labels.tolist(), right[tau])]
        )

    tau, figures = decoupling.choose_tau(predict, labels, [200, 3], taus=(3.0, 2.0, 0.0, 1.0))
    assert tau == 2.0
    assert list(figures) == [0.0, 1.0, 2.0, 3.0]
    assert figures[1.0]['overall'] == pytest.approx(80.0)
    assert figures[2.0]['balanced'] == pytest.approx((75 + 100) / 2)
