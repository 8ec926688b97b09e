"""Every config builds, and what no other test trains runs on tiny data."""
import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import (DATA_SAMPLERS, DATASETS, HOOKS, METRICS,
                                 MODELS, TRANSFORMS)
from PIL import Image

from ride_mm.engine import launch

CONFIGS = sorted(
    str(path.relative_to(ROOT)) for folder in ('configs', 'configs/baselines')
    for path in (ROOT / folder).glob('*.py'))


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(root, name):
    cfg = Config.fromfile(root / name)
    model = MODELS.build(cfg.model)
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
        assert DATA_SAMPLERS.get(loader.sampler.type) is not None
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    for metric in cfg.val_evaluator:
        METRICS.build(metric)
    stage_1 = cfg.train_cfg.max_epochs
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    if 'TwoStageHook' in hooks:
        stage_1 = hooks['TwoStageHook'].begin
        assert cfg.train_cfg.max_epochs == stage_1 + 5
    if 'DeferredReweightingHook' in hooks:
        assert hooks['DeferredReweightingHook'].begin < stage_1
    assert (model.stage == 'router') == name.endswith('_router.py')
    # No model is chosen on the set that it is judged on.
    assert 'save_best' not in cfg.default_hooks.checkpoint


@pytest.mark.parametrize('name', [n for n in CONFIGS if '_router' in n])
def test_router_config_follows_stage_1(root, name):
    router = Config.fromfile(root / name)
    whole = Config.fromfile(root / name.replace('_router', ''))
    hook = whole.custom_hooks[-1]
    stem = name.split('/')[-1].replace('_router.py', '')
    assert router.load_from == f'work_dirs/{stem}/epoch_{hook.begin}.pth'
    assert router.optim_wrapper.optimizer == hook.optim_wrapper.optimizer
    assert router.param_scheduler == hook.param_scheduler
    loader = dict(router.train_dataloader)
    assert loader['batch_size'] == hook.train_dataloader.batch_size
    assert loader['sampler'] == hook.train_dataloader.sampler
    assert router.train_cfg.max_epochs == 5


