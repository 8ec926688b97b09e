"""A wrong option ends in one line that names it; right ones pass."""

import argparse

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.engine import launch
from ride_mm.engine.config_check import check_config, check_together
from ride_mm.engine.schedule import load_training
from ride_mm.utils.errors import UserError

CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('configs', 'configs/ablations', 'configs/baselines')
    for path in (ROOT / folder).glob('*.py')
)
DIGITS = 'configs/ride_r32_digits_lt.py'

# An option as it is given, and what its message says after the key.
WRONG_TYPES = [
    ('model=None', 'model=None must be a dict'),
    ('model.num_experts=abc', 'must be a whole number or None'),
    ('model.num_experts=1.5', 'must be a whole number or None'),
    ('model.num_experts=True', 'must be a whole number or None'),
    ('model.head.num_classes=10.0', 'must be a whole number'),
    ('model.head.router.topk=1.5', 'must be a whole number'),
    ('model.head.loss=None', 'must be a dict or a list of dicts'),
    ('model.teacher=3', 'must be a dict or None'),
    ('model.test_cfg.threshold=abc', 'must be a number or a list of numbers'),
    ('model.data_preprocessor.mean=abc', 'must be a list'),
    ('compile=abc', 'must be True or False or a dict'),
    ('train_dataloader.dataset.imb_factor=abc', 'must be a number'),
    ('train_cfg.by_epoch=abc', 'must be True or False'),
    ('optim_wrapper.clip_grad.type=3', 'must be one of norm, value'),
    ('train_dataloader.drop_last=abc', 'must be True or False'),
    ('train_dataloader.batch_size=1e3', 'must be a whole number'),
    ('val_evaluator.0.topk=1.5', 'must be a whole number or a list of whole'),
    ('val_evaluator.0.thresholds=20', 'must be a string or a list of whole'),
    ('val_evaluator=abc', 'must be a dict or a list or None'),
    ('val_evaluator=[LongTailMetric]', 'val_evaluator.0='),
    ('default_hooks.two_stage.begin=abc', 'must be a whole number'),
    ('default_hooks.two_stage.begin=1.5', 'must be a whole number'),
    ('default_hooks.reweighting.begin=abc', 'must be a whole number'),
    ('default_hooks.reweighting=3', 'must be a dict or None'),
    ('custom_hooks=abc', 'must be a list or None'),
    ('param_scheduler.1.milestones=[a,b]', 'must be a list of whole numbers'),
    ('optim_wrapper.optimizer.lr=abc', 'must be a number'),
    ('load_from=1', 'must be a string or None'),
    ('resume=abc', 'must be True or False'),
    ('work_dir=3', 'must be a string'),
    ('log_level=debug', 'must be one of CRITICAL, ERROR, WARNING'),
]
OUT_OF_RANGE = [
    ('model.head.num_classes=-1', 'must be a whole number of at least 1'),
    ('model.head.loss.max_margin=-1', 'must be at least 0'),
    ('model.head.diversity.weight=-1', 'must be at least 0'),
    ('model.head.router.loss.pos_weight=nan', 'must be finite'),
    ('model.head.classifier.scale=inf', 'must be finite'),
    ('model.head.class_counts=[0,0]', 'one class must have images'),
    ('model.head.class_counts=[3,-1]', 'each number must be a whole number'),
    ('model.test_cfg.threshold=1.5', 'must be between 0 and 1'),
    ('train_dataloader.batch_size=0', 'must be a whole number of at least 1'),
    ('train_dataloader.num_workers=-1', 'must be a whole number of at least'),
    ('train_dataloader.dataset.imb_factor=0', 'must be above 0 and at most 1'),
    ('train_cfg.val_interval=0', 'must be a whole number of at least 1'),
    ('train_cfg.max_epochs=0', 'must be a whole number of at least 1'),
    ('randomness.seed=-1', 'must be a whole number between 0 and 4294967295'),
    ('optim_wrapper.clip_grad.max_norm=-1', 'must be above 0'),
    ('optim_wrapper.optimizer.lr=inf', 'must be finite'),
    ('optim_wrapper.optimizer.weight_decay=-1', 'must be at least 0'),
    ('param_scheduler.0.start_factor=3', 'must be above 0 and at most 1'),
    ('default_hooks.reweighting.begin=-1', 'must be a whole number of at'),
    ('train_dataloader.dataset.pipeline.3.degrees=a', 'must be a number'),
    ('train_dataloader.dataset.pipeline.3.degree=1', "Did you mean 'degrees'"),
    ('auto_scale_lr.base_batch_size=0', 'must be a whole number of at least'),
    ('train_dataloader.dataset.split=test', 'train a model on its test set'),
]
WRONG_NAMES = [
    ('model.head.loss.type=LDAMloss', "no model of this name. Did you mean 'LDAMLoss'?"),
    ('optim_wrapper.optimizer.type=sgd', "Did you mean 'SGD'?"),
    ('optim_wrapper.optimizer.type=SGDD', "Did you mean 'SGD'?"),
    ('optim_wrapper.type=AmpOptimWraper', "Did you mean 'AmpOptimWrapper'?"),
    (
        'optim_wrapper.constructor=LearningRateDecayConstructor',
        "Did you mean 'LearningRateDecayOptimWrapperConstructor'?",
    ),
    ('param_scheduler.0.type=LinearRL', "Did you mean 'LinearLR'?"),
    ('train_dataloader.sampler.type=DefaultSample', "Did you mean 'DefaultSampler'?"),
    ('train_dataloader.collate_fn.type=default_colate', "Did you mean 'default_collate'?"),
    ('train_dataloader.dataset.type=digitslt', "Did you mean 'DigitsLT'?"),
    ('train_dataloader.dataset.pipeline.0.type=Resise', "Did you mean 'Resize'?"),
    ('val_evaluator.0.type=LongTailMetrics', "Did you mean 'LongTailMetric'?"),
    ('visualizer.vis_backends.0.type=LocalVisBacken', "Did you mean 'LocalVisBackend'?"),
    ('model.data_preprocessor.type=RIDEDataPreproces', "Did you mean 'RIDEDataPreprocessor'?"),
    ('model.head.init_cfg.type=Normel', "Did you mean 'Normal'?"),
    ('default_hooks.reweighting.type=EMAHok', "Did you mean 'EMAHook'?"),
    ('runner_type=Runer', "Did you mean 'Runner'?"),
    ('train_dataloader.sampler.shufle=True', "Did you mean 'shuffle'?"),
    ('train_cfg.max_epoch=3', "Did you mean 'max_epochs'?"),
    ('optim_wrapper.paramwise_cfg.bias_lr_mul=2', "Did you mean 'bias_lr_mult'?"),
    ('train_dataloader.dataset.ann_file=a', 'DigitsLT has no option'),
    ('model.test_cfg.treshold=0', "Did you mean 'threshold'?"),
    ('foo=1', 'nothing reads foo at the top level'),
]


