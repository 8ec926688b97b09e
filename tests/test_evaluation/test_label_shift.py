import numpy as np
import pytest
import torch

from ride_mm.evaluation import correct_prior, shift_table, shifted_accuracy, shifted_prior
from ride_mm.utils.errors import UserError

COUNTS = [20, 500, 20, 100, 5]


def plain_sizes(num_classes, ratio):
    """Images per class of an exponential profile, largest class first."""
    return [(1 / ratio) ** (i / (num_classes - 1)) for i in range(num_classes)]


@pytest.mark.parametrize('ratio', [1, 2, 50])
def test_priors_follow_the_training_classes(ratio):
    sizes = plain_sizes(5, ratio)
    order = [1, 3, 0, 2, 4]  # from the largest class; 0 before its equal, 2
    forward, backward = [0.0] * 5, [0.0] * 5
    for place, label in enumerate(order):
        forward[label] = sizes[place] / sum(sizes)
        backward[label] = sizes[4 - place] / sum(sizes)
    np.testing.assert_allclose(shifted_prior(COUNTS, ratio), forward)
    np.testing.assert_allclose(shifted_prior(COUNTS, ratio, backward=True), backward)


def test_accuracy_is_that_of_a_test_set_so_distributed():
    # 4, 2 and 1 images of three classes, 2, 2 and 0 of them right.
    by_class, prior = np.array([50.0, 100.0, 0.0]), np.array([4, 2, 1]) / 7
    assert shifted_accuracy(by_class, prior) == pytest.approx(100 * 4 / 7)
    untested = np.array([50.0, np.nan, 0.0])
    assert shifted_accuracy(untested, prior) == pytest.approx(100 * 2 / 5)


def test_table():
    by_class = np.array([40.0, 90.0, 40.0, 70.0, 10.0])
    table = shift_table(by_class, COUNTS, ratios=(2, 50))
    assert list(table) == ['forward_50', 'forward_2', 'uniform', 'backward_2', 'backward_50']
    assert table['uniform'] == pytest.approx(50.0)
    assert list(table.values()) == sorted(table.values(), reverse=True)
    sizes = plain_sizes(5, 50)
    expected = np.dot(sizes, [90, 70, 40, 40, 10]) / sum(sizes)
    assert table['forward_50'] == pytest.approx(expected)


def test_correction_is_bayes_rule():
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    new, old = [0.1, 0.1, 0.8], [0.5, 0.25, 0.25]
    corrected = correct_prior(scores, np.array(new), np.array(old))
    for row, found in zip(scores.tolist(), corrected.tolist()):
        joint = [p * n / o for p, n, o in zip(row, new, old)]
        assert found == pytest.approx([p / sum(joint) for p in joint])
    same = correct_prior(scores, np.array(old), np.array(old))
    torch.testing.assert_close(same, scores)


def test_class_that_was_never_seen_cannot_be_corrected():
    scores = torch.tensor([[0.5, 0.3, 0.2]])
    with pytest.raises(UserError, match='class 1, 2 never occurs'):
        correct_prior(scores, np.ones(3), np.array([7, 0, 0]))


def test_one_class_and_wrong_ratio():
    assert shifted_prior([7], 50).tolist() == [1.0]
    with pytest.raises(UserError, match='at least 1, but got 0.5'):
        shifted_prior(COUNTS, 0.5)
