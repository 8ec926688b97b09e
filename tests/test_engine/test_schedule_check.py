"""What is refused, warned of and shown before the first step."""

import random

import numpy as np
import pytest
import torch
from runs import build_runner, digits_config

from ride_mm.engine.schedule_check import check_run, describe_schedule, find_unreached
from ride_mm.utils.errors import UserError


@pytest.fixture
def config(root, tmp_path):

    def make(**options):
        cfg = digits_config(
            root,
            tmp_path,
            **{
                'default_hooks.two_stage.param_scheduler.0.T_max': 2,
                'default_hooks.two_stage.param_scheduler.0.end': 2,
            },
        )
        cfg.merge_from_dict(options)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    return make


def built(cfg):
    runner = build_runner(cfg)
    check_run(runner)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    return runner


def cells(table):
    rows = [line for line in table.splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]


def test_a_whole_schedule_is_reached_and_shown(config):
    runner = built(config())
    assert find_unreached(runner) == []
    head, *rows = cells(describe_schedule(runner))
    assert head == [
        'stage',
        'epochs',
        'steps of an epoch',
        'learning rate',
        'schedulers',
        're-weighting',
        'validation',
        'checkpoints',
    ]
    # 105 images at 22 and 32; 1/5 of .05, then the milestones
    assert rows[0] == [
        'stage 1 (experts)',
        '1-3',
        '5',
        '0.01, 0.0005',
        'LinearLR to 2; MultiStepLR at 1, 2',
        'after 2',
        '-',
        'every 1',
    ]
    assert rows[1] == [
        'stage 2 (router)',
        '4-5',
        '4',
        '0.01, 0.005',
        'CosineAnnealingLR to 2',
        '-',
        '-',
        'every 1',
    ]


