import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from ride_mm.models.losses.diversity_loss import mean_divergence
from ride_mm.models.losses.ldam_loss import ldam_margins
from ride_mm.utils.errors import UserError

COUNTS = [400, 90, 30, 7, 2]


def build_head(**kwargs):
    head = MODELS.build(
        dict(type='RIDEHead', num_classes=5, in_channels=8, num_experts=3, **kwargs)
    ).double()
    head.set_class_counts(COUNTS)
    return head


def inputs(n=6):
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(3, n, 8, generator=generator, dtype=torch.float64).unbind()
    return feats, torch.randint(5, (n,), generator=generator)


def test_cosine_classifier():
    layer = MODELS.build(
        dict(type='CosineClassifier', in_features=8, out_features=5, scale=20)
    ).double()
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(5).double())
    x = inputs()[0][0]
    expected = torch.tensor(
        [[20 * float(a @ b) / float(a.norm()) / float(b.norm()) for b in layer.weight] for a in x]
    ).double()
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


def test_cosine_classifier_is_full_precision_under_autocast():
    layer = MODELS.build(dict(type='CosineClassifier', in_features=8, out_features=5))
    x = torch.randn(4, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(x), rtol=0, atol=0)
    assert layer(torch.zeros(1, 8)).isfinite().all()


def test_expert_loss_is_the_sum_over_experts():
    head = build_head(diversity=dict(type='DiversityLoss', weight=0.45))
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    weights, divisor = head.sample_weights(labels)
    losses = head.expert_loss(logits, labels, weights, divisor)
    margins = 30 * ldam_margins(COUNTS).float().double()
    expected = sum(
        F.cross_entropy(z - margins[labels][:, None] * F.one_hot(labels, 5), labels) for z in logits
    )
    torch.testing.assert_close(losses['loss_cls'], expected)
    torch.testing.assert_close(
        losses['loss_diversity'], -0.45 * mean_divergence(logits, torch.ones(1).double())
    )


def test_diversity_is_that_of_what_the_losses_fit():
    head = build_head(
        loss=[
            dict(type='CrossEntropyLoss'),
            dict(type='BalancedSoftmaxLoss'),
            dict(type='LDAMLoss'),
        ],
        diversity=dict(type='DiversityLoss', weight=0.45),
    )
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    losses = head.expert_loss(logits, labels, *head.sample_weights(labels))

    fitted = logits.detach().numpy().copy()
    fitted[1] += np.log(np.array(COUNTS) / sum(COUNTS))
    p = np.exp(fitted) / np.exp(fitted).sum(-1, keepdims=True)
    mean = np.exp(fitted.mean(0))
    mean /= mean.sum(-1, keepdims=True)
    divergence = (mean * np.log(mean / p)).sum() / len(labels)
    assert losses['loss_diversity'].item() == pytest.approx(-0.45 * divergence, rel=1e-6)


def test_reweighted_loss_is_torch_weighted_mean():
    head = build_head(loss=dict(type='CrossEntropyLoss'))
    head.set_reweighting(0.9999)
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    losses = head.expert_loss(logits, labels, *head.sample_weights(labels))
    expected = sum(F.cross_entropy(z, labels, weight=head.class_weights) for z in logits)
    torch.testing.assert_close(losses['loss_cls'], expected, rtol=1e-6, atol=1e-6)
    head.set_reweighting(None)
    assert head.class_weights.eq(1).all()


def test_no_diversity_changes_nothing_else():
    feats, labels = inputs()
    torch.manual_seed(0)
    without = build_head()
    torch.manual_seed(0)
    zero = build_head(diversity=dict(type='DiversityLoss', weight=0.0))
    results = []
    for head in (without, zero):
        logits = head.expert_logits(feats)
        results.append(head.expert_loss(logits, labels, *head.sample_weights(labels)))
    assert 'loss_diversity' not in results[0]
    assert results[1]['loss_diversity'] == 0
    assert results[0]['loss_cls'] == results[1]['loss_cls']


def test_joint_loss_is_the_ensembles():
    head = build_head(joint_loss=True, loss=dict(type='CrossEntropyLoss'))
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    losses = head.expert_loss(logits, labels, *head.sample_weights(labels))
    torch.testing.assert_close(losses['loss_cls'], 3 * F.cross_entropy(logits.mean(0), labels))
    assert list(losses) == ['loss_cls']