def given(*options):
    """What the command line of the tools makes of --cfg-options."""
    parser = argparse.ArgumentParser(parents=[launch.common_arguments()])
    return parser.parse_args(['c.py', '--cfg-options', *options]).cfg_options


def load(root, *options):
    """Read the config and build the model, as tools/train.py does."""
    cfg = load_training(str(root / DIGITS), given(*options))
    MODELS.build(cfg.model)
    return cfg


@pytest.mark.parametrize('option, message', [*WRONG_TYPES, *OUT_OF_RANGE, *WRONG_NAMES])
def test_a_wrong_option_is_told_in_one_line(root, option, message):
    with pytest.raises(UserError) as info:
        load(root, option)
    told = str(info.value)
    assert message in told
    assert option.split('=')[0] in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize('option', ['model.num_experts=[1,2', "custom_hooks=[{'a':(1,2)},{'b':3}]"])
def test_a_value_that_cannot_be_read(option):
    with pytest.raises(UserError) as info:
        given('randomness.seed=3', option)
    assert str(info.value).startswith(f'--cfg-options {option}: this value cannot be read')


def test_an_option_of_another_sampler(root):
    with pytest.raises(
        UserError,
        match='sampler.shuffle: ClassBalanced.* has '
        "no option 'shuffle'. It takes dataset, seed, epoch_",
    ):
        load(root, 'train_dataloader.sampler.type=ClassBalancedSampler')


