"""Intervals for differences in accuracy, by resampling the test images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track

LEVEL = 0.95
# Fewer leave no resample outside the interval on either side.
MIN_RESAMPLES = round(2 / (1 - LEVEL))
# As good as a normal distribution, and finite.
_MANY_DEGREES = 1e9

Terms = Sequence[np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Accuracy of a method minus that of another one, in points.

    Attributes:
        value (float): The difference that was measured.
        low (float): The lower end of its interval; NaN where there is none.
        high (float): The upper end.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """str: What the interval says, in words."""
        if math.isnan(self.low):
            return 'no interval'
        if self.low > 0:
            return 'better'
        return 'worse' if self.high < 0 else 'not told apart'


def bootstrap(
    differences: Sequence[Terms],
    strata: np.ndarray,
    weights: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> list[list[Difference]]:
    """Estimate weighted sums over images with bootstrap intervals.

    A resample draws n - 1 of the n images of each stratum with replacement,
    the same ones for all that is compared, and counts them as n, so that the
    variance of a sum is not underestimated where n is small (McCarthy and
    Snowden, "The Bootstrap and Finite Population Sampling", 1985).

    The runs of a method are too few to be resampled: among the resamples of
    two runs, half hold one of them twice. Where a term has R >= 2 runs, each
    resample gets normal noise instead, with the variance that
    :func:`training_noise` finds. As this is found from a few runs, the
    deviation of each resample from what was measured is divided by the root
    of a chi-squared variable over its degrees of freedom, so that it follows
    Student's distribution as far as it comes from few runs (Satterthwaite's
    degrees of freedom, as in studies of several readers and many cases:
    Hillis, Statistics in Medicine 2007). 95 % of the resamples are in the
    interval, 2.5 % on either side.

    Args:
        differences (Sequence[Sequence[np.ndarray]]): C sums to compute, each
            as terms that are added: values of the N images in each of R
            runs, shape (R, N). Runs of different terms are independent.
        strata (np.ndarray): The stratum of each image, shape (N, ).
        weights (np.ndarray): The weight of each image in each of G figures,
            shape (G, N); the same for all images of a stratum.
        resamples (int): Number of resamples. Defaults to 2000.
        seed (int): Random seed of the bootstrap. The order of the images does
            not matter. Defaults to 0.

    Returns:
        list[list[Difference]]: C times G. There is no interval where nothing
        varies although the value is not 0: all images say the same.

    Raises:
        UserError: If there are fewer than 40 resamples, or the seed is
            negative.
    """
    check_draws(resamples, seed)
    means = np.stack([sum(term.mean(axis=0) for term in terms) for terms in differences])
    sums = resample(means, strata, weights, resamples, seed)
    drawn = np.stack(list(track(sums, 'Drawing test images', resamples)))
    values = means @ weights.T
    rows = []
    for c, terms in enumerate(differences):
        noise = training_noise(terms, strata, weights)
        rows.append(
            [_difference(*figure, seed) for figure in zip(values[c], drawn[:, c].T, *noise)]
        )
    return rows


def check_draws(resamples: int, seed: int) -> None:
    """Check how images are to be drawn.

    Raises:
        UserError: If there are too few resamples for an interval, or the
            seed is negative.
    """
    if resamples < MIN_RESAMPLES:
        raise UserError(
            f'an interval of {100 * LEVEL:g}% takes at least '
            f'{MIN_RESAMPLES} resamples, but got {resamples}.'
        )
    if seed < 0:
        raise UserError(f'the seed must be 0 or more, but got {seed}.')


def resample(
    values: np.ndarray, strata: np.ndarray, weights: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Draw images anew, and compute weighted sums over them.

    Args:
        values (np.ndarray): C values of each image, shape (C, N).
        strata (np.ndarray): See :func:`bootstrap`.
        weights (np.ndarray): See :func:`bootstrap`.
        resamples (int): Number of resamples.
        seed (int): Random seed of the bootstrap.

    Yields:
        np.ndarray: The sums in a resample, shape (C, G).
    """
    order = np.lexsort((*values, strata))  # whatever order they come in
    values = values[:, order]
    _, first, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    draws = np.maximum(sizes - 1, 1)
    weights = weights[:, order[first]] * (sizes / draws)
    begin, count = np.repeat(first, draws), np.repeat(sizes, draws)
    starts = np.cumsum(draws) - draws
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        chosen = begin + (rng.random(count.size) * count).astype(np.intp)
        sums = np.add.reduceat(values[:, chosen], starts, axis=1)
        yield sums @ weights.T


def training_noise(
    terms: Terms, strata: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the variance of a difference that comes with the seeds.

    Args:
        terms (Sequence[np.ndarray]): See :func:`bootstrap`. Those of one run
            tell nothing and are left out.
        strata (np.ndarray): See :func:`bootstrap`.
        weights (np.ndarray): See :func:`bootstrap`.

    Returns:
        tuple[np.ndarray, np.ndarray]: The variance, 0 or more, and how
        uncertain it is: the sum, over the terms, of the squared variance of
        the mean over runs by its degrees of freedom. Both with shape (G, ).
    """
    variance, uncertainty = np.zeros((2, len(weights)))
    for term in terms:
        if len(term) > 1:
            between, by_chance = variance_of_mean(term, strata, weights)
            variance += between - by_chance
            uncertainty += between**2 / (len(term) - 1)
    return np.maximum(variance, 0.0), uncertainty


def variance_of_mean(
    term: np.ndarray, strata: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find how much the mean over runs varies from some runs to others.

    Runs differ for two reasons: one is better than another, and equally good
    ones are right on different images, which has an effect by chance as long
    as there is no end of images. Resampling the images shows the second
    effect already, so it has to be told apart: it is the interaction of runs
    and images within a stratum (two-way analysis of variance).

    Args:
        term (np.ndarray): Values of the images in R runs, shape (R, N), with
            R at least 2.
        strata (np.ndarray): See :func:`bootstrap`.
        weights (np.ndarray): See :func:`bootstrap`.

    Returns:
        tuple[np.ndarray, np.ndarray]: The variance of the mean, and the part
        of it that is due to chance, each with shape (G, ).
    """
    _, first, strata, sizes = np.unique(
        strata, return_index=True, return_inverse=True, return_counts=True
    )
    by_stratum = np.stack([np.bincount(strata, run) for run in term]) / sizes
    squares = np.bincount(strata, term.var(axis=0, ddof=1))
    squares -= sizes * by_stratum.var(axis=0, ddof=1)
    interaction = squares / np.maximum(sizes - 1, 1)
    by_chance = weights[:, first] ** 2 @ (sizes * interaction)
    between = (term @ weights.T).var(axis=0, ddof=1)
    return between / len(term), by_chance / len(term)


def _difference(
    value: float, drawn: np.ndarray, training: float, uncertainty: float, seed: int
) -> Difference:
    """A difference with its interval, from the resamples of the images."""
    images = 0.0 if np.ptp(drawn) == 0 else drawn.var()
    if value != 0 and images + training == 0:
        return Difference(value, math.nan, math.nan)
    degrees = _MANY_DEGREES
    if uncertainty > 0:
        degrees = max((images + training) ** 2 / uncertainty, 1.0)
    # The same for all figures: equal ones have equal intervals.
    rng = np.random.default_rng([seed, 1])
    noise = math.sqrt(training) * rng.standard_normal(len(drawn))
    few_runs = np.sqrt(rng.chisquare(degrees, len(drawn)) / degrees)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile((drawn - value + noise) / few_runs, (tail, 1 - tail))
    return Difference(float(value), float(value + low), float(value + high))
