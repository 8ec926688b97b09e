"""Promises about new images are kept."""

import math

import numpy as np
import pytest
import torch
from test_tradeoff import GROUPS, make_predictions

from ride_mm.analysis import RoutingSimulator, guaranteed_point
from ride_mm.analysis.routing.guarantee import mean_is_below, share_is_below
from ride_mm.models.routing import experts_used
from ride_mm.utils.errors import UserError

DELTA = 0.1


def plain_capital(losses, limit, delta):
    """The largest capital of the bets, in plain Python."""
    limit, number = (limit + 1) / 2, len(losses)
    total, squares, variance = 0.5, 0.25, 0.25
    capital = most = 1.0
    for count, loss in enumerate(losses, start=1):
        loss = (loss + 1) / 2
        stake = min(1.0, math.sqrt(2 * math.log(1 / delta) / (number * variance)))
        capital *= 1 + stake * (limit - loss)
        most = max(most, capital)
        total += loss
        squares += (loss - total / (1 + count)) ** 2
        variance = squares / (1 + count)
    return most


@pytest.mark.parametrize('seed', range(6))
def test_bets_image_by_image(seed):
    rng = np.random.default_rng(seed)
    losses = rng.choice([-1, 0, 1], size=300, p=[0.05, 0.9, 0.05])
    capital = plain_capital(losses.tolist(), 0.05, DELTA)
    for delta in (DELTA, 0.3):
        for limit in (0.01, 0.05, 0.1):
            expected = plain_capital(losses.tolist(), limit, delta) >= 1 / delta
            assert mean_is_below(losses, limit, delta) == expected
    assert capital > 1


def test_binomial_probabilities():
    losses = np.zeros(50)
    for errors in range(6):
        losses[:errors] = 1
        tail = sum(math.comb(50, k) * 0.1**k * 0.9 ** (50 - k) for k in range(errors + 1))
        for delta in (tail * 0.999, tail * 1.001):
            assert share_is_below(losses, 0.1, delta) == (tail <= delta)


@pytest.mark.parametrize(
    'test, values, shares, limit',
    [
        (mean_is_below, [-1, 0, 1], [0.04, 0.9, 0.06], 0.0199),
        (mean_is_below, [-1, 0, 1], [0.0, 0.98, 0.02], 0.0199),
        (share_is_below, [0, 1], [0.95, 0.05], 0.0499),
    ],
)
def test_a_broken_promise_is_rarely_made(test, values, shares, limit):
    """The mean is just above the limit; the tests may err once in ten."""
    rng = np.random.default_rng(0)
    wrong = [test(rng.choice(values, size=500, p=shares), limit, DELTA) for _ in range(600)]
    assert np.mean(wrong) < DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / len(wrong))


def pool(num, seed=0):
    """Images whose routers know, more or less, where more experts help."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, num)
    logits = rng.normal(size=(3, num, 4)) + rng.normal(size=(num, 4))
    logits[:, np.arange(num), labels] += 1.2
    logits[0, np.arange(num), labels] -= 0.4 * (labels == 3)
    answers = np.cumsum(logits, axis=0).argmax(-1)
    helps = (answers[-1] == labels) & (answers[:-1] != labels)
    routers = 1.5 * helps + rng.normal(size=(2, num))
    return make_predictions(num=num, gt_label=labels, expert_logits=logits, router_logits=routers)


def take(predictions, images):
    return make_predictions(
        gt_label=predictions.gt_label[images],
        pred_score=predictions.pred_score[images],
        expert_logits=predictions.expert_logits[:, images],
        router_logits=predictions.router_logits[:, images],
        num=len(images),
    )


def losses_at(simulator, threshold, disagreement):
    used = experts_used(torch.from_numpy(simulator.router_logits), threshold).numpy() - 1
    images = np.arange(len(used))
    if disagreement:
        return simulator.answers[used, images] != simulator.answers[-1]
    return simulator.hits[-1].astype(int) - simulator.hits[used, images]


@pytest.mark.parametrize('disagreement, limit', [(False, 0.02), (True, 0.06)])
@pytest.mark.parametrize('each_group', [False, True])
def test_promises_on_new_images(disagreement, limit, each_group):
    everything = pool(40_000)
    truth = RoutingSimulator(everything, GROUPS)
    names = list(truth.members) if each_group else ['overall']
    broken, compute = [], []
    for seed in range(60):
        images = np.random.default_rng(seed).choice(40_000, 1500, replace=False)
        simulator = RoutingSimulator(take(everything, images), GROUPS)
        point = guaranteed_point(simulator, limit, 1 - DELTA, each_group, disagreement)
        losses = losses_at(truth, point.threshold[0], disagreement)
        broken.append(max(losses[truth.members[name]].mean() for name in names) > limit)
        compute.append(truth.at(point.threshold).compute)
    assert np.mean(broken) < DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / len(broken))
    assert np.mean(compute) < truth.compute[-1] - 0.02


def test_images_sorted_by_their_loss():
    """The gains come first, as those of some classes may do."""
    num = 2000
    losses = losses_at(RoutingSimulator(pool(num), GROUPS), 1.0, False)
    order = np.argsort(losses)
    assert losses.mean() > 0.05 and mean_is_below(losses[order], 0.02, DELTA)
    simulator = RoutingSimulator(take(pool(num), order), GROUPS)
    chosen = guaranteed_point(simulator, 0.02).threshold[0]
    assert losses_at(simulator, chosen, False).mean() < 0.02


def test_the_group_with_the_largest_loss_decides():
    simulator = RoutingSimulator(pool(6000), GROUPS)
    alone = guaranteed_point(simulator, 0.03)
    each = guaranteed_point(simulator, 0.03, each_group=True)
    assert each.threshold[0] < alone.threshold[0]
    assert each.compute > alone.compute


@pytest.mark.parametrize('disagreement, enough', [(True, 45), (False, None)])
def test_too_few_images(disagreement, enough):
    simulator = RoutingSimulator(pool(40), GROUPS)
    with pytest.raises(UserError, match=r'40 images \(overall\) are too few') as error:
        guaranteed_point(simulator, 0.05, disagreement=disagreement)
    number = int(str(error.value).partition('at least ')[2].split()[0])
    test = share_is_below if disagreement else mean_is_below
    assert test(np.zeros(number), 0.05, DELTA)
    assert not test(np.zeros(number - 1), 0.05, DELTA)
    # 0.95 ** 45 < 0.1 < 0.95 ** 44
    assert enough in (None, number)


@pytest.mark.parametrize('options', [dict(limit=0), dict(limit=1.0), dict(confidence=1)])
def test_numbers_out_of_range(options):
    simulator = RoutingSimulator(pool(500), GROUPS)
    with pytest.raises(UserError, match=f'{next(iter(options))}=.* above 0 and below 1'):
        guaranteed_point(simulator, **dict(dict(limit=0.1), **options))
