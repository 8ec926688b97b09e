import numpy as np
import pytest

from ride_mm.analysis.accuracy.confusion import group_confusion
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.utils.errors import UserError

COUNTS = [200, 150, 150, 60, 60, 30, 9, 5]
GROUPS = dict(many=(0, 1, 2), medium=(3, 4, 5), few=(6, 7))


def plain_confusion(predicted, true, groups=GROUPS, counts=COUNTS):
    """Image by image, without NumPy."""
    share, right, larger, chance = {}, {}, {}, {}
    for name, classes in groups.items():
        pairs = [(p, t) for p, t in zip(predicted, true) if t in classes]
        if not pairs:
            continue
        share[name] = {
            other: 100 * sum(p in among for p, _ in pairs) / len(pairs)
            for other, among in groups.items()
        }
        right[name] = 100 * sum(p == t for p, t in pairs) / len(pairs)
        errors = [(p, t) for p, t in pairs if p != t]
        if errors:
            larger[name] = 100 * sum(counts[p] > counts[t] for p, t in errors) / len(errors)
            chance[name] = sum(
                100 * sum(n > counts[t] for n in counts) / (len(counts) - 1) for _, t in errors
            ) / len(errors)
    return share, right, larger, chance


@pytest.mark.parametrize('seed', range(3))
def test_against_plain_python(seed):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 8, 300)
    predicted = np.where(rng.random(300) < 0.4, true, rng.integers(0, 8, 300))
    found = group_confusion(predicted, true, ClassGroups(COUNTS))
    share, right, larger, chance = plain_confusion(predicted.tolist(), true.tolist())
    assert list(found.share) == list(GROUPS)
    for name in GROUPS:
        assert found.share[name] == pytest.approx(share[name], rel=1e-12)
    assert found.right == pytest.approx(right, rel=1e-12)
    assert found.to_larger == pytest.approx(larger, rel=1e-12)
    assert found.by_chance == pytest.approx(chance, rel=1e-12)


def test_groups_without_images_classes_or_errors():
    # No test image of a medium class; all of the largest class are right.
    true, predicted = np.array([0, 0, 6, 7]), np.array([0, 0, 3, 6])
    found = group_confusion(predicted, true, ClassGroups(COUNTS))
    assert list(found.share) == ['many', 'few']
    assert found.share['few'] == dict(many=0.0, medium=50.0, few=50.0)
    assert found.to_larger == dict(few=100.0)
    assert found.by_chance['few'] == pytest.approx(100 * (6 + 7) / 2 / 7)
    # All classes are as large as each other: none is larger.
    found = group_confusion(np.array([1, 0]), np.array([0, 0]), ClassGroups([50, 50]))
    assert found.share == dict(medium=dict(medium=100.0))
    assert found.to_larger == found.by_chance == dict(medium=0.0)
    # One class.
    found = group_confusion(np.array([0]), np.array([0]), ClassGroups([500]))
    assert found.right == dict(many=100.0) and found.to_larger == {}


def test_labels_must_be_classes():
    with pytest.raises(UserError, match='Predicted label 8'):
        group_confusion(np.array([8]), np.array([0]), ClassGroups(COUNTS))
