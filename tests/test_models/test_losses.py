"""Every loss against a plain, looped derivation in float64."""

import math

import pytest
import torch
from mmpretrain.registry import MODELS

from ride_mm.models.losses.class_weights import effective_number_weights
from ride_mm.models.losses.classification_loss import classification_loss, split_soft_label
from ride_mm.models.losses.diversity_loss import (
    class_temperature,
    mean_divergence,
    pairwise_divergence,
)
from ride_mm.models.losses.focal_loss import softmax_focal_loss
from ride_mm.models.losses.ldam_loss import ldam_loss, ldam_margins
from ride_mm.models.losses.routing_loss import router_targets, routing_loss
from ride_mm.utils.errors import UserError

CIFAR_COUNTS = [int(500 * 0.01 ** (c / 99)) for c in range(100)]
COUNTS = [400, 90, 30, 7, 2]


def random_logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return logits.requires_grad_()


def random_labels(n, k, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(k, (n,), generator=generator)


def log_softmax(row):
    top = max(float(v.detach()) for v in row)
    total = sum(torch.exp(v - top) for v in row)
    return [v - top - torch.log(total) for v in row]


def kl(log_p, log_q):
    return sum(torch.exp(a) * (a - b) for a, b in zip(log_p, log_q))


def assert_same(actual, expected, leaf):
    """Equal values and equal gradients."""
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    grads = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in (actual, expected)]
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------- LDAM


def test_ldam_margins():
    margins = ldam_margins(COUNTS, 0.5)
    for margin, count in zip(margins.tolist(), COUNTS):
        assert margin == pytest.approx(0.5 * (2 / count) ** 0.25, rel=1e-14)


def test_ldam_margins_on_cifar100_lt():
    scaled = 30 * ldam_margins(CIFAR_COUNTS, 0.5)
    assert scaled[0].item() == pytest.approx(4.74, abs=0.005)
    assert scaled[-1].item() == 15.0


def soft_labels(labels, others, shares, k):
    """Shares of two classes an image, (N, K)."""
    soft = torch.zeros(len(labels), k, dtype=torch.float64)
    for n, (one, other, share) in enumerate(zip(labels, others, shares)):
        soft[n, one] += share
        soft[n, other] += 1 - share
    return soft


def plain_ldam(row, label, margins):
    """Log probabilities after the label's logit is lowered."""
    return log_softmax([value - margins[c] if c == label else value for c, value in enumerate(row)])


@pytest.mark.parametrize('weighted', [False, True])
def test_ldam_loss(weighted):
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    loss = MODELS.build(dict(type='LDAMLoss', scale=30, class_counts=COUNTS)).double()
    margins = 30 * ldam_margins(COUNTS).float().double()
    weights = effective_number_weights(COUNTS, 0.9999)
    total, divisor = 0.0, 0.0
    for row, label in zip(logits, labels.tolist()):
        weight = weights[label] if weighted else 1.0
        total = total - weight * plain_ldam(row, label, margins)[label]
        divisor = divisor + weight
    sample_weight = weights[labels] if weighted else None
    actual = loss(
        logits, labels, weight=sample_weight, avg_factor=sample_weight.sum() if weighted else None
    )
    assert_same(actual, total / divisor, logits)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_ldam_margin_of_a_mixture_is_the_label_s(smoothing):
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    soft = soft_labels(labels, random_labels(6, 5, seed=2), [1.0, 0.9, 0.5, 0.3, 0.0, 0.7], 5)
    margins = 30 * ldam_margins(COUNTS)
    expected = 0.0
    for n, label in enumerate(labels.tolist()):
        log_p = plain_ldam(logits[n], label, margins)
        shares = (1 - smoothing) * soft[n] + smoothing / 5
        expected = expected - sum(shares[c] * log_p[c] for c in range(5))
    actual = ldam_loss(logits, labels, margins, soft, smoothing)
    assert_same(actual.sum(), expected, logits)


def test_ldam_module_needs_counts():
    loss = MODELS.build(dict(type='LDAMLoss'))
    with pytest.raises(UserError, match='ClassCountsHook'):
        loss(random_logits(2, 5), random_labels(2, 5))