@pytest.mark.parametrize(
    'options',
    [
        ['model.num_experts=2', 'compile=True', 'work_dir=there'],
        ['model.head.router=None', 'default_hooks.two_stage=None'],
        ['model.test_cfg.threshold=[0.2,0.3]', 'model.head.diversity=None'],
        ['optim_wrapper.optimizer.lr=1', 'optim_wrapper.clip_grad.max_norm=5'],
        ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=bfloat16'],
        ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.loss_scale=512.'],
        ['optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult=2'],
        [
            'optim_wrapper.optimizer._delete_=True',
            'optim_wrapper.optimizer.type=AdamW',
            'optim_wrapper.optimizer.betas=[0.9,0.95]',
        ],
        ['train_dataloader.num_batch_per_epoch=3', 'train_cfg.val_begin=2'],
        ['train_dataloader.persistent_workers=0', 'resume=True'],
        ['train_dataloader.dataset.indices=100', 'randomness.seed=None'],
        ['val_evaluator.0.topk=[1,5]', 'val_evaluator.0.thresholds=[20,100]'],
        ['val_evaluator.0.class_counts=counts.json', 'default_hooks.logger=None'],
        ['default_hooks.ema.type=EMAHook', 'default_hooks.ema.priority=LOW'],
        ['param_scheduler.0.convert_to_iter_based=True'],
        ['model.head.init_cfg.type=Normal', 'model.head.init_cfg.layer=Linear'],
        ['model.data_preprocessor.batch_augments.augments.type=Remix'],
        ['val_cfg.fp16=True', 'env_cfg.cudnn_benchmark=False'],
        ['model.head.loss.type=mmpretrain.BalancedSoftmaxLoss', 'model.head.loss._delete_=True'],
    ],
)
def test_right_options_pass(root, options):
    load(root, *options)


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_pass(root, name):
    cfg = Config.fromfile(root / name)
    check_config(cfg)
    check_together(cfg)


NEW_STYLE = """
from mmengine.config import read_base
from mmengine.optim import OptimWrapper
from torch.optim import SGD
from ride_mm.models import (CosineClassifier, CIFARResNet, LDAMLoss,
                            RIDEClassifier, RIDEHead)

model = dict(
    type=RIDEClassifier,
    backbone=dict(type=CIFARResNet, depth=32),
    neck=None,
    head=dict(
        type=RIDEHead, num_classes=10, in_channels=64, num_experts=3,
        classifier=dict(type=CosineClassifier), loss=dict(type=LDAMLoss)))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.1))
"""


@pytest.mark.parametrize(
    'option, message',
    [
        ('model.head.loss.max_margn=1', "LDAMLoss has no option 'max_margn'. Did"),
        ('model.head.num_classes=abc', 'must be a whole number'),
        ('optim_wrapper.optimizer.lr=-1', 'must be at least 0'),
    ],
)
def test_classes_instead_of_names(tmp_path, option, message):
    path = tmp_path / 'new.py'
    path.write_text(NEW_STYLE.replace('neck=None', 'neck=dict()'))
    load_training(str(path))
    with pytest.raises(UserError, match=message):
        load_training(str(path), given(option))


class Foreign:
    """Of somebody else: no annotations."""

    def __init__(self, number, **kwargs):
        self.options = number, kwargs


class Inexact:
    """Of somebody else: annotated by and large."""

    def __init__(self, number: int = (1, 2), name: str = None):
        self.options = number, name


def test_what_others_annotate_or_not(tmp_path):
    for kind in (Foreign, Inexact):
        kind.__module__ = 'somebody.models'
        MODELS.register_module(module=kind, force=True)
    try:
        for part in (
            dict(type='Foreign', number='one', other=1),
            dict(type='Foreign', number=None),
            dict(type='Inexact', number=[1.5], name=None),
            dict(type='Inexact', number=2.5, name='name'),
        ):
            check_config(Config(dict(model=part)))
        for part in (dict(type='Inexact', number='one'), dict(type='Inexact', name=1)):
            with pytest.raises(UserError, match='must be a'):
                check_config(Config(dict(model=part)))
    finally:
        for kind in (Foreign, Inexact):
            MODELS.module_dict.pop(kind.__name__)


def test_a_hook_of_a_mistyped_name(root):
    with pytest.raises(
        UserError,
        match="default_hooks.two_stge is not a hook: it has no type. Did you mean 'two_stage'?",
    ):
        load(root, 'default_hooks.two_stge.begin=4')


def test_a_hook_without_what_it_needs(root):
    with pytest.raises(
        UserError,
        match='default_hooks.more: TwoStageHook needs begin, optim_wrapper, param_scheduler',
    ):
        load(root, 'default_hooks.more.type=TwoStageHook')


@pytest.mark.parametrize(
    'key', ['train_cfg', 'train_dataloader', 'optim_wrapper', 'val_cfg', 'test_evaluator']
)
def test_half_a_training(root, key):
    cfg = load(root, f'{key}=None')
    with pytest.raises(UserError, match=f'but no {key}: it needs all of'):
        launch.build_runner(cfg)


def test_no_training(root):
    cfg = load(root, 'train_cfg=None', 'train_dataloader=None', 'optim_wrapper=None')
    with pytest.raises(UserError, match='the config has no training'):
        launch.train(cfg)