@pytest.mark.parametrize(
    'options, lines',
    [
        (
            {'param_scheduler.1.milestones': [2, 60, 80]},
            [
                'param_scheduler.1.milestones=[60, 80] is never reached: stage 1 '
                '(experts) has 3 epochs'
            ],
        ),
        (
            {'default_hooks.reweighting.begin': 3},
            ['default_hooks.reweighting.begin=3 is never reached: stage 1 (experts) has 3 epochs'],
        ),
        (
            {'param_scheduler.0.end': 4},
            ['param_scheduler.0.end=4 is never reached: stage 1 (experts) has 3 epochs'],
        ),
        (
            {'param_scheduler.0.end': 4, 'param_scheduler.0.convert_to_iter_based': True},
            ['param_scheduler.0.end=4 is never reached: stage 1 (experts) has 3 epochs'],
        ),
        (
            {'param_scheduler.0.end': 500, 'param_scheduler.0.by_epoch': False},
            ['param_scheduler.0.end=500 is never reached: stage 1 (experts) has 15 steps'],
        ),
        (
            {'param_scheduler.1.begin': 3},
            ['param_scheduler.1.begin=3 is never reached: stage 1 (experts) has 3 epochs'],
        ),
        (
            {
                'default_hooks.two_stage.param_scheduler.0.T_max': 5,
                'default_hooks.two_stage.param_scheduler.0.end': 5,
            },
            [
                'default_hooks.two_stage.param_scheduler.0.T_max=5 is never reached: '
                'stage 2 (router) has 2 epochs'
            ],
        ),
        (
            {'default_hooks.two_stage.param_scheduler.0.T_max': 1},
            [
                'default_hooks.two_stage.param_scheduler.0.T_max=1 ends before the '
                'schedule, so the learning rate rises again: stage 2 (router) has 2 '
                'epochs'
            ],
        ),
        (
            {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='accuracy/top1')]},
            ['custom_hooks.0 stops the whole run: if it stops in stage 1, there is no stage 2'],
        ),
        (
            {
                'default_hooks.two_stage': None,
                'custom_hooks': [dict(type='EMAHook', begin_epoch=9)],
            },
            ['custom_hooks.0.begin_epoch=9 is never reached: the run has 5 epochs'],
        ),
        (
            {
                'custom_hooks': [
                    dict(
                        type='SwitchRecipeHook',
                        schedule=[
                            dict(action_epoch=5, batch_augments=None),
                            dict(action_epoch=6, batch_augments=None),
                        ],
                    )
                ]
            },
            [
                'custom_hooks.0.schedule.1.action_epoch=6 is never reached: the run has 5 epochs',
            ],
        ),
    ],
)
def test_what_is_never_reached(config, options, lines):
    assert find_unreached(built(config(**options))) == lines


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {
                'train_dataloader.drop_last': True,
                'default_hooks.two_stage.train_dataloader.batch_size': 512,
            },
            r'stage 2 \(router\) has no step: 105 images for each process, fewer '
            'than default_hooks.two_stage.train_dataloader.batch_size=512',
        ),
        (
            {
                'train_dataloader.drop_last': True,
                'train_dataloader.batch_size': 106,
                # which MMEngine would build before any hook is asked
                'param_scheduler.0.convert_to_iter_based': True,
            },
            r'stage 1 \(experts\) has no step.*train_dataloader.batch_size=106',
        ),
        (
            {'default_hooks.reweighting.begin': -1},
            'DeferredReweightingHook.begin=-1 must be a whole number',
        ),
        (
            {'default_hooks.reweighting.begin': 1.5},
            'DeferredReweightingHook.begin=1.5 must be a whole number',
        ),
        ({'default_hooks.two_stage.begin': 1.5}, 'TwoStageHook.begin=1.5 must be a whole number'),
        ({'model.head.router': None}, 'model.head.router is None'),
        ({'model.stage': 'router'}, "model.stage='router'"),
        (
            {
                'custom_hooks': [
                    dict(
                        type='SwitchRecipeHook',
                        schedule=[dict(action_epoch=2, loss=dict(type='LDAMLoss'))],
                    )
                ]
            },
            'SwitchRecipeHook cannot change the loss, as in epoch 2: RIDEClassifier has no',
        ),
    ],
)
def test_what_cannot_be_trained(config, options, message):
    with pytest.raises(UserError, match=message):
        check_run(build_runner(config(**options)))


def test_a_run_by_iterations_has_no_epochs(config):
    cfg = config(**{'default_hooks.two_stage': None})
    cfg.train_cfg = dict(by_epoch=False, max_iters=5, val_interval=5)
    with pytest.raises(UserError, match='DeferredReweightingHook.begin is an'):
        check_run(build_runner(cfg))
    cfg.default_hooks.reweighting = None
    runner = built(cfg)
    assert find_unreached(runner) == [
        f'param_scheduler.{i} counts epochs, and '
        'train_cfg=dict(by_epoch=False) has none: it has no '
        'effect'
        for i in (0, 1)
    ] + [
        'default_hooks.checkpoint counts epochs, and train_cfg=dict('
        'by_epoch=False) has none: set its by_epoch=False'
    ]
    _, (name, epochs, steps, *_) = cells(describe_schedule(runner))
    assert (name, epochs, steps) == ('stage 1 (experts)', '-', '5')


def test_a_last_batch_of_one_image(config):
    """It is refused where BatchNorm would see one value a channel."""
    options = {'train_dataloader.batch_size': 13}  # 105 = 8 * 13 + 1
    # The last feature maps have 2 x 2 values.
    check_run(build_runner(config(**options)))
    cfg = config(**options)
    resize, _, crop, *_ = cfg.train_dataloader.dataset.pipeline
    resize['scale'], crop['size'] = (4, 4), 4
    runner = build_runner(cfg)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    with pytest.raises(
        UserError,
        match='105 images for each process at train_dataloader.batch_size'
        '=13 leave a batch of one.*drop_last=True',
    ):
        check_run(runner)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2][1]).all()
    cfg.train_dataloader.drop_last = True
    check_run(build_runner(cfg))