def test_ldam_module_scales_margins():
    loss = MODELS.build(dict(type='LDAMLoss', scale=16, class_counts=COUNTS))
    logits, labels = random_logits(4, 5), random_labels(4, 5)
    expected = ldam_loss(logits, labels, 16 * ldam_margins(COUNTS).float().double())
    torch.testing.assert_close(loss(logits, labels), expected.mean())
    torch.testing.assert_close(loss(logits, labels, reduction_override='none'), expected)
    assert not loss.state_dict()


# ------------------------------------------------------------------ focal


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_softmax_focal_loss(gamma):
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    expected = 0.0
    for row, label in zip(logits, labels.tolist()):
        log_p = log_softmax(row)[label]
        expected = expected - (1 - torch.exp(log_p)) ** gamma * log_p
    assert_same(softmax_focal_loss(logits, labels, gamma).sum(), expected, logits)


def test_softmax_focal_loss_of_a_mixture():
    logits, labels = random_logits(4, 5), random_labels(4, 5)
    soft = soft_labels(labels, random_labels(4, 5, seed=2), [1.0, 0.8, 0.3, 0.0], 5)
    expected = 0.0
    for row, shares in zip(logits, soft):
        for share, log_p in zip(shares, log_softmax(row)):
            expected = expected - share * (1 - torch.exp(log_p)) ** 2 * log_p
    assert_same(softmax_focal_loss(logits, soft, 2.0).sum(), expected, logits)
    loss = MODELS.build(dict(type='SoftmaxFocalLoss'))
    torch.testing.assert_close(loss(logits, labels, soft_label=soft), expected / 4)


def test_softmax_focal_loss_of_a_sure_prediction_has_a_gradient():
    logits = torch.tensor([[80.0, 0.0, 0.0]], requires_grad=True)
    softmax_focal_loss(logits, torch.tensor([0]), 0.5).sum().backward()
    assert logits.grad.isfinite().all()


# ------------------------------------------------------- logit adjustment


def build_exactly(**cfg):
    """A loss whose buffer is not rounded to float32."""
    loss = MODELS.build(cfg)
    loss.class_values = loss.values_of(COUNTS)
    return loss


def test_balanced_softmax_loss():
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    expected = 0.0
    for row, label in zip(logits, labels.tolist()):
        terms = [n * torch.exp(z) for n, z in zip(COUNTS, row)]
        expected = expected - torch.log(terms[label] / sum(terms))
    loss = build_exactly(type='BalancedSoftmaxLoss')
    assert_same(loss(logits, labels), expected / 6, logits)


@pytest.mark.parametrize('tau', [0.0, 1.0, 1.5])
def test_logit_adjustment_loss(tau):
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    expected = 0.0
    for row, label in zip(logits, labels.tolist()):
        terms = [(n / sum(COUNTS)) ** tau * torch.exp(z) for n, z in zip(COUNTS, row)]
        expected = expected - torch.log(terms[label] / sum(terms))
    loss = build_exactly(type='LogitAdjustmentLoss', tau=tau)
    assert_same(loss(logits, labels), expected / 6, logits)


def test_inverse_softmax_loss():
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    # not in order of size, and two of a size
    counts = [30, 400, 7, 2, 7]
    inverse = [7, 2, 30, 400, 7]
    expected = 0.0
    for row, label in zip(logits, labels.tolist()):
        terms = [
            n / sum(counts) / (m / sum(counts)) ** 2 * torch.exp(z)
            for n, m, z in zip(counts, inverse, row)
        ]
        expected = expected - torch.log(terms[label] / sum(terms))
    loss = MODELS.build(dict(type='InverseSoftmaxLoss'))
    loss.class_values = loss.values_of(counts)
    assert_same(loss(logits, labels), expected / 6, logits)


