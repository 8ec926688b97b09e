"""Give right and wrong options to tools/train.py, in this process.

    python tests/stress/fuzz_options.py --inputs 1000 --seed 0

Each setting of several shipped configs is given a value of another type, one
out of range, NaN or infinity, and its own value again; its key and the names
of classes are mistyped; and a list of right options is given. What is wrong
has to be refused in one line that names the key; what is right has to train:
the digits take a step of training, other configs, whose images are elsewhere,
are read and their networks of CIFAR's size are built. The table counts what
became of the inputs; the exit status is 1 if anything was bad.
"""

import argparse
import itertools
import logging
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmpretrain.registry import DATASETS, MODELS
from outcomes import Outcome, Outcomes, try_input

from ride_mm.engine import launch
from ride_mm.engine.schedule import load_training

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'configs/ride_r32_digits_lt.py'
CONFIGS = [
    DIGITS,
    'configs/ride_r32_cifar100_lt_distill.py',
    'configs/sade_r32_cifar100_lt.py',
    'configs/baselines/ldam_drw_r32_cifar100_lt.py',
    'configs/baselines/crt_r32_cifar100_lt.py',
    'configs/ride_r50_imagenet_lt.py',
    'configs/ride_swin_t_imagenet_lt.py',
    'configs/ride_r50_inaturalist2018.py',
]
# Quick to train: small images and a batch or two.
FAST = [
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'train_dataloader.batch_size=8',
    'val_dataloader.batch_size=8',
    'val_dataloader.dataset.indices=8',
]

# Settings that mean something below 0.
_SIGNED = ('interval', 'max_keep_ckpts', 'out_indices', 'pad_val', 'mean', 'tau')
# Dicts of which mmengine reads what the user puts there.
_FREE = (
    'mp_cfg',
    'dist_cfg',
    'custom_imports',
    'custom_keys',
    'init_cfg',
    'compile',
    'options',
    'arch',
    'stage_cfgs',
    'hparams',
)
# Networks of ImageNet's size are not built, which would check these.
_OF_MODEL = (['test_cfg'], ['teacher'])

