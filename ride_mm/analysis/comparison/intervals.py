"""Bootstrap intervals for differences in accuracy."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ride_mm.utils.errors import UserError
from ride_mm.utils.progress import track

LEVEL = 0.95
# With fewer, no resample is outside the interval on either side.
MIN_RESAMPLES = round(2 / (1 - LEVEL))
# Practically a normal distribution, but finite.
_MANY_DEGREES = 1e9

Terms = Sequence[np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Difference between the accuracies of two methods, in points.

    Attributes:
        value (float): The measured difference.
        low (float): Lower end of its interval; NaN without an interval.
        high (float): Upper end of its interval; NaN without an interval.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """str: 'better', 'worse', 'not told apart' or 'no interval'."""
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
    the same images for all sums, and counts them as n, so that the variance
    is not underestimated where n is small (McCarthy and Snowden, "The
    Bootstrap and Finite Population Sampling", 1985).

    The runs of a method are too few to be resampled: half of the resamples
    of two runs contain the same run twice. Instead, for terms with R >= 2
    runs, normal noise with the variance of :func:`training_noise` is added
    to each resample. To account for the few runs behind this variance, the
    deviation of each resample is divided by the square root of a chi-squared
    variable over its degrees of freedom, as in Student's t-distribution,
    with Satterthwaite's approximation of the degrees of freedom (as in
    studies with several readers and many cases: Hillis, Statistics in
    Medicine 2007). The interval contains the central 95 % of the resamples.

    Args:
        differences (Sequence[Sequence[np.ndarray]]): C sums, each a list of
            terms to add: values of the N images in each of R runs, (R, N).
            Runs of different terms are independent.
        strata (np.ndarray): Stratum of each image, (N, ).
        weights (np.ndarray): Weight of each image in each of G figures,
            (G, N), equal for all images of a stratum.
        resamples (int): Number of resamples. Defaults to 2000.
        seed (int): Random seed of the bootstrap. The result does not depend
            on the order of the images. Defaults to 0.

    Returns:
        list[list[Difference]]: C lists of G differences, without an interval
        where nothing varies although the value is not 0.

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
    for terms, of_terms, samples in zip(differences, values, drawn.swapaxes(0, 1)):
        noise = training_noise(terms, strata, weights)
        rows.append([_difference(*figure, seed) for figure in zip(of_terms, samples.T, *noise)])
    return rows


def check_draws(resamples: int, seed: int) -> None:
    """Check the settings of the bootstrap.

    Raises:
        UserError: If there are too few resamples for an interval, or the
            seed is negative.
    """
    if resamples < MIN_RESAMPLES:
        raise UserError(
            f'a {100 * LEVEL:g}% interval needs at least {MIN_RESAMPLES} resamples, '
            f'but got {resamples}.'
        )
    if seed < 0:
        raise UserError(f'the seed must be 0 or more, but got {seed}.')


def resample(
    values: np.ndarray, strata: np.ndarray, weights: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Resample images and compute weighted sums over them.

    Args:
        values (np.ndarray): C values of each image, (C, N).
        strata (np.ndarray): See :func:`bootstrap`.
        weights (np.ndarray): See :func:`bootstrap`.
        resamples (int): Number of resamples.
        seed (int): Random seed of the bootstrap.

    Yields:
        np.ndarray: The sums of one resample, (C, G).
    """
    order = np.lexsort((*values, strata))  # independent of the given order
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
    """Estimate the variance of a difference that is due to the seeds.

    Args:
        terms (Sequence[np.ndarray]): See :func:`bootstrap`. Terms with a
            single run are ignored.
        strata (np.ndarray): See :func:`bootstrap`.
        weights (np.ndarray): See :func:`bootstrap`.

    Returns:
        tuple[np.ndarray, np.ndarray]: The variance, 0 or more, and its
        uncertainty: the squared variance of the mean over runs divided by
        its degrees of freedom, summed over the terms. Both (G, ).
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
    """Estimate the variance of the mean over runs.

    Runs differ for two reasons: in their accuracy, and, even with equal
    accuracy, in the images that they classify correctly, which matters for a
    finite number of images. Resampling the images already covers the second
    part. It is estimated as the interaction of runs and images within a
    stratum (two-way analysis of variance).

    Args:
        term (np.ndarray): Values of the images in R >= 2 runs, (R, N).
        strata (np.ndarray): See :func:`bootstrap`.
        weights (np.ndarray): See :func:`bootstrap`.

    Returns:
        tuple[np.ndarray, np.ndarray]: The variance of the mean, and the part
        of it that is due to the finite number of images, each (G, ).
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
    """A difference with the interval of its resamples."""
    images = 0.0 if np.ptp(drawn) == 0 else drawn.var()
    if value != 0 and images + training == 0:
        return Difference(value, math.nan, math.nan)
    degrees = _MANY_DEGREES
    if uncertainty > 0:
        degrees = max((images + training) ** 2 / uncertainty, 1.0)
    # The same noise for all figures, so that equal ones have equal intervals.
    rng = np.random.default_rng([seed, 1])
    noise = math.sqrt(training) * rng.standard_normal(len(drawn))
    few_runs = np.sqrt(rng.chisquare(degrees, len(drawn)) / degrees)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile((drawn - value + noise) / few_runs, (tail, 1 - tail))
    return Difference(float(value), float(value + low), float(value + high))