def test_inverse_softmax_of_a_reversed_list():
    loss = MODELS.build(dict(type='InverseSoftmaxLoss', tau=1.0))
    offsets = loss.values_of(COUNTS)
    expected = torch.tensor(COUNTS).double() / torch.tensor(COUNTS[::-1])
    torch.testing.assert_close(offsets, expected.log())


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='BalancedSoftmaxLoss'),
        dict(type='LogitAdjustmentLoss', tau=2.0),
        dict(type='InverseSoftmaxLoss'),
    ],
)
def test_logit_adjustment_of_a_mixture(cfg):
    logits, labels = random_logits(4, 5), random_labels(4, 5)
    others = random_labels(4, 5, seed=2)
    shares = torch.tensor([1.0, 0.8, 0.3, 0.0]).double()
    loss = build_exactly(**cfg)
    parts = [loss(logits, target, reduction_override='none') for target in (labels, others)]
    expected = (shares * parts[0] + (1 - shares) * parts[1]).mean()
    soft = soft_labels(labels, others, shares, 5)
    assert_same(loss(logits, labels, soft_label=soft), expected, logits)


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='BalancedSoftmaxLoss'),
        dict(type='ClassBalancedLoss'),
        dict(type='InverseSoftmaxLoss'),
        dict(type='LogitAdjustmentLoss'),
    ],
)
def test_losses_that_need_counts(cfg):
    logits, labels = random_logits(4, 5), random_labels(4, 5)
    loss = MODELS.build(cfg)
    with pytest.raises(UserError, match=f'{cfg["type"]} has no class'):
        loss(logits, labels)
    loss.set_class_counts(COUNTS)
    given = MODELS.build(dict(cfg, class_counts=COUNTS))
    assert torch.equal(loss(logits, labels), given(logits, labels))
    assert not loss.state_dict()


# --------------------------------------------------------- class-balanced


def plain_weights():
    """Effective numbers by their sum 1 + b + b^2 + ..., then scaled."""
    weights = [1 / sum(0.99**i for i in range(n)) for n in COUNTS]
    return [5 * weight / sum(weights) for weight in weights]


@pytest.mark.parametrize(
    'inner, gamma',
    [
        (dict(type='CrossEntropyLoss'), 0),
        (dict(type='SoftmaxFocalLoss', gamma=2.0), 2),
    ],
)
def test_class_balanced_loss(inner, gamma):
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    weights = plain_weights()
    expected = 0.0
    for row, label in zip(logits, labels.tolist()):
        log_p = log_softmax(row)[label]
        expected = expected - weights[label] * (1 - torch.exp(log_p)) ** gamma * log_p
    loss = build_exactly(type='ClassBalancedLoss', loss=inner, beta=0.99)
    assert_same(loss(logits, labels), expected / 6, logits)


def test_class_balanced_loss_tells_the_inner_loss_the_counts():
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    inner = MODELS.build(dict(type='LDAMLoss', class_counts=COUNTS))
    loss = MODELS.build(dict(type='ClassBalancedLoss', loss=dict(type='LDAMLoss')))
    loss.set_class_counts(COUNTS)
    weights = effective_number_weights(COUNTS).float()[labels]
    torch.testing.assert_close(
        loss(logits, labels), (weights * inner(logits, labels, reduction_override='none')).mean()
    )


# ------------------------------------------------------------ mixed images


def test_split_soft_label():
    labels = torch.tensor([0, 1, 2, 3])
    soft = soft_labels(labels, [4, 0, 2, 1], [0.7, 0.2, 0.6, 0.0], 5)
    other, share = split_soft_label(labels, soft)
    assert other.tolist() == [4, 0, 2, 1]
    assert share.tolist() == pytest.approx([0.7, 0.2, 1.0, 0.0])


def test_a_loss_of_class_indices_on_mixed_images():
    logits, labels = random_logits(6, 5), random_labels(6, 5)
    soft = soft_labels(labels, random_labels(6, 5, seed=2), [1.0, 0.875, 0.5, 0.25, 0.0, 0.75], 5)
    # Powers of two: mmpretrain rounds weights to float32.
    weights = torch.tensor([0.5, 1.0, 0.25, 2.0, 4.0, 1.0]).double()
    expected = 0.0
    for row, shares, weight in zip(logits, soft, weights):
        for share, log_p in zip(shares, log_softmax(row)):
            expected = expected - weight * share * log_p
    loss = MODELS.build(dict(type='CrossEntropyLoss'))
    actual = classification_loss(loss, logits, labels, soft, weight=weights, avg_factor=3.0)
    assert_same(actual, expected / 3, logits)


