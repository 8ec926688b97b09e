from statistics import NormalDist

import numpy as np
import pytest

from ride_mm.analysis.comparison.intervals import (
    bootstrap,
    resample,
    training_noise,
    variance_of_mean,
)
from ride_mm.utils.errors import UserError

CLASSES = 20


def two_figures(strata):
    """The mean over images and that over classes, as weights."""
    images = np.bincount(strata)
    by_image = np.full(len(strata), 1 / len(strata))
    return np.stack([by_image, 1 / (len(images) * images[strata])])


def random_runs(runs=4, seed=0, classes=5, most=8):
    rng = np.random.default_rng(seed)
    strata = np.repeat(np.arange(classes), rng.integers(2, most, classes))
    return rng.random((runs, len(strata))) < 0.5, strata


def test_variance_of_mean_by_hand():
    """The analysis of variance, written out."""
    hits, strata = random_runs()
    weights = two_figures(strata)
    num_runs = len(hits)
    by_chance = np.zeros(2)
    for k in np.unique(strata):
        part = hits[:, strata == k].astype(float)
        n = part.shape[1]
        square = 0.0
        for r in range(num_runs):
            for i in range(n):
                rest = part[r, i] - part[r].mean() - part[:, i].mean() + part.mean()
                square += rest**2
        square /= (num_runs - 1) * (n - 1)
        for g in range(2):
            by_chance[g] += n * weights[g][strata == k][0] ** 2 * square
    runs = [[sum(w * h for w, h in zip(weights[g], run)) for run in hits] for g in range(2)]
    between = [np.var(figures, ddof=1) for figures in runs]

    found = variance_of_mean(hits.astype(float), strata, weights)
    np.testing.assert_allclose(found[0], np.divide(between, num_runs))
    np.testing.assert_allclose(found[1], by_chance / num_runs)


def test_noise_of_runs_that_are_equally_good_is_taken_for_chance():
    """Unbiased: images that are right at random leave nothing for seeds."""
    strata = np.repeat(np.arange(4), 25)
    weights = two_figures(strata)[:1]
    rng = np.random.default_rng(0)
    rest = []
    for _ in range(500):
        hits = (rng.random((3, 100)) < 0.5).astype(float)
        between, by_chance = variance_of_mean(hits, strata, weights)
        rest.append(between - by_chance)
    expected = 0.25 / 100 / 3
    assert abs(np.mean(rest)) < 3 * np.std(rest) / 500**0.5 < 0.2 * expected


def test_noise_of_terms_adds_up():
    hits, strata = random_runs()
    weights = two_figures(strata)
    ours, theirs = hits[:3].astype(float), -hits[2:].astype(float)
    parts = [variance_of_mean(term, strata, weights) for term in (ours, theirs)]
    variance, uncertainty = training_noise([ours, theirs, hits[:1]], strata, weights)
    np.testing.assert_array_equal(
        variance, np.maximum(sum(between - by_chance for between, by_chance in parts), 0)
    )
    np.testing.assert_allclose(uncertainty, parts[0][0] ** 2 / 2 + parts[1][0] ** 2 / 1)
    assert (training_noise([hits[:1]], strata, weights)[1] == 0).all()


def test_resamples_have_the_variance_of_a_stratified_sample():
    """Also with two images in a class, by the formula of the textbook."""
    rng = np.random.default_rng(0)
    sizes = [2, 3, 30]
    strata = np.repeat(np.arange(3), sizes)
    values = rng.normal(size=(2, len(strata)))
    weights = two_figures(strata)
    drawn = np.stack(list(resample(values, strata, weights, 20000, 0)))
    for c in range(2):
        expected = sum(
            (weights[:, strata == k][:, 0] * n) ** 2 * np.var(values[c][strata == k], ddof=1) / n
            for k, n in enumerate(sizes)
        )
        np.testing.assert_allclose(drawn[:, c].var(axis=0), expected, rtol=0.04)
        np.testing.assert_allclose(
            drawn[:, c].mean(axis=0),
            weights @ values[c],
            atol=4 * expected.max() ** 0.5 / 20000**0.5,
        )


def test_a_class_is_never_mixed_with_another_one():
    strata = np.array([1, 0, 1, 0])
    values = np.array([[5.0, 1.0, 5.0, 1.0]])
    drawn = list(resample(values, strata, two_figures(strata), 50, 0))
    assert {tuple(figures[0]) for figures in drawn} == {(3.0, 3.0)}


