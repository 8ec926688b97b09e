import math

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from ride_mm.analysis import RoutingSimulator, choose_point
from ride_mm.analysis.predictions import Predictions
from ride_mm.analysis.routing.tradeoff import (
    OperatingPoint,
    at_compute,
    by_agreement,
    by_confidence,
    plot_tradeoff,
    route,
    thinned,
)
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.utils.errors import UserError

GROUPS = ClassGroups([150, 120, 60, 10])


def make_predictions(seed=0, num_experts=3, num=40, **changes):
    rng = np.random.default_rng(seed)
    # In steps, so that some images share a level.
    routers = rng.integers(-8, 9, (num_experts - 1, num)) / 4
    fields = dict(
        gt_label=rng.integers(0, 4, num),
        pred_score=np.full((num, 4), 0.25),
        expert_logits=rng.normal(size=(num_experts, num, 4)),
        router_logits=routers.astype(np.float32),
        routed_compute=np.linspace(0.6, 1.02, num_experts),
    )
    return Predictions(**dict(fields, **changes))


def plain_point(predictions, thresholds):
    """Route image by image, in plain Python."""
    right, compute = {}, 0.0
    for n, label in enumerate(predictions.gt_label):
        used = 1
        for k, threshold in enumerate(thresholds):
            logit = float(predictions.router_logits[k, n])
            if not 1 / (1 + math.exp(-logit)) > threshold:
                break
            used += 1
        mean = predictions.expert_logits[:used, n].sum(0) / used
        group = ('many', 'many', 'medium', 'few')[label]
        for name in ('overall', group):
            right.setdefault(name, []).append(mean.argmax() == label)
        compute += predictions.routed_compute[used - 1]
    return compute / len(predictions), {
        name: 100 * sum(hits) / len(hits) for name, hits in right.items()
    }


def assert_point(point, expected):
    compute, accuracy = expected
    assert point.compute == pytest.approx(compute)
    assert point.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize('num_experts', [2, 3, 4])
def test_every_point_of_the_curve(num_experts):
    predictions = make_predictions(num_experts, num_experts)
    curve = RoutingSimulator(predictions, GROUPS).curve()
    # A router's decision changes only at its probability of an image.
    levels = np.unique(np.minimum.accumulate(predictions.router_logits))
    assert len(curve) == len(levels) + 1
    assert curve[0].threshold == 0 and curve[-1].threshold == 1
    assert (np.diff([point.threshold for point in curve]) > 0).all()
    assert (np.diff([point.compute for point in curve]) < 0).all()
    for point in curve:
        thresholds = [point.threshold] * (num_experts - 1)
        assert_point(point, plain_point(predictions, thresholds))


def test_one_threshold_per_router():
    predictions = make_predictions()
    simulator = RoutingSimulator(predictions, GROUPS)
    for thresholds in ([0.3, 0.7], [0.9, 0.1], [0.0, 1.0]):
        point = simulator.at(thresholds)
        assert point.threshold == thresholds
        assert_point(point, plain_point(predictions, thresholds))
    ends = [[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0)]
    grid = simulator.grid()
    assert all(end in [point.threshold for point in grid] for end in ends)
    assert len(grid) == 70**2


def test_probabilities_that_round_to_one():
    """Every point of the curve can be reached by a threshold."""
    routers = np.array([[-1.0, 3.0, 50.0, 60.0]], dtype=np.float32)
    predictions = make_predictions(num=4, num_experts=2, router_logits=routers)
    curve = RoutingSimulator(predictions, GROUPS).curve()
    thresholds = [0, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-26.5)), 1]
    assert [point.threshold for point in curve] == pytest.approx(thresholds)
    for expected in curve:
        point = RoutingSimulator(predictions, GROUPS).at([expected.threshold])
        assert point.compute == pytest.approx(expected.compute)


@pytest.mark.parametrize('num_experts', [2, 3, 4])
def test_confidence_instead_of_routers(num_experts):
    predictions = by_confidence(make_predictions(num_experts=num_experts))
    for n in range(len(predictions)):
        for k in range(num_experts - 1):
            logits = predictions.expert_logits[: k + 1, n].mean(0)
            p = max(np.exp(logits) / np.exp(logits).sum())
            assert predictions.router_logits[k, n] == pytest.approx(math.log((1 - p) / p))
    certain = make_predictions(num=2, expert_logits=np.eye(4)[[[0, 1]] * 3] * 1e3)
    assert by_confidence(certain).router_logits == pytest.approx(math.log(3) - 1e3)
    curve = RoutingSimulator(predictions, GROUPS).curve()
    assert at_compute(curve, 2.0) is curve[0] and at_compute(curve, 0.0) is curve[-1]