def test_seesaw_loss_on_mixed_images():
    """Its counters take both classes of a mixture, and no third one."""
    logits, labels = random_logits(3, 5), torch.tensor([1, 2, 3])
    soft = soft_labels(labels, [1, 4, 4], [1.0, 0.6, 0.2], 5)
    loss = MODELS.build(dict(type='SeesawLoss', num_classes=5))
    value = classification_loss(loss, logits, labels, soft)
    assert value.isfinite() and value > 0
    assert loss.cum_samples.tolist() == [0, 2, 1, 1, 2]


# -------------------------------------------------------------- diversity


@pytest.mark.parametrize('num_experts', [1, 2, 3, 4, 6])
def test_pairwise_divergence(num_experts):
    logits = random_logits(num_experts, 4, 5)
    temperature = class_temperature(COUNTS, 'paper', gamma=0.1)
    actual = pairwise_divergence(logits, temperature)
    if num_experts == 1:
        assert actual.item() == pytest.approx(0, abs=1e-12)
        return
    log_p = [[log_softmax(row / temperature) for row in expert] for expert in logits]
    expected = 0.0
    for i in range(num_experts):
        for j in range(num_experts):
            if i != j:
                for n in range(4):
                    expected = expected + kl(log_p[i][n], log_p[j][n])
    assert_same(actual, expected / (num_experts - 1) / 4, logits)


@pytest.mark.parametrize('num_experts', [1, 2, 3, 4, 6])
def test_mean_divergence(num_experts):
    logits = random_logits(num_experts, 4, 5)
    temperature = class_temperature(COUNTS, 'official', gamma=0.1)
    actual = mean_divergence(logits, temperature)
    if num_experts == 1:
        assert actual.item() == pytest.approx(0, abs=1e-12)
        return
    mean = (sum(expert for expert in logits) / num_experts).detach()
    expected = 0.0
    for n in range(4):
        log_mean = log_softmax(mean[n] / temperature)
        for expert in logits:
            expected = expected + kl(log_mean, log_softmax(expert[n] / temperature))
    mean_temperature = sum(temperature.tolist()) / len(temperature)
    assert_same(actual, mean_temperature**2 * expected / 4, logits)


