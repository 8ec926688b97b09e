"""Checkpoints of a model some of whose parts are trained by LoRA."""

import copy

import pytest
import torch
from families import TINY
from mmengine.config import Config
from mmengine.runner import load_checkpoint, save_checkpoint
from mmpretrain.registry import MODELS

from ride_mm.engine.config_check import check_config
from ride_mm.utils.errors import UserError


def lora(module, target):
    return dict(type='LoRAModel', module=module, rank=2, targets=[dict(type=target)])


def build(seed, *parts, name='swin'):
    """A model with LoRA in these of its parts."""
    torch.manual_seed(seed)
    family = TINY[name]
    backbone, tail = family['trunk'], family['tail']
    head = dict(
        type='RIDEHead',
        num_classes=4,
        num_experts=2,
        in_channels=MODELS.build(tail).out_channels,
        router=dict(type='ExpertRouter', topk=2),
    )
    if 'backbone' in parts:
        backbone = lora(backbone, 'qkv')
    if 'expert' in parts:
        tail = lora(tail, 'qkv')
    neck = dict(type='MultiExpertNeck', num_experts=2, expert=tail)
    if 'neck' in parts:
        neck = lora(neck, 'qkv')
    if 'head' in parts:
        head = lora(head, 'fc')
    for part in {'head.classifier', 'head.router'} & {*parts}:
        head[part[5:]] = lora(dict(type='LinearClassifier'), '.*')
    return MODELS.build(dict(type='RIDEClassifier', backbone=backbone, neck=neck, head=head))


@torch.no_grad()
def outputs(model, size=64):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, size, size, generator=generator)
    found = model.eval().predict(images)
    return model(images), torch.stack([sample.pred_score for sample in found])


@torch.no_grad()
def disturb(model):
    """As training would: adapters and statistics too."""
    torch.manual_seed(5)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and 'running_var' not in name:
            value += 0.1 * torch.randn_like(value)


@pytest.mark.parametrize(
    'parts',
    [
        ('backbone',),
        ('expert',),
        ('backbone', 'expert'),
    ],
)
def test_a_checkpoint_is_whole(parts, tmp_path):
    """The fresh model has other weights, those that LoRA freezes as well."""
    model, file = build(0, *parts), str(tmp_path / 'epoch_1.pth')
    disturb(model)
    model.head.router.num_updates += 1
    state = model.state_dict()
    assert any('.lora_' in key for key in state)
    assert {*dict(model.named_parameters())} < {*state}
    save_checkpoint(dict(state_dict=state), file)
    fresh = build(1, *parts)
    before = outputs(fresh)
    load_checkpoint(fresh, file, strict=True)
    for found, expected, other in zip(outputs(fresh), outputs(model), before):
        assert torch.equal(found, expected)
        assert not torch.equal(found, other)


@pytest.mark.parametrize('part', ['neck', 'head', 'head.classifier', 'head.router'])
def test_the_experts_are_not_hidden(part):
    with pytest.raises(UserError, match=rf'model\.{part}\.type="LoRAModel" .*\.expert$'):
        build(0, part)


def test_pretrained_weights(tmp_path):
    """Of a whole backbone: they go into each part, not into the model."""
    whole, file = MODELS.build(TINY['swin']['whole']), str(tmp_path / 'a.pth')
    state = {f'backbone.{k}': v for k, v in whole.state_dict().items()}
    save_checkpoint(dict(state_dict=state), file)
    init_cfg = dict(type='Pretrained', checkpoint=file, prefix='backbone')
    for part in ('trunk', 'tail'):
        module = dict(TINY['swin'][part], init_cfg=init_cfg)
        for key, value in MODELS.build(lora(module, '.*qkv')).module.state_dict().items():
            if '.lora_' not in key:
                key = key.replace('.original_layer', '')
                assert torch.equal(value, state[f'backbone.{key}']), key
    model = build(0, 'expert')
    model.init_cfg = dict(type='Pretrained', checkpoint=file)
    with pytest.raises(UserError, match='model.init_cfg .* its `module`'):
        model.init_weights()


def test_targets_are_regular_expressions():
    check_config(
        Config(
            dict(
                default_scope='mmpretrain',
                model=dict(type='ImageClassifier', backbone=lora(TINY['swin']['whole'], '.*qkv')),
            )
        )
    )


def test_a_whole_model_is_copied_with_all_weights():
    """As EMAHook does."""
    model = build(0, 'expert')
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()


def test_a_checkpoint_with_a_part_missing_is_refused():
    model = build(0, 'expert')
    state = {
        key: value for key, value in model.state_dict().items() if not key.startswith('backbone.')
    }
    with pytest.raises(UserError, match='backbone.*: not in the checkpoint'):
        model.load_state_dict(state)


def test_mmpretrains_own_models_save_their_adapters_alone():
    backbone = lora(Config(TINY['swin']['whole']), 'qkv')
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=64),
        )
    )
    kept = model.state_dict()
    assert {'head.fc.weight', 'head.fc.bias'} < {*kept}
    assert all('.lora_' in key for key in kept if key.startswith('backbone.'))
