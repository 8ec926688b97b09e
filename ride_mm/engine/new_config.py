"""Write a config for somebody's own images."""

import os
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any, NamedTuple

from mmpretrain.registry import DATASETS
from PIL import Image

from ride_mm.datasets.class_groups import GROUPS, ClassGroups
from ride_mm.models.classifiers.normalization import HALF, IMAGENET, Normalization, expected
from ride_mm.utils.errors import UserError

# Images of which the size is read.
_SAMPLE = 200
# Steps that a training of the experts should have at least.
_STEPS = 120
_BATCH = 64
_EPOCHS = (10, 40)


class Network(NamedTuple):
    """A pretrained network.

    Args:
        config (str): Its config in ``_base_/models``.
        normalization (Normalization): What its weights expect.
    """

    config: str
    normalization: Normalization


# From light to heavy.
NETWORKS = dict(
    lite0=Network('ride_lite0', HALF),
    lite2=Network('ride_lite2', HALF),
    r50=Network('ride_r50_pretrained', IMAGENET),
    deit_s=Network('ride_deit_s_pretrained', IMAGENET),
    convnext_t=Network('ride_convnext_t_pretrained', IMAGENET),
)

TEMPLATE = """\
{head}
_base_ = [
    'ride_mm::_base_/models/{model}.py',
    'ride_mm::_base_/schedules/fine_tuning.py',
]

num_classes = {num_classes}
size = {size}  # height and width of the network's input
epochs = {epochs}  # of the experts; five of the router follow

model = dict({pretrained}head=dict(num_classes=num_classes, router=dict(topk={topk})))
# What the weights expect.
data_preprocessor = dict({normalization})

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=size, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size={batch_size},
    num_workers=2,
    dataset={train_set},
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset={val_set},
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = [
    dict(type='LongTailMetric', thresholds={thresholds!r}),
    dict(type='ExpertUsageMetric'),
]
test_dataloader = {test_dataloader}
test_evaluator = val_evaluator

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs + 5, val_interval=epochs)
default_hooks = dict(two_stage=dict(begin=epochs, train_dataloader=dict(batch_size={router_batch})))
"""


def write_text(
    train: dict,
    test: dict | None,
    val: dict | None = None,
    network: str = 'lite0',
    pretrained: str | None = None,
    size: int | None = None,
    epochs: int | None = None,
) -> tuple[str, str]:
    """Make the text of a config.

    Args:
        train (dict): Options of the ``LongTailList`` with the training images.
        test (dict, optional): Those of the test images; None holds out a
            fifth of the training images of each class.
        val (dict, optional): Those of the validation images. Defaults to None,
            which means the test images.
        network (str): One of ``NETWORKS``. Defaults to "lite0".
        pretrained (str, optional): A file or URL of its weights. None means
            those in its config.
        size (int, optional): Height and width of the network's input. None
            chooses it by the size of the images.
        epochs (int, optional): Epochs of the experts. None chooses as many as
            make 120 steps, from 10 to 40.

    Returns:
        tuple[str, str]: The config, and a sentence on the images.

    Raises:
        UserError: If the images cannot be read as such a dataset, or there is
            only one epoch.
    """
    if epochs == 1:
        raise UserError('--epochs 1: expected at least 2, the first of which warms up')
    whole = dict(type='LongTailList', **train)
    held_out = {part: dict(type='HoldOut', held_out=part, fraction=0.2) for part in (False, True)}
    built = dict(whole, pipeline=[])
    if test is None:
        built = dict(held_out[False], dataset=built)
    dataset = DATASETS.build(built)
    counts = dataset.metainfo['class_counts']
    if len(counts) < 2:
        raise UserError(f'{train["data_root"]} has {len(counts)} class, expected at least two')
    groups = ClassGroups(counts)
    thresholds = 'ride' if len(groups.masks) > 1 else 'thirds'
    images = sum(counts)
    steps = max(1, images // _BATCH)
    code = {
        part: _code(dict(whole, **options), pipeline, None if test else held_out[is_test])
        for part, options, pipeline, is_test in (
            ('train_set', {}, 'train_pipeline', False),
            ('test_set', test or {}, 'test_pipeline', True),
            ('val_set', val or test or {}, 'test_pipeline', True),
        )
    }
    test_set = code.pop('test_set')
    test_dataloader = 'val_dataloader'
    if val is not None:
        test_dataloader = f'dict(\n    val_dataloader,\n    dataset={test_set},\n)'
    summary = summary_of(groups)
    text = TEMPLATE.format(
        head=fill(
            f'Written by `ride-mm init`: {summary}.',
            width=88,
            initial_indent='# ',
            subsequent_indent='# ',
        ),
        model=NETWORKS[network].config,
        normalization=expected(pretrained or '') or NETWORKS[network].normalization,
        pretrained='' if pretrained is None else _init_cfg(pretrained),
        num_classes=len(counts),
        size=size or choose_size(dataset),
        epochs=epochs or min(max(-(-_STEPS // steps), _EPOCHS[0]), _EPOCHS[1]),
        topk=min(30, len(counts)),
        batch_size=min(_BATCH, max(2, images // 4)),
        router_batch=min(512, max(2, images // 8)),
        thresholds=thresholds,
        test_dataloader=test_dataloader,
        **code,
    )
    return text, summary


def summary_of(groups: ClassGroups) -> str:
    """One sentence on the classes and their images."""
    counts = groups.counts
    shares = ', '.join(
        f'{int(groups.masks[name].sum())} {name}-shot' for name in GROUPS if name in groups.masks
    )
    return (
        f'{len(counts)} classes ({shares}), {counts.sum():,} training images, '
        f'{counts.max():,} to {counts.min():,} of a class'
    )


def choose_size(dataset: Any) -> int:
    """Choose the size of the network's input by that of the images.

    Small images are enlarged, up to twice: what was learned on ImageNet needs
    details of several pixels.
    """
    step = max(1, len(dataset) // _SAMPLE)
    shortest = []
    for index in range(0, len(dataset), step):
        with Image.open(dataset.get_data_info(index)['img_path']) as image:
            shortest.append(min(image.size))
    return min(224, max(96, 2 * round(median(shortest)) // 32 * 32))


def _init_cfg(pretrained: str) -> str:
    """The option for weights, as Python code."""
    if Path(pretrained).is_file():
        pretrained = os.path.abspath(pretrained)
    options = f"_delete_=True, type='Pretrained', checkpoint={pretrained!r}"
    return f'\n    init_cfg=dict({options}),\n    '


def _code(options: dict, pipeline: str, part: dict | None) -> str:
    """A dataset as Python code, inside of a dataloader."""
    lines = [f'{key}={value!r},' for key, value in options.items() if value != '']
    lines = ['dict(', *(f'    {line}' for line in lines), f'    pipeline={pipeline},', ')']
    if part is not None:
        outer = [f'    {key}={value!r},' for key, value in part.items()]
        inner = [f'    {line}' for line in lines]
        inner[0] = f'    dataset={lines[0]}'
        inner[-1] += ','
        lines = ['dict(', *outer, *inner, ')']
    return '\n    '.join(lines)
