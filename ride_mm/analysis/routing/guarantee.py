"""The cheapest threshold that keeps a promise on new images.

Learn then Test (Angelopoulos et al., "Learn then Test: Calibrating Predictive
Algorithms to Achieve Risk Control", 2021) in fixed sequence: from a threshold
of 0, at which all experts run on every image, upwards, until the hypothesis
that the promise is broken cannot be rejected.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from ride_mm.utils.errors import UserError

from .tradeoff import OperatingPoint, RoutingSimulator

# Logits of the thresholds to test, fixed before any image is seen: thresholds
# that were derived from the images would not be covered by the tests.
_LOGITS = np.linspace(-20, 20, 4001)
# Order of the images, which in a data set are sorted by class.
_SEED = 0

Test = Callable[[np.ndarray, float, float], bool]


def mean_is_below(losses: np.ndarray, limit: float, delta: float) -> bool:
    """Test whether the mean of a loss from -1 to 1 is at most a limit.

    A bet on each image in turn, whose stake depends on the earlier images;
    the capital exceeds 1 / delta with a probability of at most delta if the
    mean is above the limit. Waudby-Smith and Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 2023; stakes as in Bates et
    al., "Distribution-Free, Risk-Controlling Prediction Sets", JACM 2021,
    proposition 5.

    Args:
        losses (np.ndarray): Losses of N images in random order, (N, ).
        limit (float): The limit.
        delta (float): Largest probability of a wrong True.

    Returns:
        bool: Whether the mean is at most the limit.
    """
    scaled, limit = (losses + 1) / 2, (limit + 1) / 2
    number = np.arange(1, len(losses) + 1)
    means = (0.5 + np.cumsum(scaled)) / (1 + number)
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (1 + number)
    before = np.concatenate([[0.25], variances[:-1]])
    stakes = np.minimum(1, np.sqrt(2 * np.log(1 / delta) / (len(losses) * before)))
    capital = np.cumsum(np.log1p(stakes * (limit - scaled)))
    return bool(capital.max() >= np.log(1 / delta))


def share_is_below(losses: np.ndarray, limit: float, delta: float) -> bool:
    """Test whether the mean of a loss of 0 or 1 is at most a limit.

    Args:
        losses (np.ndarray): Losses of N images, (N, ).
        limit (float): The limit.
        delta (float): Largest probability of a wrong True.

    Returns:
        bool: Whether the mean is at most the limit, by the exact binomial
        test.
    """
    return bool(binom.cdf(np.count_nonzero(losses), len(losses), limit) <= delta)


def guaranteed_point(
    simulator: RoutingSimulator,
    limit: float,
    confidence: float = 0.9,
    each_group: bool = False,
    disagreement: bool = False,
) -> OperatingPoint:
    """Choose the cheapest threshold that is as good as all experts, within a limit.

    With probability ``confidence`` over the images given, this holds on new
    images of the same distribution. One threshold holds for all routers. For
    several groups no correction is needed: the first threshold that breaks a
    promise is passed only if the test of its group errs.

    Args:
        simulator (RoutingSimulator): Images that were neither trained nor
            tested on.
        limit (float): Largest loss of accuracy, or share of images with
            another answer than that of all experts; 0.01 is one point.
        confidence (float): Probability that the promise holds. Defaults to
            0.9.
        each_group (bool): Whether the promise holds for the images of each
            class group, not only for all. Defaults to False.
        disagreement (bool): Whether it is about disagreement, not accuracy.
            Defaults to False.

    Returns:
        OperatingPoint: The point; at a threshold of 0 all experts run.

    Raises:
        UserError: If a number is out of range, or there are too few images for
            any threshold but 0.
    """
    for name, value in (('limit', limit), ('confidence', confidence)):
        if not 0 < value < 1:
            raise UserError(f'{name}={value:g} must be above 0 and below 1')
    test: Test = share_is_below if disagreement else mean_is_below
    order = np.random.default_rng(_SEED).permutation(len(simulator.hits[0]))
    names = list(simulator.members) if each_group else ['overall']
    members = [order[simulator.members[name][order]] for name in names]
    _check_number(dict(zip(names, map(len, members))), test, limit, 1 - confidence)
    chosen = 0.0
    for logit, losses in _losses(simulator, disagreement):
        if not all(test(losses[images], limit, 1 - confidence) for images in members):
            break
        chosen = float(expit(logit))
    return simulator.at([chosen] * len(simulator.router_logits))


def _losses(simulator: RoutingSimulator, disagreement: bool) -> Iterator[tuple[float, np.ndarray]]:
    """Logit of each threshold that changes the routing, and the losses, (N, )."""
    # From this logit on an image stops after k experts at the latest.
    doubt = np.minimum.accumulate(simulator.router_logits)
    images = np.arange(doubt.shape[1])
    before = -np.inf
    for logit in _LOGITS:
        if ((before < doubt) & (doubt <= logit)).any():
            used = (doubt > logit).sum(0)
            if disagreement:
                losses = simulator.answers[used, images] != simulator.answers[-1]
            else:
                losses = simulator.hits[-1].astype(int) - simulator.hits[used, images]
            yield logit, losses
            before = logit


def _check_number(sizes: dict[str, int], test: Test, limit: float, delta: float) -> None:
    """Refuse numbers of images that could not show the promise at all."""

    def is_enough(number: int) -> bool:
        return test(np.zeros(number), limit, delta)

    for name, number in sizes.items():
        if not is_enough(number):
            fewer, enough = number, 2 * number
            while not is_enough(enough):
                fewer, enough = enough, 2 * enough
            while enough - fewer > 1:
                middle = (fewer + enough) // 2
                fewer, enough = (fewer, middle) if is_enough(middle) else (middle, enough)
            raise UserError(
                f'{number} images ({name}) are too few for a limit of {limit:g} with a confidence '
                f'of {1 - delta:g}: at least {enough} are needed, more if routing makes mistakes'
            )