def test_losses_of_the_experts_have_no_gradient():
    head = build_head(loss=dict(type='CrossEntropyLoss'))
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    losses = head.expert_loss(logits, labels, *head.sample_weights(labels))
    for k in range(3):
        found = losses[f'expert/cls_{k + 1}']
        torch.testing.assert_close(found, F.cross_entropy(logits[k], labels))
        assert not found.requires_grad
    assert losses['loss_cls'].requires_grad


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='CrossEntropyLoss'),
        dict(type='SoftmaxFocalLoss'),
        dict(type='LDAMLoss'),
        dict(type='BalancedSoftmaxLoss'),
        dict(type='ClassBalancedLoss'),
        dict(type='SeesawLoss', num_classes=5),
        dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=5),
    ],
)
@pytest.mark.parametrize('joint_loss', [False, True])
def test_any_loss_of_mmpretrain_convention(loss, joint_loss):
    head = build_head(loss=loss, joint_loss=joint_loss)
    head.set_reweighting(0.9999)
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    weights = head.sample_weights(labels)
    value = head.expert_loss(logits, labels, *weights)['loss_cls']
    assert value.isfinite() and value > 0
    one_hot = F.one_hot(labels, 5).double()
    same = head.expert_loss(logits, labels, *weights, one_hot)['loss_cls']
    if loss['type'] != 'SeesawLoss':  # it counts on
        torch.testing.assert_close(same, value)
    mixed = 0.75 * one_hot + 0.25 * one_hot.roll(1, 0)
    other = head.expert_loss(logits, labels, *weights, mixed)['loss_cls']
    assert other.isfinite() and other != value


def test_linear_classifier_has_no_scale():
    head = build_head(classifier=dict(type='LinearClassifier'))
    assert [loss.scale for loss in head.losses] == [1.0] * 3


def test_a_loss_inside_a_loss_has_the_scale_of_the_classifier():
    head = build_head(loss=dict(type='ClassBalancedLoss', loss=dict(type='LDAMLoss')))
    assert [loss.loss_module.scale for loss in head.losses] == [30] * 3


def test_every_expert_has_its_own_loss():
    """The recipe of SADE."""
    cfgs = [
        dict(type='CrossEntropyLoss'),
        dict(type='BalancedSoftmaxLoss'),
        dict(type='InverseSoftmaxLoss', tau=2.0),
    ]
    head = build_head(loss=cfgs)
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    value = head.expert_loss(logits, labels, *head.sample_weights(labels))['loss_cls']
    prior = torch.tensor(COUNTS).double() / sum(COUNTS)
    offsets = (0, prior.log(), prior.log() - 2 * prior.flip(0).log())
    expected = sum(F.cross_entropy(z + offset, labels) for z, offset in zip(logits, offsets))
    # The offsets are kept in float32.
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def test_seesaw_loss_counts_an_image_once():
    head = build_head(loss=dict(type='SeesawLoss', num_classes=5))
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    head.expert_loss(logits, labels, *head.sample_weights(labels))
    for loss in head.losses:
        assert torch.equal(loss.cum_samples.long(), labels.bincount(minlength=5))


def test_logit_adjustment_after_training():
    head = build_head()
    logits = head(inputs()[0])
    prior = torch.tensor(COUNTS).double() / sum(COUNTS)
    torch.testing.assert_close(
        head.adjust(logits, 1.5).softmax(1), F.normalize(logits.softmax(1) / prior**1.5, p=1)
    )
    assert head.adjust(logits, 0) is logits
    head.class_counts = None
    with pytest.raises(UserError, match='logit_adjustment=1.*class_counts'):
        head.adjust(logits, 1.0)


def test_users_mistakes():
    head = build_head()
    head.class_counts = None
    with pytest.raises(UserError, match='ClassCountsHook'):
        head.set_reweighting(0.9999)
    with pytest.raises(UserError, match='5 classes'):
        head.set_class_counts([1, 2, 3])
    with pytest.raises(UserError, match='no training image'):
        head.set_class_counts([5, 0, 3, 2, 1])
    with pytest.raises(UserError, match='lists 2 losses.*3 experts'):
        build_head(loss=[dict(type='LDAMLoss')] * 2)
    with pytest.raises(UserError, match='joint_loss=True .* list'):
        build_head(loss=[dict(type='LDAMLoss')] * 3, joint_loss=True)
    with pytest.raises(UserError, match='topk=30 .* classes, 5'):
        build_head(router=dict(type='ExpertRouter'))
    with pytest.raises(UserError, match='at least 2 experts'):
        MODELS.build(
            dict(
                type='RIDEHead',
                num_classes=5,
                in_channels=8,
                num_experts=1,
                router=dict(type='ExpertRouter', topk=3),
            )
        )


def test_router_inputs():
    head = build_head(router=dict(type='ExpertRouter', topk=3))
    feats, labels = inputs()
    logits = head.expert_logits(feats)
    router = head.router
    mean = (logits[0] + logits[1]) / 2
    top = mean.sort(dim=1, descending=True).values[:, :3]
    unit = feats[1] / feats[1].norm(dim=1, keepdim=True)
    layer = router.hidden_fcs[1]
    hidden = (unit @ layer.weight.T + layer.bias).clamp(min=0)
    expected = torch.cat((top, hidden), 1) @ router.fc.weight[0] + router.fc.bias
    torch.testing.assert_close(router(1, feats[1], mean), expected)
    assert not router.trained
    router.loss(router.inputs(feats, logits, labels)).backward()
    assert router.trained
    assert 'num_updates' in router.state_dict()
