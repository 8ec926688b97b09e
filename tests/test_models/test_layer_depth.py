"""Layer-wise learning-rate decay: depths of the whole network."""

import pytest
import torch
from families import PUBLISHED, TINY
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS

from ride_mm.utils.errors import UserError

RATE = 0.75
# Not in mmpretrain's own count.
NOT_COUNTED = ('cifar_resnet', 'cifar_resnet_b', 'resnet10', 'resnet18', 'swin_v2', 'swin_v2_t')


def model_of(family):
    tail = MODELS.build(family['tail'])
    return MODELS.build(
        dict(
            type='RIDEClassifier',
            num_experts=2,
            backbone=family['trunk'],
            neck=dict(type='MultiExpertNeck', expert=family['tail']),
            head=dict(
                type='RIDEHead',
                num_classes=4,
                in_channels=tail.out_channels,
                router=dict(type='ExpertRouter', topk=2),
            ),
        )
    )


def order_of_use(model, size):
    """Names of the parameters as an image meets them, expert after
    expert."""
    names, order = {id(p): name for name, p in model.named_parameters()}, []

    def note(module, args):
        order.extend(
            names[id(p)] for p in module.parameters(recurse=False) if names[id(p)] not in order
        )

    hooks = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if not list(module.children())
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size), mode='tensor')
    for hook in hooks:
        hook.remove()
    return order


def check(model, size):
    """Depths grow along the network, from the stem on; rates follow."""
    depths = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    (num_depths,) = {number for _, number in depths.values()}
    parts = dict(trunk=[], head=[])
    for name in order_of_use(model, size):
        part = 'trunk' if name.startswith('backbone.') else 'head'
        if name.startswith('neck.experts.'):
            part = name[: len('neck.experts.0')]
        parts.setdefault(part, []).append(depths[name][0])
    assert parts['trunk'][0] == 0
    for expert in range(model.num_experts):
        found = parts['trunk'] + parts[f'neck.experts.{expert}']
        assert found == sorted(found)
        assert parts['trunk'][-1] < found[-1]
    assert set(parts['head']) == {num_depths - 1}
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='LearningRateDecayOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
            paramwise_cfg=dict(layer_decay_rate=RATE),
        ),
    )
    # Without the placeholder that the wrapper adds.
    scales = {group['param_name']: group['lr'] / 0.1 for group in wrapper.optimizer.param_groups}
    for name, scale in scales.items():
        assert scale == pytest.approx(RATE ** (num_depths - 1 - depths[name][0]))
        if name.startswith('head.'):
            assert scale == 1
        if not name.startswith('backbone.'):
            continue
        if name.count('.') == 1 or name.startswith(
            (
                'backbone.conv1.',
                'backbone.stem.',
                'backbone.patch_embed.',
                'backbone.downsample_layers.0.',
            )
        ):
            assert scale == pytest.approx(RATE ** (num_depths - 1))
    return depths


@pytest.mark.parametrize('name', TINY)
def test_families(name):
    family = TINY[name]
    depths = check(model_of(family), family['size'])
    if name in NOT_COUNTED:
        return
    whole = MODELS.build(family['whole'])
    for key, _ in whole.named_parameters(prefix='backbone'):
        expected = whole.get_layer_depth(key, 'backbone.')
        rest = key[len('backbone.') :]
        for found in (key, f'neck.experts.0.{rest}', f'neck.experts.1.{rest}'):
            # mmpretrain counts this token as a part of the head.
            if found in depths and 'dist_token' not in found:
                assert depths[found] == expected, found


@pytest.mark.parametrize('name', PUBLISHED)
@pytest.mark.usefixtures('no_init')
def test_published_networks(name):
    """Their depths alone: they are counted by name."""
    family = PUBLISHED[name]
    if name in NOT_COUNTED:
        return
    whole, tail = (MODELS.build(family[part]) for part in ('whole', 'tail'))
    for key, _ in whole.named_parameters(prefix='backbone'):
        assert tail.get_layer_depth(key, 'backbone.') == whole.get_layer_depth(key, 'backbone.')


@pytest.mark.parametrize(
    'name', ['r32', 'r10', 'r50', 'rx50', 'r152_pretrained', 'swin_t', 'swin_s']
)
@pytest.mark.usefixtures('no_init')
def test_models_of_the_configs(root, name):
    cfg = Config.fromfile(root / f'configs/_base_/models/ride_{name}.py').model
    check(MODELS.build(cfg), 32 if name == 'r32' else 224)


def test_the_router_has_the_rate_of_the_head():
    model = model_of(TINY['vit'])
    depth, number = model.get_layer_depth('head.router.fc.weight')
    assert depth == number - 1
    assert model.get_layer_depth('backbone.cls_token') == (0, 6)


def test_norm_on_the_output_of_a_trunk():
    family = dict(TINY['swin'], trunk=dict(TINY['swin']['trunk']))
    del family['trunk']['norm_cfg']
    family['trunk']['out_after_downsample'] = True
    model = model_of(family)
    norm = next(name for name, _ in model.backbone.named_parameters() if name.startswith('norm'))
    # After blocks 1, 2 and 3.
    assert model.get_layer_depth(f'backbone.{norm}') == (3, 8)


def test_a_tail_that_does_not_know_its_depths():
    model = model_of(TINY['resnet10'])
    model.neck.experts[0] = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match='expert .Linear.*get_layer_depth'):
        model.get_layer_depth('head.classifiers.0.weight')
