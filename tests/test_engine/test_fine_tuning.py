"""A trained RIDE goes on with other classes."""

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from runs import build_runner, digits_config, train

from ride_mm.engine.config import load_config
from ride_mm.utils.errors import UserError


def model_cfg(num_classes, **head):
    cfg = Config.fromfile(ROOT / 'configs/ride_r32_digits_lt.py').model
    cfg.backbone.depth = cfg.neck.expert.depth = 20
    cfg.head.num_classes = num_classes
    cfg.head.router.topk = min(num_classes, 10)
    cfg.head.update(head)
    return cfg


@pytest.fixture
def seven(tmp_path):
    """A checkpoint of seven classes, whose router is trained."""
    torch.manual_seed(1)
    model = MODELS.build(model_cfg(7))
    model.init_weights()
    model.head.router.num_updates.fill_(3)
    model.head.set_temperature(2.0)
    path = tmp_path / 'seven.pth'
    torch.save(
        dict(
            meta=dict(),
            state_dict=model.state_dict(),
            # As EMAHook writes it, of the weights before averaging.
            ema_state_dict={
                f'module.{key}': torch.zeros_like(value)
                for key, value in model.state_dict().items()
            },
        ),
        path,
    )
    return model, str(path)


def check(model, source):
    """All is loaded but the head."""
    own, found = model.state_dict(), source.state_dict()
    for key, value in found.items():
        if not key.startswith('head.'):
            assert torch.equal(own[key], value), key
    assert not model.head.router.trained
    assert model.head.temperature is None
    assert len(own['head.classifiers.0.weight']) == 10


def shown_config():
    text = (ROOT / 'docs/recipes.md').read_text()
    (block,) = [
        code.split('```')[0]
        for code in text.split('```python\n')
        if 'ride_r32_cifar10_lt/epoch_205.pth' in code.split('```')[0]
    ]
    return block


@pytest.mark.parametrize('ema', [False, True])
def test_config_of_the_page(root, tmp_path, seven, ema):
    source, path = seven
    base = tmp_path / 'base.py'
    digits_config(root, tmp_path / 'work').dump(base)
    config = tmp_path / 'shown.py'
    config.write_text(
        shown_config()
        .replace('configs/ride_r32_cifar100_lt.py', str(base))
        .replace('work_dirs/ride_r32_cifar10_lt/epoch_205.pth', path)
    )
    cfg = load_config(str(config))
    if ema:
        cfg.custom_hooks = [dict(type='EMAHook')]
    runner = build_runner(cfg)
    runner.call_hook('before_run')
    runner.model.init_weights()
    runner.load_or_resume()
    check(runner.model, source)
    if ema:
        (hook,) = [h for h in runner.hooks if hasattr(h, 'ema_model')]
        check(hook.ema_model.module, source)
    runner = train(cfg)
    assert runner.model.head.router.trained


def test_advice_that_works(root, tmp_path, seven):
    source, path = seven
    cfg = digits_config(root, tmp_path, load_from=path)
    with pytest.raises(UserError, match='It has 7 classes') as error:
        train(cfg)
    advice = str(error.value).split('add ')[1].split(' beside')[0]
    name, value = advice.split('=', 1)
    assert name == 'default_hooks'
    cfg.default_hooks.update(eval(value))
    cfg.train_cfg.max_epochs = 4
    assert train(cfg).model.head.router.trained


def test_init_cfg_leaves_another_head_out(seven):
    source, path = seven
    model = MODELS.build(dict(model_cfg(10), init_cfg=dict(type='Pretrained', checkpoint=path)))
    model.init_weights()
    check(model, source)


def test_a_backbone_is_sent_to_init_cfg(tmp_path, seven):
    source, _ = seven
    torch.save(source.backbone.state_dict(), tmp_path / 'trunk.pth')
    with pytest.raises(UserError, match='no experts.*model.init_cfg'):
        load_checkpoint(MODELS.build(model_cfg(10)), str(tmp_path / 'trunk.pth'))


def test_routers_of_another_topk(tmp_path, seven):
    """An untrained one is no obstacle, a trained one is named."""
    source, path = seven
    cfg = model_cfg(7)
    cfg.head.router.topk = 5
    with pytest.raises(UserError, match='model.head.router.topk'):
        load_checkpoint(MODELS.build(cfg), path)
    source.head.router.num_updates.zero_()
    source.head.set_temperature(1.0)
    torch.save(source.state_dict(), path)
    model = MODELS.build(cfg)
    load_checkpoint(model, path)
    assert torch.equal(model.head.classifiers[0].weight, source.head.classifiers[0].weight)
    assert model.head.router.fc.in_features == 5 + 16


def test_an_expert_too_many(seven):
    _, path = seven
    cfg = model_cfg(7)
    cfg.num_experts = 4
    with pytest.raises(UserError, match='Check backbone, num_experts'):
        load_checkpoint(MODELS.build(cfg), path)