RIGHT = [
    ['model.num_experts=2'],
    ['model.num_experts=6'],
    ['model.head.router=None', 'default_hooks.two_stage=None'],
    ['model.head.diversity=None'],
    ['model.head.diversity.weight=0'],
    ['model.head.joint_loss=True'],
    ['model.head.loss.type=BalancedSoftmaxLoss', 'model.head.loss._delete_=1'],
    ['model.head.loss.type=CrossEntropyLoss', 'model.head.loss._delete_=True'],
    ['model.head.classifier.scale=16'],
    ['model.test_cfg.mode=ensemble'],
    ['model.test_cfg.threshold=[0.2,0.9]'],
    ['model.backbone.depth=20', 'model.neck.expert.depth=20'],
    ['model.data_preprocessor.batch_augments.augments.type=Remix'],
    [
        'model.data_preprocessor.batch_augments.augments.type=Mixup',
        'model.data_preprocessor.batch_augments.augments.alpha=0.2',
    ],
    ['train_cfg.max_epochs=50'],
    ['train_cfg.val_interval=1', 'train_cfg.val_begin=2'],
    ['default_hooks.two_stage.begin=36'],
    ['default_hooks.reweighting=None'],
    ['default_hooks.reweighting.begin=0'],
    ['default_hooks.reweighting.beta=0.99'],
    ['default_hooks.visualization=None'],
    ['default_hooks.checkpoint.interval=-1'],
    ['default_hooks.checkpoint.save_best=auto'],
    ['default_hooks.checkpoint.max_keep_ckpts=-1'],
    ['default_hooks.ema.type=EMAHook', 'default_hooks.ema.momentum=0.01'],
    ['default_hooks.router_cache.type=RouterCacheHook'],
    ['custom_hooks=[]'],
    ['optim_wrapper.optimizer.lr=1e-3'],
    ['optim_wrapper.optimizer.lr=1'],
    ['optim_wrapper.optimizer.nesterov=False'],
    ['optim_wrapper.optimizer.momentum=0', 'optim_wrapper.optimizer.nesterov=False'],
    [
        'optim_wrapper.optimizer._delete_=True',
        'optim_wrapper.optimizer.type=AdamW',
        'optim_wrapper.optimizer.lr=1e-3',
    ],
    ['optim_wrapper.clip_grad.max_norm=5'],
    ['optim_wrapper.clip_grad.max_norm=5', 'optim_wrapper.clip_grad.norm_type=inf'],
    ['optim_wrapper.clip_grad.type=value', 'optim_wrapper.clip_grad.clip_value=1.'],
    ['optim_wrapper.accumulative_counts=2'],
    ['optim_wrapper.paramwise_cfg.bias_lr_mult=2.'],
    ['optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult=0.1'],
    ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=bfloat16'],
    ['param_scheduler.1.milestones=[20,30]'],
    ['param_scheduler.0.convert_to_iter_based=True'],
    ['train_dataloader.batch_size=16'],
    ['train_dataloader.drop_last=True'],
    ['train_dataloader.num_batch_per_epoch=3'],
    [
        'train_dataloader.sampler.type=ClassBalancedSampler',
        'train_dataloader.sampler._delete_=True',
    ],
    ['train_dataloader.dataset.imb_factor=0.1'],
    ['train_dataloader.dataset.imb_factor=1'],
    ['train_dataloader.dataset.imb_type=step'],
    ['val_evaluator.0.topk=[1,5]'],
    ['val_evaluator.0.by_class=True'],
    ['val_evaluator.0.thresholds=[5,20]'],
    ['val_cfg.fp16=False'],
    ['randomness.seed=7', 'randomness.deterministic=True'],
    ['randomness.seed=None'],
    ['resume=False', 'load_from=None'],
    ['log_level=WARNING'],
    ['compile=False'],
    ['find_unused_parameters=True'],
    ['visualizer.vis_backends=[]'],
    ['env_cfg.cudnn_benchmark=False'],
    ['env_cfg.mp_cfg.opencv_num_threads=1'],
    ['auto_scale_lr.enable=True'],
]
WRONG = [
    'model.num_experts=[1,2',
    'model.num_experts=(1',
    'model..num_experts=2',
    '=1',
    '.=1',
    'model.=1',
    'model=abc',
    'model=[]',
    'model=3',
    "val_evaluator=[{'type':'LongTailMetric'},{'type':'ExpertUsageMetric'}]",
    "optim_wrapper={'type':'OptimWrapper'}",
    'foo=1',
    'foo.bar=1',
    'resum=True',
    'data.samples_per_gpu=4',
    'default_hooks.two_stge.begin=4',
    'default_hooks.more.type=TwoStageHook',
    'custom_hooks.1.begin=3',
    'model=None',
    'train_cfg=None',
    'train_dataloader=None',
    'optim_wrapper=None',
    'val_cfg=None',
    'val_dataloader=None',
    'train_dataloader.dataset=None',
    'train_dataloader.sampler=None',
    'model.backbone=None',
    'model.neck=None',
    'model.head=None',
    'model.head.loss=None',
    'model.head.classifier=None',
    'optim_wrapper.optimizer=None',
    'randomness=None',
    'env_cfg=None',
    'model.head.class_counts=[0,0,0,0,0,0,0,0,0,0]',
    'model.head.class_counts=[3,4]',
    'model.head.class_counts=3',
    'model.head.class_counts=[a,b]',
    'model.stage=roter',
    'model.test_cfg.mode=rout',
    'model.test_cfg.threshold=1.5',
    'model.test_cfg.threshold=[0.1]',
    'model.test_cfg.threshold=abc',
    'model.test_cfg.treshold=0.5',
    'model.teacher.config=3',
    'model.teacher.chekpoint=a',
    'train_dataloader.dataset.split=test',
    'train_dataloader.dataset.split=tset',
    'train_dataloader.dataset.imb_type=linear',
    'train_dataloader.sampler.type=ClassBalancedSampler',
    'optim_wrapper.clip_grad.max_norm=0',
    'optim_wrapper.clip_grad.norm=3',
    'optim_wrapper.paramwise_cfg.bias_lr_mul=2',
    'optim_wrapper.optimizer.lr=[0.1]',
    'load_from=nowhere.pth',
    'log_level=LOUD',
    'compile=abc',
    'val_evaluator.0.topk=0',
    'val_evaluator.0.topk=11',
    'val_evaluator.0.thresholds=rid',
    'val_evaluator.0.thresholds=[5]',
    'default_hooks.two_stage.begin=99',
    'default_hooks.two_stage.begin=0',
    'default_hooks.checkpoint.save_best=3',
    'default_hooks.checkpoint.save_best=acuracy',
    'train_cfg.by_epoch=False',
]


