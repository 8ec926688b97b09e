import copy

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from test_losses import assert_same, kl, log_softmax, random_logits

from ride_mm.models.losses.distillation_loss import distillation_loss
from ride_mm.structures import BatchDataSample
from ride_mm.utils.errors import UserError

COUNTS = [50, 40, 30, 20, 10, 8, 6, 4, 3, 2]
PIXELS = dict(mean=[0.1] * 3, std=[1.0] * 3, to_rgb=True)


def plain_divergence(student, teacher, temperature):
    """Mean over images of T^2 * KL(teacher || student)."""
    return (
        temperature**2
        * sum(
            kl(log_softmax(t / temperature), log_softmax(s / temperature))
            for s, t in zip(student, teacher)
        )
        / len(teacher)
    )


def test_distillation_loss():
    student, teacher = random_logits(4, 5), random_logits(4, 5, seed=1)
    assert_same(
        distillation_loss(student, teacher.detach(), 1.5),
        plain_divergence(student, teacher.detach(), 1.5),
        student,
    )


def test_students():
    logits = random_logits(3, 4, 5)
    teacher = random_logits(4, 5, seed=1).detach()
    mean = MODELS.build(dict(type='DistillationLoss', weight=0.5))
    expected = 0.5 * plain_divergence(sum(logits) / 3, teacher, 1.5)
    assert_same(mean(logits, teacher), expected, logits)
    each = MODELS.build(dict(type='DistillationLoss', temperature=2.0, student='experts'))
    expected = sum(plain_divergence(z, teacher, 2.0) for z in logits) / 3
    assert_same(each(logits, teacher), expected, logits)
    with pytest.raises(UserError, match='"all" is unknown.*experts'):
        MODELS.build(dict(type='DistillationLoss', student='all'))


# ------------------------------------------------------------- the teacher


@pytest.fixture
def teacher(tiny_model, tmp_path):
    """The options of a teacher with 6 experts, and its model."""
    cfg = copy.deepcopy(tiny_model)
    cfg.num_experts = 6
    torch.manual_seed(7)
    model = MODELS.build(cfg)
    config, checkpoint = tmp_path / 'teacher.py', tmp_path / 'teacher.pth'
    Config(dict(model=cfg, data_preprocessor=PIXELS)).dump(config)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return dict(config=str(config), checkpoint=str(checkpoint)), model.eval()


def build(cfg, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg, **{'data_preprocessor': PIXELS, **kwargs}))
    model.set_class_counts(COUNTS)
    return model


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 3, 16, 16, generator=generator)
    return inputs, BatchDataSample(torch.arange(n) % 10)


def test_the_loss_of_a_distilled_model(tiny_model, teacher):
    options, model = teacher
    plain = build(tiny_model).loss(*batch())
    distilled = build(tiny_model, teacher=options)
    losses = distilled.loss(*batch())
    assert set(losses) - set(plain) == {'loss_distill'}
    for name, value in plain.items():
        assert losses[name] == value
    with torch.no_grad():
        logits = model(batch()[0])
        student = build(tiny_model).train()(batch()[0])
    torch.testing.assert_close(
        losses['loss_distill'].double(),
        plain_divergence(student.double(), logits.double(), 1.5),
        rtol=1e-4,
        atol=1e-5,
    )
    # the official code goes over everything once for each expert
    repeated = build(tiny_model, teacher=dict(options, multiply_losses=True))
    for name, value in repeated.loss(*batch()).items():
        torch.testing.assert_close(value, 3 * losses[name])


def test_the_teacher_only_answers(tiny_model, teacher):
    options, model = teacher
    student = build(tiny_model, teacher=options).train()
    sum(student.loss(*batch()).values()).backward()
    taught = student.teacher.model
    assert not taught.training
    for key, value in model.state_dict().items():
        assert torch.equal(taught.state_dict()[key], value), key
    assert all(p.grad is None for p in taught.parameters())
    assert student.state_dict().keys() == build(tiny_model).state_dict().keys()
    own = {id(parameter) for parameter in student.parameters()}
    assert own.isdisjoint(map(id, taught.parameters()))


def test_the_router_needs_no_teacher(tiny_model, tmp_path):
    missing = dict(config='no.py', checkpoint='no.pth')
    model = build(tiny_model, teacher=missing, stage='router')
    assert set(model.loss(*batch())) == {'loss_router'}
    with torch.no_grad():
        assert len(model.eval().predict(batch()[0])) == 6


def test_any_classifier_is_a_teacher(tiny_model, tmp_path):
    cfg = dict(
        type='ImageClassifier',
        data_preprocessor=PIXELS,
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
    )
    checkpoint = str(tmp_path / 'resnet.pth')
    torch.save(MODELS.build(cfg).state_dict(), checkpoint)
    model = build(tiny_model, teacher=dict(config=cfg, checkpoint=checkpoint))
    assert model.loss(*batch())['loss_distill'] > 0


def test_users_mistakes(tiny_model, teacher):
    options, _ = teacher
    for wrong, message in [
        (dict(options, config='no.py'), 'teacher.config: .* no file no.py'),
        (dict(options, checkpoint='no.pth'), 'teacher.checkpoint: .* no.pth'),
        (dict(config=options['config']), 'Teacher needs checkpoint'),
        (dict(options, temperature=2.0), 'Teacher has no option .temperature.'),
    ]:
        with pytest.raises(UserError, match=message):
            build(tiny_model, teacher=wrong).loss(*batch())
    with pytest.raises(UserError, match='has another architecture'):
        other = copy.deepcopy(Config.fromfile(options['config']).model)
        other.data_preprocessor = PIXELS
        other.backbone.depth = other.neck.expert.depth = 32
        build(tiny_model, teacher=dict(options, config=other)).loss(*batch())
    other = copy.deepcopy(tiny_model)
    other.head.num_classes = 100
    model = MODELS.build(dict(other, teacher=options, data_preprocessor=PIXELS))
    model.set_class_counts(range(1, 101))
    with pytest.raises(UserError, match='10 classes.*num_classes=100'):
        model.loss(*batch())
    model = build(tiny_model, teacher=options, data_preprocessor=dict(PIXELS, mean=[1.0, 2.0, 3.0]))
    with pytest.raises(UserError, match=r'teacher gets .*\[1.0, 2.0, 3.0\]'):
        model.loss(*batch())
