"""Sets hold the label as often as they promise."""

import math

import numpy as np
import pytest

from ride_mm.analysis import set_thresholds, sets_of
from ride_mm.analysis.calibration.conformal import set_figures
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.utils.errors import UserError

# One many-shot, two medium- and three few-shot classes.
GROUPS = ClassGroups([200, 60, 30, 10, 5, 3])
SHARES = [0.35, 0.2, 0.15, 0.1, 0.1, 0.1]


def draw(num, seed):
    """Scores that are too sure of the many-shot class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(6, size=num, p=SHARES)
    logits = rng.normal(size=(num, 6)) + [1.5, 0.5, 0.5, 0, 0, 0]
    logits[np.arange(num), labels] += 1.5
    scores = np.exp(logits)
    return scores / scores.sum(1, keepdims=True), labels


def plain_set(score, scores, labels, coverage):
    """The labels whose conformal p-value exceeds 1 - coverage."""
    found = []
    for label in range(len(score)):
        (group,) = (mask for mask in GROUPS.masks.values() if mask[label])
        own = [scores[i, labels[i]] for i in range(len(labels)) if group[labels[i]]]
        as_strange = sum(value <= score[label] for value in own)
        if (as_strange + 1) / (len(own) + 1) > 1 - coverage + 1e-9:
            found.append(label)
    return found


@pytest.mark.parametrize('coverage', [0.5, 0.8, 0.9])
def test_p_values(coverage):
    scores, labels = draw(200, 0)
    new, _ = draw(40, 1)
    thresholds = set_thresholds(scores, labels, GROUPS, coverage)
    for score, found in zip(new, sets_of(new, thresholds)):
        expected = set(plain_set(score, scores, labels, coverage)) | {score.argmax()}
        assert set(np.flatnonzero(found)) == expected


def test_coverage_on_new_images():
    """In each group, over many draws of both sets of images."""
    coverage, held = 0.8, {name: [] for name in GROUPS.masks}
    for seed in range(300):
        scores, labels = draw(120, 2 * seed)
        thresholds = set_thresholds(scores, labels, GROUPS, coverage)
        scores, labels = draw(300, 2 * seed + 1)
        found = scores[np.arange(300), labels] >= thresholds[labels]
        for name, classes in GROUPS.masks.items():
            held[name].append(found[classes[labels]].mean())
    for values in held.values():
        error = np.std(values) / math.sqrt(len(values))
        # At least as promised, and at most by 1 / (images + 1) more.
        assert coverage - 3 * error < np.mean(values) < coverage + 1 / 20 + 3 * error


def test_figures():
    scores = np.array(
        [[0.7, 0.1, 0.1, 0.1, 0, 0], [0.4, 0.3, 0.1, 0.1, 0.1, 0], [1, 0, 0, 0, 0, 0]]
    )
    labels, thresholds = np.array([0, 1, 5]), np.array([0.5, 0.3, 0.3, 0.1, 0.1, 0.1])
    sets = sets_of(scores, thresholds)
    assert [np.flatnonzero(row).tolist() for row in sets] == [[0, 3], [0, 1, 3, 4], [0]]
    figures = set_figures(scores, labels, thresholds, GROUPS)
    assert figures == pytest.approx(
        dict(
            coverage=200 / 3,
            size=7 / 3,
            many_coverage=100,
            many_size=2,
            medium_coverage=100,
            medium_size=4,
            few_coverage=0,
            few_size=1,
        )
    )


def test_too_few_images():
    scores, labels = draw(40, 0)
    with pytest.raises(UserError, match='images of .*-shot classes are too few .*at least 99 are'):
        set_thresholds(scores, labels, GROUPS, 0.99)
    few = np.flatnonzero(labels > 2)[:9]
    set_thresholds(scores[few], labels[few], ClassGroups([1] * 6), 0.9)
    with pytest.raises(UserError, match='8 images .* at least 9 are'):
        set_thresholds(scores[few[:8]], labels[few[:8]], ClassGroups([1] * 6), 0.9)
    with pytest.raises(UserError, match='coverage=1 must be above 0 and below 1'):
        set_thresholds(scores, labels, GROUPS, 1.0)
