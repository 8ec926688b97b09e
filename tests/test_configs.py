"""Every config builds, and what no other test trains runs on tiny data."""

import json
import math
import os

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmpretrain.apis import ModelHub
from mmpretrain.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from PIL import Image

from ride_mm.engine import launch
from ride_mm.engine.config import HOOK_NAMES, load_config
from ride_mm.engine.schedule import load_training
from ride_mm.utils.config_names import config_file

CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('configs', 'configs/ablations', 'configs/baselines')
    for path in (ROOT / folder).glob('*.py')
)
# The parameters that the model index states; a test of the packaging compares
# its configs.
INDEX = {
    model['Config']: model['Metadata']['Parameters']
    for path in (ROOT / 'configs/metafiles').glob('*.yml')
    for model in yaml.safe_load(path.read_text())['Models']
}


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.usefixtures('no_init')
def test_config_builds(root, name):
    cfg = Config.fromfile(root / name)
    model = MODELS.build(cfg.model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert INDEX.get(name, parameters) == parameters
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
        assert DATA_SAMPLERS.get(loader.sampler.type) is not None
    hooks = {hook.type: hook for hook in cfg.default_hooks.values() if hook}
    for kind in hooks.keys() & HOOK_NAMES.keys():
        HOOKS.build(hooks[kind])
    for metric in cfg.val_evaluator:
        METRICS.build(metric)
    stage_1 = cfg.train_cfg.max_epochs
    assert 'ClassCountsHook' in hooks
    if 'TwoStageHook' in hooks:
        stage_1 = hooks['TwoStageHook'].begin
        assert cfg.train_cfg.max_epochs == stage_1 + 5
    if 'DeferredReweightingHook' in hooks:
        assert hooks['DeferredReweightingHook'].begin < stage_1
    # No model is chosen on the set that it is judged on.
    assert 'save_best' not in cfg.default_hooks.checkpoint


def schedule(cfg):
    """Learning rate of every epoch, as the runner would set it."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
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


@pytest.mark.parametrize(
    'name, rate, steps, gamma, warm_up',
    [
        ('ride_r32_cifar100_lt', 0.1, (160, 180), 0.01, 5),
        ('ride_r32_cifar100_lt_distill', 0.1, (160, 180), 0.01, 20),
        ('ride_r32_cifar10_lt', 0.1, (160, 180), 0.01, 5),
        ('ride_r10_imagenet_lt', 0.1, (60, 80), 0.1, 5),
        ('ride_r50_imagenet_lt', 0.1, (60, 80), 0.1, 5),
        ('ride_rx50_imagenet_lt', 0.1, (60, 80), 0.1, 5),
        ('ride_r50_inaturalist2018', 0.2, (60, 80), 0.1, 5),
        ('sade_r32_cifar100_lt', 0.1, (160, 180), 0.1, 5),
        ('ride_r152_places_lt', 0.01, (10, 20), 0.1, 0),
    ],
)
def test_official_schedule(root, name, rate, steps, gamma, warm_up):
    rates = schedule(Config.fromfile(root / f'configs/{name}.py'))
    for epoch, found in enumerate(rates):
        expected = rate * gamma ** sum(epoch >= step for step in steps)
        if epoch < warm_up:
            expected *= (epoch + 1) / warm_up
        assert found == pytest.approx(expected, rel=1e-12), epoch


@pytest.mark.parametrize('name', ['swin_t', 'swin_s'])
def test_official_schedule_of_swin(root, name, steps=4):
    """Linear warm-up, then a cosine whose period began with it, every step.

    Against the formula of the official scheduler, ``steps`` steps an epoch.
    """
    cfg = Config.fromfile(root / f'configs/ride_{name}_imagenet_lt.py')
    optimizer = torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr
    )
    schedulers = []
    for scheduler in cfg.param_scheduler:
        scheduler = dict(scheduler, optimizer=optimizer, epoch_length=steps)
        assert scheduler.pop('convert_to_iter_based')
        kind = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        schedulers.append(kind.build_iter_from_epoch(**scheduler))
    total, warm_up = 300 * steps, 20 * steps
    for step in range(total):
        found = optimizer.param_groups[0]['lr']
        cosine = (1 + math.cos(math.pi * step / total)) / 2
        if step >= warm_up:
            expected = 1e-5 + (1e-3 - 1e-5) * cosine
            assert found == pytest.approx(expected, rel=3e-4)
        else:
            # Here the official one leaves the cosine, > 0.989, out.
            linear = 1e-6 + (1e-3 - 1e-6) * step / (warm_up - 1)
            assert found == pytest.approx(linear * cosine, rel=3e-3)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize(
    'name, classes, batch, decay, begin, gamma, topk',
    [
        ('ride_r32_cifar100_lt', 100, 128, 5e-4, 160, 0.05, 30),
        ('ride_r10_imagenet_lt', 1000, 256, 2e-4, 80, 0.02, 30),
        ('ride_r50_imagenet_lt', 1000, 256, 2e-4, 80, 0.02, 50),
        ('ride_rx50_imagenet_lt', 1000, 256, 2e-4, 80, 0.02, 50),
        ('ride_r50_inaturalist2018', 8142, 512, 2e-4, 80, 0.015, 50),
        ('ride_r152_places_lt', 365, 128, 4e-4, 20, 0.02, 50),
        ('ride_swin_t_imagenet_lt', 1000, 1024, 0.2, 241, 0.02, 50),
        ('ride_swin_s_imagenet_lt', 1000, 1024, 0.3, 241, 0.02, 50),
    ],
)
def test_official_hyper_parameters(root, name, classes, batch, decay, begin, gamma, topk):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    head = cfg.model.head
    assert head.num_classes == classes
    assert head.diversity.gamma == gamma
    assert head.router.topk == topk
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert batch % cfg.train_dataloader.batch_size == 0
    assert cfg.optim_wrapper.optimizer.weight_decay == decay
    assert cfg.default_hooks.reweighting.begin == begin
    # Whatever the number of GPUs of stage 1, the router's batch is 512.
    router = load_training(str(root / f'configs/{name}.py'), stage='router')
    gpus = batch // cfg.train_dataloader.batch_size
    assert router.train_dataloader.batch_size * gpus == 512
    assert router.auto_scale_lr.base_batch_size == 512


def groups_of(cfg):
    """Rate and decay of every parameter, as the runner would set them."""
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(value): key for key, value in model.named_parameters()}
    return {
        names[id(group['params'][0])]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
    }


def test_what_is_pretrained_learns_slower(root):
    cfg = Config.fromfile(root / 'configs/ride_r152_places_lt.py')
    for part in (cfg.model.backbone, cfg.model.neck.expert):
        part.depth = 50
    for name, (rate, _) in groups_of(cfg).items():
        if not name.startswith('head.router'):
            is_new = name.startswith('head.classifiers')
            assert rate == pytest.approx(1e-2 if is_new else 1e-3), name


def test_what_swin_does_not_decay(root):
    """Norms, biases and the tables of relative positions."""
    cfg = Config.fromfile(root / 'configs/ride_swin_t_imagenet_lt.py')
    groups = groups_of(cfg)
    shapes = {key: value.dim() for key, value in MODELS.build(cfg.model).named_parameters()}
    for name, (_, decay) in groups.items():
        if not name.startswith('head.router'):
            free = shapes[name] == 1 or name.endswith('bias_table')
            assert decay == (0 if free else 0.2), name
    assert groups['neck.shared.norm3.weight'][1] == 0


def test_swin_starts_as_published(root):
    """Linear layers and classifiers from N(0, 0.02^2)."""
    cfg = Config.fromfile(root / 'configs/ride_swin_t_imagenet_lt.py')
    model = MODELS.build(cfg.model)
    model.init_weights()
    for weight in (
        model.backbone.stages[1].downsample.reduction.weight,
        model.neck.experts[2].stages['3'].blocks[0].ffn.layers[1].weight,
        model.head.classifiers[1].weight,
    ):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    # Stochastic depth grows through trunk and experts as through the whole.
    rates = [
        module.drop_prob
        for part in (model.backbone, model.neck.experts[0])
        for name, module in part.named_modules()
        if name.endswith('ffn.dropout_layer')
    ]
    assert rates == pytest.approx([0.2 * i / 11 for i in range(12)])


def test_number_of_experts_and_imbalance_are_one_option(root, tmp_path):
    path = tmp_path / 'six.py'
    path.write_text(
        f"_base_ = '{root}/configs/ride_r32_cifar100_lt.py'\nmodel = dict(num_experts=6)\n"
    )
    assert MODELS.build(Config.fromfile(path).model).num_experts == 6
    cfg = load_config(
        str(path), {'model.num_experts': 2, 'train_dataloader.dataset.imb_factor': 0.1}
    )
    assert MODELS.build(cfg.model).num_experts == 2
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.imb_factor == 0.1


# How the lists name images: of a split and a label.
LAYOUTS = dict(
    ImageNet_LT=(
        1000,
        ('train', 'val', 'test'),
        lambda split, label: f'{"train" if split == "train" else "val"}/n{label:08d}',
    ),
    Places_LT=(
        365,
        ('train', 'val', 'test'),
        lambda split, label: f'{"train" if split == "train" else "val"}/place_{label}',
    ),
    iNaturalist18=(8142, ('train', 'val'), lambda split, label: f'train_val2018/Plantae/{label}'),
)


def write_images(folder, name):
    """Small JPEGs, laid out and listed as those of a benchmark are."""
    num_classes, splits, subfolder = LAYOUTS[name]
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    images = [folder / f'{i}.jpg' for i in range(8)]
    for image in images:
        pixels = rng.integers(256, size=(40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
    for split in splits:
        lines = []
        for label in range(0, num_classes, 1 if split == 'train' else 250):
            path = f'{subfolder(split, label)}/{split}_{label}.jpg'
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(images[label % 8], folder / path)
            lines.append(f'{path} {label}')
        (folder / f'{name}_{split}.txt').write_text('\n'.join(lines))


def train_two_steps_a_stage(cfg, work_dir):
    """The real pipelines, at a size that a CPU trains in seconds."""
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(batch_size=4, num_workers=0)
    cfg.train_dataloader.num_batch_per_epoch = 2
    if 'reweighting' in cfg.default_hooks:
        cfg.default_hooks.reweighting.begin = 0
    cfg.train_dataloader.dataset.pipeline[1].scale = 64
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline[1].scale = 72
        loader.dataset.pipeline[2].crop_size = 64
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'train_cfg.max_epochs': 2,
            'default_hooks.two_stage.begin': 1,
            'default_hooks.two_stage.train_dataloader.batch_size': 4,
            'log_level': 'WARNING',
        }
    )
    launch.set_dataloader_defaults(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def small_config(root, tmp_path, name, images):
    """A config on generated images; its optimizers' states are not saved."""
    write_images(tmp_path / 'data', images)
    cfg = Config.fromfile(root / f'configs/{name}.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(tmp_path / 'data')
    cfg.default_hooks.checkpoint.save_optimizer = False
    return cfg


def check_both_stages(cfg, work_dir):
    runner = train_two_steps_a_stage(cfg, work_dir)
    assert runner.iter == 4
    assert runner.model.stage == 'router'
    assert runner.model.head.router.num_updates == 2
    losses = runner.message_hub.log_scalars['train/loss'].data[0]
    assert np.isfinite(losses).all()
    metrics = runner.test()
    assert 0 <= metrics['long_tail/overall'] <= 100
    json.dumps(metrics)
    return runner


def narrow_resnet50(cfg):
    """Make the network a quarter as wide."""
    narrow = dict(base_channels=16, stem_channels=16)
    cfg.model.backbone.update(narrow)
    cfg.model.neck.expert.update(narrow, in_channels=128, out_channels=(192, 384))
    cfg.model.head.in_channels = 384


@pytest.mark.parametrize(
    'name, images',
    [
        ('ride_r10_imagenet_lt', 'ImageNet_LT'),
        ('ride_r50_imagenet_lt', 'ImageNet_LT'),
        ('ride_rx50_imagenet_lt', 'ImageNet_LT'),
        ('ride_r50_inaturalist2018', 'iNaturalist18'),
    ],
)
def test_config_trains_both_stages(root, tmp_path, name, images):
    cfg = small_config(root, tmp_path, name, images)
    if '_r10_' not in name:
        narrow_resnet50(cfg)
    runner = check_both_stages(cfg, tmp_path / 'work')
    assert 'val/long_tail/overall_top5' in runner.message_hub.log_scalars


@pytest.mark.parametrize('name', ['clip_b16', 'dinov2_b14'])
def test_lift_config_trains_both_stages(root, tmp_path, name):
    """A small transformer of random weights."""
    cfg = small_config(root, tmp_path, f'ride_{name}_imagenet_lt', 'ImageNet_LT')
    sizes = dict(embed_dims=16, num_heads=2, feedforward_channels=32)
    cfg.model.init_cfg = None
    cfg.model.backbone.update(arch=dict(sizes, num_layers=2), img_size=64)
    cfg.model.neck.expert.update(arch=dict(sizes, num_layers=3), layers=(2,))
    cfg.model.head.in_channels = 16
    assert cfg.model.backbone.adapter_channels == cfg.model.neck.expert.adapter_channels == 32
    assert cfg.default_hooks.class_means.type == 'ClassMeanInitHook'
    model = check_both_stages(cfg, tmp_path / 'work').model
    adapter = model.neck.experts[0].layers['2'].adapter
    assert adapter.up.weight.abs().sum() > 0
    assert model.backbone.layers[0].adapter.up.weight.abs().sum() > 0


@pytest.mark.parametrize('name, depths', [('swin_t', [2, 2, 6, 2]), ('swin_s', [2, 2, 18, 2])])
def test_swin_config_trains_both_stages(root, tmp_path, name, depths):
    """With a quarter of the width: three experts take too long."""
    cfg = small_config(root, tmp_path, f'ride_{name}_imagenet_lt', 'ImageNet_LT')
    model = cfg.model
    model.backbone.arch.embed_dims = 24
    model.backbone.stage_cfgs[1].downsample_cfg.out_channels = 72
    model.neck.expert.update(
        arch=dict(embed_dims=24, depths=depths, num_heads=[3, 6, 12, 24]),
        in_channels=72,
        out_channels=(72, 144),
    )
    model.neck.shared.norm3.channels = model.head.in_channels = 144
    # At 64 pixels the last feature maps are smaller than a window.
    model.backbone.pad_small_map = model.neck.expert.pad_small_map = True
    check_both_stages(cfg, tmp_path / 'work')


def test_places_config_trains_both_stages(root, tmp_path):
    """From pretrained weights; a ResNet-50 of a quarter of the width, since
    three ResNet-152 take too long."""
    cfg = small_config(root, tmp_path, 'ride_r152_places_lt', 'Places_LT')
    narrow = dict(depth=50, base_channels=16, stem_channels=16)
    whole = MODELS.build(dict(type='ResNet', **narrow))
    torch.save(
        {f'backbone.{key}': value for key, value in whole.state_dict().items()},
        tmp_path / 'r50.pth',
    )
    model = cfg.model
    model.init_cfg.checkpoint = str(tmp_path / 'r50.pth')
    model.backbone.update(narrow)
    model.neck.expert.update(narrow, in_channels=128, out_channels=(256, 512))
    model.head.in_channels = 512
    runner = check_both_stages(cfg, tmp_path / 'work')
    assert runner.model.head.class_counts == [1] * 365


def shown_configs(path):
    """The configs that a page shows."""
    text = path.read_text()
    blocks = [code.split('```')[0] for code in text.split('```python\n')[1:]]
    return [block for block in blocks if block.startswith('_base_')]


def shown_config(path, part):
    """The config with this part that a page shows."""
    (block,) = [b for b in shown_configs(path) if part in b]
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


@pytest.mark.parametrize('name', [n for n in CONFIGS if '_distill' in n])
def test_a_student_and_its_teacher(root, name):
    student = Config.fromfile(root / name)
    options = student.model.teacher
    assert options.config == (name.replace('configs/', 'ride_mm::').replace('_distill', '_teacher'))
    teacher = Config.fromfile(config_file(options.config))
    stem = name.split('/')[-1].replace('_distill.py', '')
    assert options.checkpoint == (
        f'work_dirs/{stem}_teacher/epoch_{teacher.train_cfg.max_epochs}.pth'
    )
    assert teacher.data_preprocessor == student.data_preprocessor
    assert teacher.model.num_experts == 6
    two_stage = student.default_hooks.two_stage
    assert teacher.default_hooks == dict(student.default_hooks, two_stage=None)
    assert teacher.train_cfg.max_epochs == two_stage.begin


def test_readme_config_of_the_router_cache(root, tmp_path):
    config = tmp_path / 'cached.py'
    config.write_text(
        shown_config(root / 'docs/train.md', 'RouterCacheHook').replace(
            "'configs/", f"'{root}/configs/"
        )
    )
    hooks = Config.fromfile(config).default_hooks
    assert hooks.router_cache.type == 'RouterCacheHook'
    assert hooks.class_counts.type == 'ClassCountsHook'


def test_config_by_hand_on_a_class_folder(root, tmp_path, monkeypatch):
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
        shown_config(root / 'docs/data.md', 'LongTailList').replace(
            "'configs/ride_r50_imagenet_lt.py'", repr(str(base))
        )
    )
    cfg = Config.fromfile(config)
    narrow_resnet50(cfg)
    runner = train_two_steps_a_stage(cfg, tmp_path / 'work')
    assert runner.model.head.class_counts == list(range(1, 13))
    metrics = runner.test()
    # No class has 20 images: there is one group, and no empty one.
    assert metrics['long_tail/few'] == metrics['long_tail/overall']
    assert 'long_tail/many' not in metrics


# ------------------------------------------------------------ pretrained bases

# The model of MMPretrain that a base in _base_/models loads, and an image size.
PRETRAINED = dict(
    ride_r50_pretrained=('resnet50_8xb32_in1k', 64),
    ride_r152_pretrained=('resnet152_8xb32_in1k', 64),
    ride_convnext_t_pretrained=('convnext-tiny_32xb128_in1k', 64),
    ride_swin_t_pretrained=('swin-tiny_16xb64_in1k', 224),
    ride_deit_s_pretrained=('deit-small_4xb256_in1k', 224),
    ride_dinov2_b14=('vit-base-p14_dinov2-pre_3rdparty', 224),
)


@pytest.mark.parametrize('name, source, size', [(key, *value) for key, value in PRETRAINED.items()])
@torch.no_grad()
def test_pretrained_bases_load_what_mmpretrain_has_published(root, tmp_path, name, source, size):
    """One expert gives what the whole backbone gives, with random weights."""
    published = ModelHub.get(source)
    whole = MODELS.build(published.config.model.backbone)
    whole.eval()
    path = tmp_path / 'weights.pth'
    torch.save({f'backbone.{key}': value for key, value in whole.state_dict().items()}, path)
    cfg = Config.fromfile(root / f'configs/_base_/models/{name}.py').model
    assert cfg.init_cfg.checkpoint == published.weights
    cfg.init_cfg.checkpoint = str(path)
    cfg.num_experts = 1
    cfg.head.router = None
    model = MODELS.build(cfg).eval()
    model.init_weights()
    x = torch.randn(1, 3, size, size)
    (feature,) = model.extract_feat(x)
    expected = whole(x)[-1]
    if expected.dim() == 4:
        expected = expected.mean((2, 3))
    assert expected.std() > 1e-3
    torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4)
