"""Trunks and tails of every family beside mmpretrain's whole backbones."""

import copy
import re

import pytest
import torch
from families import PUBLISHED, TINY, VIT, build_eval, cifar_resnet, scatter, whole_feature
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ride_mm.models.macs import count_macs, macs_by_part
from ride_mm.utils.errors import UserError, user_message


def renamed(state, names):
    """The whole backbone's weights under their other names too."""
    return dict(
        state,
        **{
            new + key[len(old) :]: value
            for new, old in names.items()
            for key, value in state.items()
            if key.startswith(f'{old}.')
        },
    )


def load(module, state):
    """Every weight of ``module`` is in ``state``, under its own name."""
    missing = module.load_state_dict(state, strict=False).missing_keys
    # mmpretrain's V2 makes these anew.
    assert not [key for key in missing if 'relative_' not in key]


@torch.no_grad()
def check_equality(family, dtype):
    whole, trunk, tail = (build_eval(family[part]).to(dtype) for part in ('whole', 'trunk', 'tail'))
    scatter(whole)
    state = whole.state_dict()
    names = getattr(tail, 'aliases', {})
    load(trunk, renamed(state, names))
    load(tail, state)
    used = {
        *tail.state_dict(),
        *trunk.state_dict(),
        *(key for key in state if key.startswith(tuple(f'{old}.' for old in names.values()))),
    }
    assert set(state) <= used
    x = torch.randn(2, 3, family['size'], family['size'], dtype=dtype)
    feature, expected = tail(trunk(x)[-1]), whole_feature(whole, x)
    assert feature.shape == (2, tail.out_channels)
    assert expected.std() > 1e-3
    torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize('name', TINY)
def test_trunk_and_full_expert_are_the_whole_backbone(name):
    check_equality(TINY[name], torch.float64)


@pytest.mark.parametrize('name', PUBLISHED)
@pytest.mark.usefixtures('no_init')
def test_published_trunk_and_full_expert_are_the_whole_backbone(name):
    check_equality(PUBLISHED[name], torch.float32)


# ------------------------------------------------- pretrained whole backbones


def ride(family, **options):
    """A classifier of three experts of this family."""
    tail = MODELS.build(family['tail'])
    return dict(
        type='RIDEClassifier',
        num_experts=3,
        backbone=family['trunk'],
        neck=dict(type='MultiExpertNeck', expert=family['tail']),
        head=dict(
            type='RIDEHead',
            num_classes=4,
            in_channels=tail.out_channels,
            loss=dict(type='CrossEntropyLoss'),
        ),
        **options,
    )


def save_whole(family, path):
    """What mmpretrain's classifier of the whole backbone would save."""
    whole = scatter(build_eval(family['whole']))
    state = {f'backbone.{k}': v for k, v in whole.state_dict().items()}
    torch.save(dict(state_dict={**state, 'head.fc.bias': torch.ones(9)}), path)
    return whole


def pretrained(path, **options):
    return dict(type='Pretrained', checkpoint=str(path), **options)


@torch.no_grad()
def check_features(model, whole, size):
    """Every expert gives what the whole backbone gives."""
    whole.double()
    model.double().eval()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = whole_feature(whole, x)
    for feature in model.neck(model.backbone(x)):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize('name', TINY)
def test_pretrained_weights_go_into_the_trunk_and_every_expert(name, tmp_path):
    family = TINY[name]
    whole = save_whole(family, tmp_path / 'whole.pth')
    model = MODELS.build(
        ride(family, init_cfg=pretrained(tmp_path / 'whole.pth', prefix='backbone'))
    )
    classifiers = copy.deepcopy(model.head.classifiers)
    model.init_weights()
    check_features(model, whole, family['size'])
    for mine, before in zip(model.head.classifiers, classifiers):
        assert torch.equal(mine.weight, before.weight.double())


@pytest.mark.parametrize('keys', ['bare', 'backbone', 'old_norm'])
def test_forms_of_a_pretrained_checkpoint(keys, tmp_path):
    """Without ``prefix``: as torchvision's, as mmpretrain's, an old one."""
    family, path = TINY['swin'], tmp_path / 'whole.pth'
    whole = save_whole(family, path)
    state = torch.load(path)['state_dict']
    if keys == 'bare':
        state = dict(whole.state_dict(), **{'fc.weight': torch.ones(9, 64)})
    if keys == 'old_norm':
        state = {k.replace('norm3', 'norm'): v for k, v in state.items()}
    torch.save(state, path)
    model = MODELS.build(ride(family, init_cfg=pretrained(path)))
    model.init_weights()
    check_features(model, whole, 64)


