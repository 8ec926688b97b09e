"""Every loss with every mechanism and every family of networks.

Each pair is built, trained one step and asked for a prediction. What passes
is the page docs/combinations.md, written by
`python tests/test_models/test_combinations.py`.
"""

import copy
import sys
from pathlib import Path

import pytest
import torch
from families import TINY
from mmpretrain.registry import MODELS

from ride_mm.structures import BatchDataSample

PAGE = Path(__file__).resolve().parents[2] / 'docs/combinations.md'
HEAD = """# Supported combinations

Made by `python tests/test_models/test_combinations.py`, which builds every
pair at a tiny size, trains it for one step and predicts. It shows that a pair
works, not that it performs well.
"""
COUNTS = [50, 30, 12, 5, 3, 2]
NUM_CLASSES = len(COUNTS)

LOSSES = {
    'cross entropy': dict(type='CrossEntropyLoss'),
    'softmax focal': dict(type='SoftmaxFocalLoss'),
    'class-balanced': dict(type='ClassBalancedLoss'),
    'LDAM': dict(type='LDAMLoss'),
    'balanced softmax': dict(type='BalancedSoftmaxLoss'),
    'logit adjustment': dict(type='LogitAdjustmentLoss'),
    'inverse softmax': dict(type='InverseSoftmaxLoss'),
    'seesaw': dict(type='SeesawLoss', num_classes=NUM_CLASSES),
    'one for each expert (SADE)': [
        dict(type='CrossEntropyLoss'),
        dict(type='BalancedSoftmaxLoss'),
        dict(type='InverseSoftmaxLoss'),
    ],
}


def augmented(**augment):
    return dict(train_cfg=dict(augments=augment))


# Options of the model; `head` is merged into that of the base.
MECHANISMS = {
    'one network': dict(num_experts=1, head=dict(diversity=None, router=None)),
    'diversity, official form': dict(),
    'diversity, form of the paper': dict(
        head=dict(diversity=dict(type='DiversityLoss', form='paper'))
    ),
    'joint loss': dict(head=dict(joint_loss=True)),
    'deferred re-weighting': dict(reweighting=0.9999),
    'Mixup': augmented(type='Mixup', alpha=1.0),
    'CutMix': augmented(type='CutMix', alpha=1.0),
    'Remix': augmented(type='Remix'),
    'teacher': dict(teacher=dict()),
    'linear classifiers': dict(head=dict(classifier=dict(type='LinearClassifier'))),
    'cRT': dict(stage='classifier'),
    'LWS': dict(stage='classifier', head=dict(learn_scales=True)),
    'router': dict(stage='router'),
    'logit adjustment of predictions': dict(test_cfg=dict(logit_adjustment=1.0)),
}
# A list of losses has no one loss, and is for three experts.
IMPOSSIBLE = {
    ('one for each expert (SADE)', 'one network'),
    ('one for each expert (SADE)', 'joint loss'),
}
FAMILIES = {
    'CIFAR ResNet': 'cifar_resnet',
    'ResNet-10': 'resnet10',
    'ResNet': 'resnet18',
    'ResNeXt': 'resnext',
    'Swin': 'swin',
    'Swin V2': 'swin_v2',
    'ViT': 'vit',
    'DeiT': 'deit',
    'ConvNeXt': 'convnext',
}
MECHANISM_PAIRS = [
    (loss, mechanism)
    for loss in LOSSES
    for mechanism in MECHANISMS
    if (loss, mechanism) not in IMPOSSIBLE
]
FAMILY_PAIRS = [(loss, family) for loss in LOSSES for family in FAMILIES]


def build(family, loss, teacher=None, reweighting=None, **options):
    parts = copy.deepcopy(TINY[family])
    options = dict(dict(num_experts=3), **options)
    in_channels = MODELS.build(parts['tail']).out_channels
    head = dict(
        type='RIDEHead',
        num_classes=NUM_CLASSES,
        in_channels=in_channels,
        loss=copy.deepcopy(LOSSES[loss]),
        diversity=dict(type='DiversityLoss'),
        router=dict(type='ExpertRouter', topk=4),
    )
    head.update(options.pop('head', {}))
    cfg = dict(
        type='RIDEClassifier',
        backbone=parts['trunk'],
        neck=dict(type='MultiExpertNeck', expert=parts['tail']),
        head=head,
        **options,
    )
    if teacher is not None:
        cfg['teacher'] = dict(config=copy.deepcopy({**cfg, 'teacher': None}), **teacher)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.set_class_counts(COUNTS)
    model.head.set_reweighting(reweighting)
    return model


def batch(size, n=6):
    generator = torch.Generator().manual_seed(1)
    return dict(
        inputs=torch.randn(n, 3, size, size, generator=generator),
        data_samples=BatchDataSample(torch.arange(n) % NUM_CLASSES),
    )


def train_and_predict(model, size):
    """One step changes all that is to be trained and nothing else."""
    model.train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    data = model.data_preprocessor(batch(size), training=True)
    losses = model.loss(**data)
    assert losses and all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    # Its first step is of one size, however small a gradient is.
    torch.optim.Adagrad(trained, lr=1e-3).step()
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        used = parameter.grad is not None and parameter.grad.any()
        assert changed == bool(used), name
        assert parameter.requires_grad or not changed, name
    assert any(p.grad is not None and p.grad.any() for p in trained)
    with torch.no_grad():
        samples = model.eval().predict(batch(size)['inputs'])
    scores = torch.stack([sample.pred_score for sample in samples])
    torch.testing.assert_close(scores.sum(1), torch.ones(len(samples)))
    return losses


@pytest.mark.parametrize('loss, mechanism', MECHANISM_PAIRS)
def test_loss_and_mechanism(loss, mechanism, tmp_path):
    options = copy.deepcopy(MECHANISMS[mechanism])
    if 'teacher' in options:
        checkpoint = str(tmp_path / 'teacher.pth')
        torch.save(build('resnet10', loss).state_dict(), checkpoint)
        options['teacher'] = dict(checkpoint=checkpoint)
    model = build('resnet10', loss, **options)
    losses = train_and_predict(model, TINY['resnet10']['size'])
    assert ('loss_router' in losses) == (mechanism == 'router')
    assert ('loss_distill' in losses) == (mechanism == 'teacher')


@pytest.mark.parametrize('loss, family', FAMILY_PAIRS)
def test_loss_and_family(loss, family):
    name = FAMILIES[family]
    train_and_predict(build(name, loss), TINY[name]['size'])


def table(title, columns, pairs):
    lines = [['loss', *columns], ['---'] * (len(columns) + 1)]
    lines += [
        [loss] + ['yes' if (loss, column) in pairs else '–' for column in columns]
        for loss in LOSSES
    ]
    rows = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
    return f'\n## {title}\n\n{rows}'


def page():
    return (
        HEAD
        + table('Losses and mechanisms', MECHANISMS, MECHANISM_PAIRS)
        + table('Losses and networks', FAMILIES, FAMILY_PAIRS)
    )


def test_the_page():
    assert PAGE.read_text() == page(), f'run: python {sys.argv[0]}'


if __name__ == '__main__':
    passed = pytest.main([__file__, '-q', '-k', 'not test_the_page']) == 0
    if passed:
        PAGE.write_text(page())
    sys.exit(not passed)