class Simulation:
    """Models of known accuracy: right where a sum of normals is positive.

    All share how hard an image is; a method has its own view of an image, a
    run its own luck, overall and by class.
    """

    def __init__(self, gap=0.3, training=0.0, by_class=0.1, images=10, seed=0):
        self.gap, self.training, self.by_class = gap, training, by_class
        self.ease = np.linspace(1.5, -1.5, CLASSES)
        self.strata = np.repeat(np.arange(CLASSES), images)
        self.weights = two_figures(self.strata)[:1]
        self.rng = np.random.default_rng(seed)

    def accuracy(self, ease, *deviations):
        scale = np.sqrt(1.0 + np.square((1.5, 0.3, *deviations)).sum())
        cdf = NormalDist().cdf
        return np.mean([cdf(e / scale) for e in ease])

    def terms(self, *num_runs):
        """The hits of runs of both methods, and what they would hit of
        endless images."""
        num_images = len(self.strata)
        hardness = 1.5 * self.rng.normal(size=num_images)
        terms, reached = [], 0.0
        for runs, gap, sign in zip(num_runs, (self.gap, 0.0), (1.0, -1.0)):
            luck = self.training * self.rng.normal(size=(runs, 1))
            luck = luck + self.by_class * self.rng.normal(size=(runs, CLASSES))
            view = hardness + 0.3 * self.rng.normal(size=num_images)
            score = (
                view
                + self.rng.normal(size=(runs, num_images))
                + (self.ease + gap + luck)[:, self.strata]
            )
            terms.append(sign * (score > 0))
            reached += sign * np.mean([self.accuracy(self.ease + gap + one) for one in luck])
        return terms, reached

    @property
    def truth(self):
        of_runs = self.training, self.by_class
        return self.accuracy(self.ease + self.gap, *of_runs) - self.accuracy(self.ease, *of_runs)


def coverage(num_runs, of_weights=False, rounds=300, **kwargs):
    """How often the interval holds the truth."""
    simulation = Simulation(**kwargs)
    held = 0
    for i in range(rounds):
        terms, reached = simulation.terms(*num_runs)
        found = bootstrap([terms], simulation.strata, simulation.weights, 200, i)[0][0]
        held += found.low <= (reached if of_weights else simulation.truth) <= found.high
    return held / rounds


# Three standard deviations of a share of 300 below 95 %.
ENOUGH = 0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(num_runs=(3, 3)),
        dict(num_runs=(3, 3), training=0.5),
        dict(num_runs=(5, 2), training=0.15),
        dict(num_runs=(3, 3), images=3),
        dict(num_runs=(1, 1), of_weights=True, training=0.3),
        dict(num_runs=(1, 1), of_weights=True, images=3),
    ],
)
def test_coverage(kwargs):
    assert ENOUGH <= coverage(**kwargs) <= 0.995


def test_one_run_says_nothing_of_other_seeds():
    """Why the tool says so: the interval is of the weights alone."""
    assert coverage((1, 1), training=0.5, rounds=100) < 0.6


def test_identical_runs_do_not_differ():
    hits, strata = random_runs()
    hits = hits.astype(float)
    for terms in ([hits, -hits[::-1]], [hits - hits]):
        for found in bootstrap([terms], strata, two_figures(strata), 40)[0]:
            assert found.value == 0
    assert (found.low, found.high) == (0, 0)
    assert found.verdict == 'not told apart'


def test_order_of_images_and_runs_does_not_matter():
    hits, strata = random_runs()
    weights = two_figures(strata)
    ours, theirs = hits[:2].astype(float), -hits[2:].astype(float)
    order = np.random.default_rng(1).permutation(len(strata))
    first = bootstrap([[ours, theirs]], strata, weights, 100, 3)[0]
    second = bootstrap(
        [[ours[::-1][:, order], theirs[:, order]]], strata[order], weights[:, order], 100, 3
    )[0]
    for a, b in zip(first, second):
        np.testing.assert_allclose([a.value, a.low, a.high], [b.value, b.low, b.high], atol=1e-12)
    other = bootstrap([[ours, theirs]], strata, weights, 100, 4)[0]
    assert other[0].low != first[0].low


def test_equal_figures_have_equal_intervals():
    hits, _ = random_runs()
    strata = np.arange(hits.shape[1] // 2 * 2) % 2  # as many of each class
    hits = hits[:, : len(strata)].astype(float)
    a, b = bootstrap([[hits[:2], -hits[2:]]], strata, two_figures(strata), 100)[0]
    np.testing.assert_allclose([a.low, a.high], [b.low, b.high], atol=1e-9)


def test_one_image_or_unanimous_ones_have_no_interval():
    for num_images in (1, 5):
        strata = np.zeros(num_images, int)
        found = bootstrap([[np.ones((1, num_images))]], strata, two_figures(strata), 40)[0][0]
        assert found.value == pytest.approx(1)
        assert np.isnan([found.low, found.high]).all()
        assert found.verdict == 'no interval'


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(resamples=39), 'at least 40 resamples, but got 39'),
        (dict(seed=-1), 'seed must be 0 or more, but got -1'),
    ],
)
def test_wrong_draws(kwargs, message):
    hits, strata = random_runs()
    with pytest.raises(UserError, match=message):
        bootstrap([[hits.astype(float)]], strata, two_figures(strata), **kwargs)