def test_experts_that_start_equal_do_not_stay_so(tmp_path):
    """Their classifiers differ, and so do the gradients of their tails."""
    family = TINY['vit']
    save_whole(family, tmp_path / 'whole.pth')
    model = MODELS.build(ride(family, init_cfg=pretrained(tmp_path / 'whole.pth')))
    model.init_weights()
    model.train()

    def weights():
        return [
            expert.layers['2'].attn.qkv.weight.detach().clone() for expert in model.neck.experts
        ]

    one, other, _ = weights()
    assert torch.equal(one, other)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    losses = model.loss(torch.randn(4, 3, 32, 32), samples)
    sum(losses.values()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    one, other, third = weights()
    assert not torch.equal(one, other)
    assert not torch.equal(other, third)


def test_shared_layers_are_pretrained_too(tmp_path):
    """As in RIDE-Swin: merging in the trunk, one norm for all experts."""
    family = copy.deepcopy(TINY['swin'])
    family['tail']['final_norm'] = False
    whole = save_whole(family, tmp_path / 'whole.pth')
    cfg = ride(family, init_cfg=pretrained(tmp_path / 'whole.pth'))
    cfg['neck']['shared'] = dict(norm3=dict(type='NormPool', channels=64))
    model = MODELS.build(cfg)
    keys = [key for key in model.state_dict() if 'norm3' in key]
    assert keys == ['neck.shared.norm3.weight', 'neck.shared.norm3.bias']
    assert 'backbone.stages.1.downsample.reduction.weight' in (model.state_dict())
    model.init_weights()
    check_features(model, whole, 64)


def test_a_checkpoint_of_the_classifier_is_loaded_as_it_is(tmp_path):
    family = TINY['convnext']
    trained = scatter(MODELS.build(ride(family)))
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    model = MODELS.build(ride(family, init_cfg=pretrained(tmp_path / 'trained.pth')))
    model.init_weights()
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    one, other = (expert.stages['2'] for expert in model.neck.experts[:2])
    assert not torch.equal(one[0].pointwise_conv1.weight, other[0].pointwise_conv1.weight)


def test_only_initialization_takes_a_whole_backbone(tmp_path):
    """A test of it would have a random head."""
    model = MODELS.build(ride(TINY['vit']))
    model.init_weights()
    save_whole(TINY['vit'], tmp_path / 'whole.pth')
    with pytest.raises(UserError, match='another architecture'):
        load_checkpoint(model, str(tmp_path / 'whole.pth'))


@pytest.mark.parametrize(
    'name, change, message',
    [
        (
            'resnet18',
            dict(out_channels=(24, 48)),
            r'ResNetExpert\): layer3.0.conv1.weight is \(32, 16, 3, 3\) in the '
            r'checkpoint and \(24, 16, 3, 3\) in the model.*out_channels=\(32, 64\), not '
            r'\(24, 48\).*model.backbone.init_cfg',
        ),
        ('cifar_resnet', dict(out_channels=(24, 48)), r'out_channels=\(32, 64\), not \(24, 48\)'),
        ('convnext', dict(out_channels=(12, 18)), r'out_channels=\(16, 24\), not \(12, 18\)'),
        ('swin_v2', dict(out_channels=(24, 48)), r'out_channels=\(32, 64\), not \(24, 48\)'),
        (
            'vit',
            dict(arch=dict(VIT, num_layers=4, feedforward_channels=12)),
            'ffn.layers.0.0.weight is .*another backbone',
        ),
    ],
)
def test_experts_of_another_width_are_refused(tmp_path, name, change, message):
    save_whole(TINY[name], tmp_path / 'whole.pth')
    family = dict(TINY[name], tail=dict(TINY[name]['tail'], **change))
    model = MODELS.build(ride(family, init_cfg=pretrained(tmp_path / 'whole.pth')))
    with pytest.raises(UserError, match=message):
        model.init_weights()


def test_other_depths_are_refused(tmp_path):
    """mmengine would load what fits and leave the rest as it is."""
    deep = cifar_resnet(32)
    save_whole(deep, tmp_path / 'deep.pth')
    save_whole(TINY['cifar_resnet'], tmp_path / 'shallow.pth')
    with pytest.raises(UserError, match='model lacks layer1.3.conv1.weight'):
        MODELS.build(
            ride(TINY['cifar_resnet'], init_cfg=pretrained(tmp_path / 'deep.pth'))
        ).init_weights()
    with pytest.raises(UserError, match='needs, but the checkpoint lacks'):
        MODELS.build(ride(deep, init_cfg=pretrained(tmp_path / 'shallow.pth'))).init_weights()


def test_a_norm_may_be_new(tmp_path):
    """A ViT that was trained with a class token, fine-tuned on the mean."""
    save_whole(TINY['vit'], tmp_path / 'whole.pth')
    family = copy.deepcopy(TINY['vit'])
    family['tail'].update(out_type='avg_featmap', final_norm=False)
    model = MODELS.build(ride(family, init_cfg=pretrained(tmp_path / 'whole.pth')))
    model.init_weights()
    expert = model.neck.experts[0]
    assert expert.ln2.weight.eq(1).all()
    state = torch.load(tmp_path / 'whole.pth')['state_dict']
    assert torch.equal(expert.layers['3'].ln1.weight, state['backbone.layers.3.ln1.weight'])


def test_a_prefix_that_is_not_there(tmp_path):
    save_whole(TINY['resnet18'], tmp_path / 'whole.pth')
    init_cfg = pretrained(tmp_path / 'whole.pth', prefix='encoder')
    model = MODELS.build(ride(TINY['resnet18'], init_cfg=init_cfg))
    with pytest.raises(UserError, match='encoder. is not in the pretrained'):
        model.init_weights()


def test_position_embeddings_are_resized_by_the_trunk(tmp_path):
    save_whole(TINY['vit'], tmp_path / 'whole.pth')
    family = copy.deepcopy(TINY['vit'])
    family['trunk']['img_size'] = 64
    model = MODELS.build(ride(family, init_cfg=pretrained(tmp_path / 'whole.pth')))
    model.init_weights()
    state = torch.load(tmp_path / 'whole.pth')['state_dict']
    position = model.backbone.pos_embed
    assert position.shape == (1, 17, 8)
    assert torch.equal(position[:, 0], state['backbone.pos_embed'][:, 0])


def test_swin_v2_takes_weights_of_other_windows(tmp_path):
    """Its position biases are computed, whatever the window."""
    save_whole(TINY['swin_v2'], tmp_path / 'whole.pth')
    family = copy.deepcopy(TINY['swin_v2'])
    for part in ('trunk', 'tail'):
        family[part]['window_size'] = 2
    model = MODELS.build(ride(family, init_cfg=pretrained(tmp_path / 'whole.pth')))
    name = 'stages.2.blocks.1.attn.w_msa.relative_coords_table'
    tables = model.neck.experts[0].state_dict()[name].clone()
    model.init_weights()
    state = torch.load(tmp_path / 'whole.pth')['state_dict']
    expert = model.neck.experts[2].state_dict()
    assert torch.equal(expert[name], tables)
    name = name.replace('relative_coords_table', 'cpb_mlp.0.weight')
    assert torch.equal(expert[name], state[f'backbone.{name}'])


# ------------------------------------------------------------------ training


@pytest.mark.parametrize('name', TINY)
def test_every_weight_is_trained(name):
    """None is left over for a distributed wrapper to wait for."""
    family = TINY[name]
    model = scatter(MODELS.build(ride(family))).train()
    x = torch.randn(4, 3, family['size'], family['size'])
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    sum(model.loss(x, samples).values()).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []


# ------------------------------------------------------------------ mistakes


def message_of(cfg):
    with pytest.raises(UserError) as info:
        MODELS.build(cfg)
    return user_message(info.value)


@pytest.mark.parametrize(
    'trunk, tail, found',
    [
        ('resnet18', 'convnext', 'in_channels=12, but there are 16'),
        ('vit', 'convnext', r'is \(N, 197, 8\) .*in_channels=12, but there are 8'),
        ('swin', 'resnet18', r'\(SwinTransformer\).*in_channels=16, .* 32 channels'),
        ('resnet10', 'vit', 'in_channels=8, but there are 16'),
    ],
)
def test_a_tail_of_another_family(trunk, tail, found):
    family = dict(trunk=TINY[trunk]['trunk'], tail=TINY[tail]['tail'])
    message = message_of(ride(family))
    assert re.search(found, message)
    assert 'An expert tail takes' in message
    assert '\n' not in message


def test_a_tail_that_takes_something_else():
    """As many channels, but tokens instead of a map."""
    trunk = copy.deepcopy(TINY['cifar_resnet']['trunk'])
    trunk['base_channels'] = 8
    message = message_of(ride(dict(trunk=trunk, tail=TINY['vit']['tail'])))
    assert 'it fails with' in message
    assert 'An expert tail takes' in message


def test_a_forgotten_shared_norm():
    family = copy.deepcopy(TINY['swin'])
    family['tail']['final_norm'] = False
    message = message_of(ride(family))
    assert 'returns (N, 49, 64) instead of (N, 64)' in message


def test_a_whole_backbone_is_no_trunk():
    family = TINY['resnet18']
    message = message_of(ride(dict(family, trunk=family['whole'])))
    assert 'in_channels=16, but there are 64' in message


@pytest.mark.parametrize(
    'name, change, found',
    [
        ('swin', dict(arch='tinny'), "Did you mean 'tiny'"),
        ('swin', dict(arch=dict(depths=[1], num_heads=[1])), 'embed_dims'),
        ('swin', dict(stages=(1, 2)), 'must be the last,'),
        ('swin', dict(out_channels=(32,)), 'one entry per stage'),
        ('swin', dict(out_channels=(24, 64)), 'downsample_cfg'),
        ('swin', dict(out_channels=(32, 63)), '4 heads of stage 3'),
        ('swin_v2', dict(out_channels=(33, 64)), '2 heads of stage 2'),
        ('vit', dict(layers=(1, 2)), 'must be the last,'),
        ('vit', dict(out_type='raw'), 'out_type="raw" is unknown'),
        ('convnext', dict(arch='attp'), "Did you mean 'atto'"),
    ],
)
def test_options_that_do_not_fit(name, change, found):
    message = message_of(dict(TINY[name]['tail'], **change))
    assert found in message


def test_number_of_experts_in_one_place():
    cfg = ride(TINY['cifar_resnet'])
    cfg['num_experts'] = 5
    model = MODELS.build(cfg)
    assert model.num_experts == model.neck.num_experts == 5
    cfg['neck']['num_experts'] = 2
    assert 'contradicts model.num_experts=5' in message_of(cfg)


@pytest.mark.parametrize('name', ['swin', 'swin_v2', 'vit', 'convnext'])
def test_routing_and_macs_of_every_family(name):
    """An expert runs on the rows still in doubt, and only there."""
    family = TINY[name]
    cfg = ride(family, test_cfg=dict(mode='route'))
    cfg['head']['router'] = dict(type='ExpertRouter', topk=3)
    model = scatter(MODELS.build(cfg)).eval()
    x = torch.randn(6, 3, family['size'], family['size'])
    with torch.no_grad():
        feature = model.neck(model.backbone(x))[0]
        logits = model.head.classifiers[0](feature)
        doubts = model.head.router(0, feature, logits)
        model.head.router.fc.bias.data -= doubts.median() + 1e-4
        seen = []
        model.neck.experts[1].register_forward_hook(lambda _, args, out: seen.append(len(out)))
        expected = [model.infer(row)[:2] for row in x.split(1)]
        seen.clear()
        mean_logits, used, *_ = model.infer(x)
    assert used.tolist() == [count.item() for _, count in expected]
    assert seen == [sum(count > 1 for count in used.tolist())]
    assert 0 < seen[0] < 6
    torch.testing.assert_close(
        mean_logits, torch.cat([logits for logits, _ in expected]), rtol=1e-4, atol=1e-5
    )
    macs = macs_by_part(model, (3, family['size'], family['size']))
    whole = build_eval(family['whole'])
    image = torch.zeros(1, 3, family['size'], family['size'])
    classifier = 4 * model.head.in_channels
    assert macs['trunk'][0] + macs['experts'][0] - classifier == count_macs(whole, image)


def unchanged_by_a_step(model):
    """Names of the weights and statistics of trunk and tails that a step does not change."""
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.head.set_class_counts(range(10, 0, -1))
    samples = [DataSample().set_gt_label(label) for label in range(8)]
    losses = model(torch.randn(8, 3, 8, 8), samples, mode='loss')
    sum(losses.values()).backward()
    optimizer.step()
    after = model.state_dict()
    return [
        name
        for name, value in before.items()
        if not name.startswith('head.') and torch.equal(value, after[name])
    ]


def test_a_frozen_trunk(tiny_model):
    tiny_model.freeze_trunk = True
    model = MODELS.build(tiny_model)
    assert unchanged_by_a_step(model) == [
        name for name in model.state_dict() if name.startswith('backbone.')
    ]


def test_frozen_statistics_of_the_experts(tiny_model):
    tiny_model.neck.norm_eval = True
    model = MODELS.build(tiny_model)
    assert unchanged_by_a_step(model) == [
        name
        for name in model.state_dict()
        if name.startswith('neck.') and name.split('.')[-1].startswith(('running', 'num_batches'))
    ]


@pytest.mark.parametrize(
    'frozen, names',
    [
        (-1, []),
        (0, ['conv1', 'bn1']),
        (1, ['conv1', 'bn1', 'layer1']),
    ],
)
def test_frozen_stages_of_a_cifar_resnet(tiny_model, frozen, names):
    """As mmpretrain's ResNet: neither weights nor statistics move."""
    tiny_model.backbone.frozen_stages = frozen
    still = unchanged_by_a_step(MODELS.build(tiny_model))
    found = {name.split('.')[1] for name in still if name.startswith('backbone.')}
    assert found == set(names)


def test_frozen_stages_that_do_not_exist(tiny_model):
    tiny_model.backbone.frozen_stages = 2
    with pytest.raises(UserError, match='frozen_stages=2, expected -1 to 1'):
        MODELS.build(tiny_model)