class _Trained(BaseException):
    """A step was taken."""


@HOOKS.register_module()
class StopHook(Hook):
    """Ends a training after its first step."""

    def after_train_iter(self, *_, **__) -> None:
        raise _Trained


class Input(NamedTuple):
    """Options for a config, and whether they are right."""

    kind: str
    config: str
    options: Sequence[str]
    is_right: bool


def leaves(node: Any, prefix: str = '') -> Iterator[tuple]:
    """Dotted keys and values of all settings in a config."""
    items = dict(enumerate(node)) if isinstance(node, (list, tuple)) else node
    if not isinstance(items, dict):
        yield prefix, node
        return
    if isinstance(node, (list, tuple)) and node:
        yield prefix, node
    for key, value in items.items():
        if key not in _FREE:
            yield from leaves(value, f'{prefix}.{key}' if prefix else str(key))


def mistyped(rng: random.Random, name: str) -> str:
    """A name with a letter left out, twice or exchanged with the next."""
    i = rng.randrange(1, len(name) - 1)
    return rng.choice(
        [
            name[:i] + name[i + 1 :],
            name[:i] + name[i] + name[i:],
            name[:i] + name[i + 1] + name[i] + name[i + 2 :]
            if name[i] != name[i + 1]
            else name + name[-1],
        ]
    )


def text(value: Any) -> str:
    """A value as it is given on the command line."""
    if isinstance(value, (list, tuple)):
        return f'[{",".join(map(text, value))}]' if '{' not in str(value) else '[]'
    return str(value)


def mutations(rng: random.Random, config: str, key: str, value: Any) -> Iterator[Input]:
    """Inputs that change one setting."""
    *before, name = key.split('.')
    if name.isdigit() and not isinstance(value, dict):
        # MMEngine sets lists of values as a whole
        yield Input('key', config, [f'{key}={text(value)}'], False)
        return

    def wrong(kind: str, value: Any, at: str = key) -> Input:
        return Input(kind, config, [f'{at}={text(value)}'], False)

    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number:
        # a string is right
        if name != 'magnitude_std':
            yield wrong('type', 'abc')
        yield wrong('not finite', rng.choice(['nan', 'inf', '-inf']))
        if name not in _SIGNED:
            yield wrong('range', rng.choice([-1, -3]))
        if isinstance(value, int) and name not in (
            'weight',
            'scale',
            'loss_weight',
            'alpha',
            'pos_weight',
            'end_factor',
            'degrees',
            'std',
            'tau',
            'magnitude_level',
            'total_level',
        ):
            yield wrong('type', value + 0.5)
    elif isinstance(value, bool):
        yield wrong('type', rng.choice(['abc', 3]))
    elif isinstance(value, str):
        # mmpretrain's transforms do not annotate them
        if name not in ('backend', 'mode'):
            yield wrong('type', 3)
        if name == 'type':
            typo = mistyped(rng, value)
            # such as CIFAR10LT for CIFAR100LT
            if typo not in DATASETS:
                yield wrong('name', typo)
            if value != value.lower():
                yield wrong('name', value.lower())
    elif isinstance(value, (list, tuple)) and name != 'fill_std':
        yield wrong('type', 'abc')
    if before and len(name) > 3:
        if name != 'type':
            typo = '.'.join([*before, mistyped(rng, name)])
            yield wrong('key', value if value is not None else 1, typo)
    if isinstance(value, (bool, int, float, str)) and '{' not in str(value):
        yield Input('as it is', config, [f'{key}={text(value)}'], True)