@pytest.mark.parametrize('weight', [0.45, 1.0])
def test_uniform_mean_divergence_mixes_the_experts_and_the_ensembles_gradient(weight):
    logits, labels = random_logits(3, 4, 5), random_labels(4, 5)
    experts = sum(torch.nn.functional.cross_entropy(expert, labels) for expert in logits)
    ensemble = 3 * torch.nn.functional.cross_entropy(logits.mean(0), labels)
    diverse = experts - weight * mean_divergence(logits, torch.ones(1).double())
    mixture = (1 - weight) * experts + weight * ensemble
    gradient, expected = (
        torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (diverse, mixture)
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_class_temperature():
    gamma, total = 0.05, sum(COUNTS)
    psi = [gamma * 5 * n / total + 1 - gamma for n in COUNTS]
    official = class_temperature(COUNTS, 'official', eta=2.0, gamma=gamma)
    paper = class_temperature(COUNTS, 'paper', eta=2.0, gamma=gamma)
    for c in range(5):
        assert official[c].item() == pytest.approx(2 * psi[c] / max(psi))
        assert paper[c].item() == pytest.approx(2 * psi[c] + 2 * (1 - max(psi)))


def test_class_temperature_on_cifar100_lt():
    official = class_temperature(CIFAR_COUNTS, 'official', gamma=0.05)
    paper = class_temperature(CIFAR_COUNTS, 'paper', gamma=0.05)
    assert official.min().item() == pytest.approx(0.807, abs=5e-4)
    assert official.mean().item() == pytest.approx(0.847, abs=5e-4)
    assert paper.min().item() == pytest.approx(0.772, abs=5e-4)
    assert paper.mean().item() == pytest.approx(0.820, abs=5e-4)


def test_diversity_module_official_waits_for_reweighting():
    loss = MODELS.build(dict(type='DiversityLoss', weight=0.45))
    logits = random_logits(3, 4, 5)
    uniform = -0.45 * mean_divergence(logits, torch.ones(1).double())
    torch.testing.assert_close(loss(logits), uniform)
    loss.set_class_counts(COUNTS)
    torch.testing.assert_close(loss(logits), uniform)
    loss.set_reweighting(True)
    temperature = class_temperature(COUNTS).float().double()
    torch.testing.assert_close(loss(logits), -0.45 * mean_divergence(logits, temperature))
    loss.set_reweighting(False)
    torch.testing.assert_close(loss(logits), uniform)


def test_diversity_module_paper_has_temperatures_at_once():
    loss = MODELS.build(dict(type='DiversityLoss', weight=0.2, form='paper'))
    logits = random_logits(3, 4, 5)
    with pytest.raises(UserError, match='ClassCountsHook'):
        loss(logits)
    loss.set_class_counts(COUNTS)
    temperature = class_temperature(COUNTS, 'paper').float().double()
    torch.testing.assert_close(loss(logits), -0.2 * pairwise_divergence(logits, temperature))


def test_diversity_module_mistakes():
    with pytest.raises(UserError, match='expected one of'):
        MODELS.build(dict(type='DiversityLoss', form='pairs'))
    loss = MODELS.build(dict(type='DiversityLoss', form='paper', gamma=0.9))
    with pytest.raises(UserError, match='lower gamma'):
        loss.set_class_counts(COUNTS)


# ----------------------------------------------------------------- router


@pytest.mark.parametrize(
    'form, weight, warned',
    [('paper', 0.05, True), ('paper', 0.02, False), ('official', 0.45, False)],
)
def test_weights_that_drive_experts_apart_are_named(form, weight, warned, monkeypatch):
    said = []
    monkeypatch.setattr(
        'ride_mm.models.losses.diversity_loss.print_log', lambda message, **_: said.append(message)
    )
    MODELS.build(dict(type='DiversityLoss', form=form, weight=weight))
    assert [f'weight={weight}' in line for line in said] == [True] * warned


def test_router_targets_by_hand():
    # Three experts, two classes, label 0; the margin of class 0 over class 1
    # of each expert, image by image.
    margins = torch.tensor(
        [
            [1.0, -1.0, -1.0, -1.0, 1.0],
            [1.0, 2.0, -1.0, -1.0, -3.0],
            [1.0, 0.5, 3.0, -1.0, 3.0],
        ]
    )
    logits = torch.stack((margins, torch.zeros_like(margins)), dim=-1)
    # Ensembles: RRR, WRR, WWR, WWW, RWR.
    expected = [[False, True, True, False, False], [False, False, True, False, True]]
    targets = router_targets(logits, torch.zeros(5, dtype=torch.long))
    assert targets.tolist() == expected


def test_routing_loss():
    logits = random_logits(2, 7)
    targets = torch.rand(2, 7, generator=torch.Generator().manual_seed(3)) > 0.5
    expected = 0.0
    for row, target_row in zip(logits, targets.tolist()):
        for z, target in zip(row, target_row):
            p = 1 / (1 + torch.exp(-z))
            expected = expected - (100 * torch.log(p) if target else 3 * torch.log(1 - p))
    assert_same(routing_loss(logits, targets, 100.0, 3.0), expected / 14, logits)


# -------------------------------------------------------------------- DRW


def test_effective_number_weights():
    weights = effective_number_weights(COUNTS, 0.9999)
    plain = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS]
    for weight, value in zip(weights.tolist(), plain):
        assert weight == pytest.approx(5 * value / sum(plain), rel=1e-10)
    assert weights.sum().item() == pytest.approx(5)


def test_effective_number_weights_on_cifar100_lt():
    weights = effective_number_weights(CIFAR_COUNTS)
    assert weights.min().item() == pytest.approx(0.0449, abs=5e-5)
    assert weights.max().item() == pytest.approx(4.378, abs=5e-4)
    assert math.isclose(weights.sum().item(), 100)