def test_agreement_instead_of_routers():
    votes = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [2, 3, 1, 1]])
    predictions = make_predictions(num_experts=4, num=4, expert_logits=np.eye(4)[votes])
    used = route(by_agreement(predictions), 0.5).num_experts_used
    assert used.tolist() == [2, 4, 2, 2]


def test_the_model_does_what_was_simulated(tiny_model):
    torch.manual_seed(0)
    model = MODELS.build(tiny_model).eval()
    model.head.router.num_updates += 1
    model.test_cfg.update(mode='ensemble', expert_logits=True)
    x, labels = torch.randn(40, 3, 16, 16), torch.arange(40) % 10
    with torch.no_grad():
        samples = model.predict(x)
    model.add_compute(samples, (3, 16, 16))
    fields = {
        name: torch.stack([s.get(name) for s in samples]).numpy()
        for name in ('expert_logits', 'router_logits', 'routed_compute')
    }
    counts = [500, 400, 300, 200, 90, 60, 30, 10, 8, 5]
    predictions = Predictions(
        labels.numpy(),
        np.full((len(labels), 10), 0.1),
        expert_logits=fields['expert_logits'].swapaxes(0, 1),
        router_logits=fields['router_logits'].T,
        routed_compute=fields['routed_compute'][0],
    )
    curve = RoutingSimulator(predictions, ClassGroups(counts)).curve()
    for point in (curve[len(curve) // 3], curve[len(curve) // 2]):
        model.test_cfg.update(mode='route', threshold=point.threshold, expert_logits=False)
        with torch.no_grad():
            routed = model.predict(x)
        model.add_compute(routed, (3, 16, 16))
        assert point.compute == pytest.approx(
            np.mean([sample.relative_compute for sample in routed])
        )
        hits = [s.pred_label.item() == y for s, y in zip(routed, labels)]
        assert point.accuracy['overall'] == pytest.approx(100 * np.mean(hits))
        simulated = route(predictions, [point.threshold] * 2)
        for name in ('num_experts_used', 'relative_compute', 'pred_label'):
            assert getattr(simulated, name) == pytest.approx(
                [float(sample.get(name)) for sample in routed]
            )
        assert simulated.pred_score == pytest.approx(
            torch.stack([s.pred_score for s in routed]).numpy(), abs=1e-6
        )


def points():
    return [
        OperatingPoint(t, compute, dict(overall=overall, few=few))
        for t, compute, overall, few in [
            (0.0, 1.0, 50.0, 30.0),
            (0.2, 0.9, 52.0, 28.0),
            (0.5, 0.8, 52.0, 20.0),
            (1.0, 0.6, 40.0, 10.0),
        ]
    ]


@pytest.mark.parametrize(
    'wanted, threshold',
    [
        (dict(budget=1.0), 0.5),
        (dict(budget=0.7), 1.0),
        (dict(budget=0.95, group='few'), 0.2),
        (dict(accuracy=50.0), 0.5),
        (dict(accuracy=25.0, group='few'), 0.2),
        (dict(accuracy=0.0), 1.0),
    ],
)
def test_choice(wanted, threshold):
    assert choose_point(points(), **wanted).threshold == threshold


@pytest.mark.parametrize(
    'wanted, message',
    [
        (
            dict(budget=0.5),
            'below the minimum, one expert on every image: '
            r'0.6000, with an accuracy of 40.00 % \(overall\)',
        ),
        (dict(budget=0.5, group='few'), r'an accuracy of 10.00 % \(few\)'),
        (dict(accuracy=60.0), 'the best is 52.00 %'),
        (dict(budget=1.0, group='many'), 'no accuracy of "many"'),
    ],
)
def test_impossible_choices(wanted, message):
    with pytest.raises(UserError, match=message):
        choose_point(points(), **wanted)


def test_predictions_without_routers():
    with pytest.raises(UserError, match='--all-experts'):
        RoutingSimulator(make_predictions(router_logits=None), GROUPS)


def test_thinned_and_drawn(tmp_path):
    curve = RoutingSimulator(make_predictions(num=2000), GROUPS).curve()
    thin = thinned(curve, 5)
    assert len(thin) == 5
    assert (thin[0], thin[4]) == (curve[0], curve[-1])
    path = plot_tradeoff(curve, {'0.5': thin[2]}, tmp_path / 'new' / 't.svg')
    assert '<svg' in path.read_text() and 'medium' in path.read_text()