def inputs(seed: int) -> Iterator[Input]:
    """All inputs, in an order that the seed gives."""
    rng = random.Random(seed)
    found = [Input('right', DIGITS, options, True) for options in RIGHT]
    found += [Input('wrong', DIGITS, [option], False) for option in WRONG]
    for config in CONFIGS:
        cfg = Config.fromfile(ROOT / config)
        read = {
            key: cfg[key]
            for key in (
                'model',
                'train_dataloader',
                'val_dataloader',
                'test_dataloader',
                'train_cfg',
                'optim_wrapper',
                'param_scheduler',
                'auto_scale_lr',
                'default_hooks',
                'val_evaluator',
                'randomness',
                'visualizer',
                'load_from',
                'resume',
                'log_level',
                'env_cfg',
            )
        }
        for key, value in leaves(read):
            if 'r32' not in config and key.split('.')[1:2] in _OF_MODEL:
                continue
            found += mutations(rng, config, key, value)
    rng.shuffle(found)
    return itertools.chain(found)


def train(one: Input, folder: Path, number: int) -> None:
    """Do with an input what tools/train.py does, up to the first step."""
    parser = argparse.ArgumentParser(parents=[launch.common_arguments()])
    fast = FAST if one.config == DIGITS else []
    given = [option.split('=')[0] for option in one.options]
    fast = [
        option
        for option in fast
        if not any(option.startswith(key) or key.startswith(option.split('=')[0]) for key in given)
    ]
    args = parser.parse_args([str(ROOT / one.config), '--cfg-options', *fast, *one.options])
    cfg = load_training(args.config, args.cfg_options)
    if one.config != DIGITS:
        if 'r32' in one.config:
            MODELS.build(cfg.model)
        return
    launch.set_work_dir(cfg, str(folder / str(number)), args.config)
    launch.set_resume(cfg, None)
    launch.set_dataloader_defaults(cfg)
    cfg.experiment_name = f'fuzz_{number}'
    cfg.default_hooks.stop = dict(type='StopHook')
    try:
        launch.train(cfg)
    except _Trained:
        pass


def fuzz(folder: Path, seed: int, number: int) -> Outcomes:
    """Try inputs.

    Args:
        folder (Path): An empty folder to work in.
        seed (int): Of all inputs.
        number (int): How many.

    Returns:
        Outcomes: What became of them.
    """
    outcomes = Outcomes()
    for count, one in enumerate(itertools.islice(inputs(seed), number)):

        def judge(_) -> str | None:
            return None if one.is_right else 'nothing was said'

        with mock.patch.object(Config, 'pretty_text', ''), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            outcome = try_input(lambda: train(one, folder, count), judge)
        if outcome.name == 'refused':
            outcome = judge_refusal(one, outcome)
        outcomes.add(one.kind, f'{one.config} {" ".join(one.options)}', outcome)
    return outcomes


def judge_refusal(one: Input, outcome: Outcome) -> Outcome:
    """Only what is wrong may be refused, and the message names it."""
    if one.is_right:
        return outcome._replace(name='wrongly refused')
    key = one.options[0].split('=')[0].split('.')
    if not any(part in outcome.detail for part in key[-2:]):
        return outcome._replace(name='unclear message')
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--inputs', type=int, default=1000, metavar='N')
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(Path(folder), args.seed, args.inputs).finish()


if __name__ == '__main__':
    sys.exit(main())