def schedule(cfg):
    """Learning rate of every epoch, as the runner would set it."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    from mmengine.registry import PARAM_SCHEDULERS
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize('name, steps, gamma, warmup', [
    ('ride_r32_cifar100_lt', (160, 180), 0.01, 5),
    ('ride_r32_cifar100_lt_distill', (160, 180), 0.01, 20),
    ('ride_r50_imagenet_lt', (60, 80), 0.1, 5),
    ('sade_r32_cifar100_lt', (160, 180), 0.1, 5),
])
def test_official_schedule(root, name, steps, gamma, warmup):
    rates = schedule(Config.fromfile(root / f'configs/{name}.py'))
    for epoch, rate in enumerate(rates):
        expected = 0.1 * gamma**sum(epoch >= step for step in steps)
        expected *= min(1, (epoch + 1) / warmup)
        assert rate == pytest.approx(expected, rel=1e-12), epoch


def write_imagenet_lt(folder, num_classes=1000):
    """Small JPEGs, laid out and listed as ImageNet-LT is."""
    rng = np.random.default_rng(0)
    lists = dict(train=[], val=[], test=[])
    for label in range(num_classes):
        wnid = f'n{label:08d}'
        for split in lists:
            if split != 'train' and label % 250:
                continue
            name = f'{"train" if split == "train" else "val"}/{wnid}'
            (folder / name).mkdir(parents=True, exist_ok=True)
            name = f'{name}/{wnid}_{split}.JPEG'
            pixels = rng.integers(256, size=(40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
            lists[split].append(f'{name} {label}')
    for split, lines in lists.items():
        (folder / f'ImageNet_LT_{split}.txt').write_text('\n'.join(lines))


def train_two_steps_a_stage(cfg, work_dir):
    """The real pipelines, at a size that a CPU trains in seconds."""
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(batch_size=4, num_workers=0)
    cfg.train_dataloader.num_batch_per_epoch = 2
    cfg.train_dataloader.dataset.pipeline[1].scale = 64
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline[1].scale = 72
        loader.dataset.pipeline[2].crop_size = 64
    cfg.merge_from_dict({
        'work_dir': str(work_dir),
        'train_cfg.max_epochs': 2,
        'custom_hooks.1.begin': 0,
        'custom_hooks.2.begin': 1,
        'custom_hooks.2.train_dataloader.batch_size': 4,
        'log_level': 'WARNING',
    })
    launch.set_dataloader_defaults(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_imagenet_lt_config_trains_both_stages(root, tmp_path):
    data_root = tmp_path / 'imagenet_lt'
    write_imagenet_lt(data_root)
    cfg = Config.fromfile(root / 'configs/ride_r50_imagenet_lt.py')
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.data_root = str(data_root)
    runner = train_two_steps_a_stage(cfg, tmp_path / 'work')
    assert runner.iter == 4
    assert runner.model.stage == 'router'
    assert runner.model.head.router.num_updates == 2
    scalars = runner.message_hub.log_scalars
    assert 'val/long_tail/overall_top5' in scalars
    metrics = runner.test()
    assert 0 <= metrics['long_tail/overall'] <= 100
    json.dumps(metrics)


def shown_configs(path):
    """The configs that a page shows."""
    text = path.read_text()
    blocks = [code.split('```')[0] for code in text.split('```python\n')[1:]]
    return [block for block in blocks if block.startswith('_base_')]


def readme_config(root, part):
    """The config with this part that the README shows."""
    block, = [b for b in shown_configs(root / 'README.md') if part in b]
    return block


@pytest.mark.parametrize('block', shown_configs(ROOT / 'docs/recipes.md'))
def test_configs_of_the_recipes(root, tmp_path, block):
    config = tmp_path / 'shown.py'
    config.write_text(block.replace("'configs/", f"'{root}/configs/"))
    cfg = Config.fromfile(config)
    MODELS.build(cfg.model)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert DATASETS.get(loader.dataset.type) is not None
        inner = loader.dataset.get('dataset', loader.dataset)
        for transform in inner.pipeline:
            TRANSFORMS.build(transform)
    assert cfg.test_dataloader.dataset.type == 'CIFAR100LT'
    assert cfg.test_dataloader.dataset.split == 'test'


def test_a_student_and_its_teacher(root):
    student, teacher = (
        Config.fromfile(root / f'configs/ride_r32_cifar100_lt_{name}.py')
        for name in ('distill', 'teacher'))
    options = student.model.teacher
    assert options.config == 'configs/ride_r32_cifar100_lt_teacher.py'
    assert options.checkpoint == (
        'work_dirs/ride_r32_cifar100_lt_teacher/'
        f'epoch_{teacher.train_cfg.max_epochs}.pth')
    assert teacher.data_preprocessor == student.data_preprocessor
    assert teacher.model.num_experts == 6
    assert teacher.custom_hooks[1].type == 'DeferredReweightingHook'


def test_readme_config_of_the_router_cache(root, tmp_path):
    config = tmp_path / 'cached.py'
    config.write_text(
        readme_config(root, 'RouterCacheHook').replace(
            "'configs/", f"'{root}/configs/"))
    assert [hook.type for hook in Config.fromfile(config).custom_hooks
            ] == ['ClassCountsHook', 'RouterCacheHook']


def test_readme_config_on_a_class_folder(root, tmp_path, monkeypatch):
    """Twelve classes, 30 to 1 images, trained in both stages and tested."""
    rng = np.random.default_rng(0)
    for split, counts in (('train', range(1, 13)), ('val', [1] * 12)):
        for label, count in enumerate(counts):
            folder = tmp_path / 'data/my_images' / split / f'class_{label:02d}'
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(256, size=(40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f'{i}.jpg')
    monkeypatch.chdir(tmp_path)
    config = tmp_path / 'my_images.py'
    base = root / 'configs/ride_r50_imagenet_lt.py'
    config.write_text(
        readme_config(root, 'LongTailList').replace(
            "'configs/ride_r50_imagenet_lt.py'", repr(str(base))))
    cfg = Config.fromfile(config)
    runner = train_two_steps_a_stage(cfg, tmp_path / 'work')
    assert runner.model.head.class_counts == list(range(1, 13))
    metrics = runner.test()
    # No class has 20 images: there is one group, and no empty one.
    assert metrics['long_tail/few'] == metrics['long_tail/overall']
    assert 'long_tail/many' not in metrics
