"""The config written beside a converted checkpoint fits it and trains."""

import official_to_ride_mm
import pytest
import torch
from conftest import ROOT, load_tool
from draws import Answers
from mmengine.config import Config
from mmpretrain import get_model
from mmpretrain.registry import HOOKS, MODELS
from test_configs import train_two_steps_a_stage, write_images

from ride_mm.engine.config import HOOK_NAMES


def converted(folder, name, num_classes=None):
    """The answers' network as a checkpoint and its config."""
    answers = Answers.load(name)
    state = answers.draw()
    if num_classes is not None:
        state = {
            key: torch.rand(len(value), num_classes) if 'linears' in key else value
            for key, value in state.items()
        }
    src, dst, config = (str(folder / name) for name in ('src.pth', 'dst.pth', 'my_config.py'))
    torch.save(dict(state_dict=state), src)
    official_to_ride_mm.main([src, dst, '--config-out', config])
    return config, dst


@pytest.mark.parametrize(
    'name', ['r32', 'r32_2_linear', 'r32_4', 'r32_ea', 'r10_shared', 'r10_ea', 'swin_t_2']
)
def test_config_of_a_converted_checkpoint(name, tmp_path, recwarn, caplog):
    config, checkpoint = converted(tmp_path, name)
    answers = Answers.load(name)
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(checkpoint)['state_dict'], strict=True)
    assert cfg.load_from == checkpoint
    hooks = cfg.default_hooks
    routes = answers.num_experts is not None
    assert (hooks.two_stage is not None) == routes
    assert cfg.train_cfg.max_epochs % 100 == (5 if routes else 0)
    for name in set(HOOK_NAMES.values()):
        if hooks.get(name):
            HOOKS.build(hooks[name])

    recwarn.clear()
    model = get_model(config, pretrained=checkpoint).eval()
    assert not recwarn.list and not caplog.records
    with torch.no_grad():
        logits, used, *_ = model.infer(answers.images())
    expected = answers.routed if routes else answers.ensemble
    assert abs(logits - torch.tensor(expected)).max() < 1e-4
    assert set(used.tolist()) == (set(answers.num_experts) if routes else {len(answers.logits)})


@pytest.mark.parametrize(
    'name, num_classes, data',
    [
        ('r32_4', 100, 'CIFAR100LT'),
        ('r32_4', 10, 'CIFAR10LT'),
        ('r32_4', 20, None),
        ('r10_3', 365, 'PlacesLT'),
        ('r10_3', 8142, 'INaturalist2018'),
        ('swin_t_2', 1000, 'ImageNetLT'),
    ],
)
def test_data_of_a_config(tmp_path, name, num_classes, data):
    config, checkpoint = converted(tmp_path, name, num_classes)
    note = f'# No dataset of ride_mm has {num_classes} classes'
    assert (note in open(config).read()) == (data is None)
    cfg = Config.fromfile(config)
    if data is not None:
        assert cfg.train_dataloader.dataset.type == data
    # nothing is left of the recipe's model
    assert 'init_cfg' not in cfg.model
    model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(checkpoint)['state_dict'], strict=True)


def test_config_of_the_docs_trains_a_router(tmp_path):
    _, checkpoint = converted(tmp_path, 'r10_3', 1000)
    text = (ROOT / 'docs/checkpoints.md').read_text()
    block = text.split('```python\n')[1].split('```')[0]
    config = tmp_path / 'router.py'
    config.write_text(block.replace('r50.py', 'my_config.py'))
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model)
    assert model.stage == 'router' and cfg.load_from == checkpoint
    missing, extra = model.load_state_dict(torch.load(checkpoint)['state_dict'], strict=False)
    assert not extra
    assert missing and all('router' in key for key in missing)
    assert cfg.train_cfg.max_epochs == 5
    assert cfg.default_hooks.class_counts.type == 'ClassCountsHook'
    assert cfg.default_hooks.two_stage is None
    assert cfg.optim_wrapper.optimizer.type == 'SGD'


def test_tools_take_a_converted_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('LOCAL_RANK', '0')
    data_root = tmp_path / 'imagenet_lt'
    write_images(data_root, 'ImageNet_LT')
    config, checkpoint = converted(tmp_path, 'r10_ea', 1000)
    monkeypatch.chdir(tmp_path)
    load_tool('tools/test.py').main(
        [
            config,
            checkpoint,
            '--cfg-options',
            f'test_dataloader.dataset.data_root={data_root}',
            'test_dataloader.num_workers=0',
            'test_dataloader.batch_size=2',
        ]
    )
    assert 'long_tail/overall' in capsys.readouterr().out

    cfg = Config.fromfile(config)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.data_root = str(data_root)
    runner = train_two_steps_a_stage(cfg, tmp_path / 'work')
    assert runner.model.stage == 'router'
    # three at the end of one's own training, one of the official one
    assert runner.model.head.router.num_updates == 3
