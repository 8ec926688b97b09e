import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from ride_mm.engine.config import load_config
from ride_mm.engine.schedule import (
    check_schedulers,
    first_stage_epochs,
    load_training,
    scale_schedule,
)
from ride_mm.utils.errors import UserError


def hooks_of(cfg):
    return {hook.type: hook for hook in cfg.default_hooks.values() if hook}


def test_two_stages(root):
    cfg = load_config(str(root / 'configs/ride_r32_cifar100_lt.py'))
    router = dict(hooks_of(cfg)['TwoStageHook'].param_scheduler[0])
    assert first_stage_epochs(cfg) == 200
    scale_schedule(cfg, 20)
    assert first_stage_epochs(cfg) == 20
    assert cfg.train_cfg.max_epochs == 25
    assert hooks_of(cfg)['DeferredReweightingHook'].begin == 16
    warm_up, steps = cfg.param_scheduler
    assert warm_up.end == 2  # a tenth of 5 epochs would be none
    assert warm_up.start_factor == 1 / 5
    assert steps.milestones == [16, 18]
    assert hooks_of(cfg)['TwoStageHook'].param_scheduler[0] == router


def test_one_stage_and_a_cosine(root):
    cfg = load_config(str(root / 'configs/ride_swin_t_imagenet_lt.py'))
    cfg.default_hooks.two_stage = None
    cfg.train_cfg.max_epochs = 300
    scale_schedule(cfg, 30)
    assert cfg.train_cfg.max_epochs == 30
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, cosine.T_max, cosine.end) == (2, 30, 30)
    assert (warm_up.start_factor, cosine.eta_min) == (1e-3, 1e-5)


def test_longer_and_from_the_beginning():
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=3),
            param_scheduler=dict(type='PolyLR', begin=0, end=2),
            custom_hooks=[dict(type='Other', priority=3)],
        )
    )
    scale_schedule(cfg, 9)
    assert cfg.train_cfg.max_epochs == 9
    assert cfg.param_scheduler == dict(type='PolyLR', begin=0, end=6)
    assert cfg.custom_hooks == [dict(type='Other', priority=3)]


def test_the_rule_is_that_of_the_short_runs(root):
    for file in (root / 'results/short').glob('*.json'):
        run = json.loads(file.read_text())
        if run['name'] == 'crt':  # ten epochs of its own
            continue
        path = str(root / run['config'])
        by_hand, scaled = load_config(path), load_config(path)
        by_hand.merge_from_dict(run['options'])
        scale_schedule(scaled, 10)
        assert first_stage_epochs(scaled) == 10
        assert scaled.param_scheduler == by_hand.param_scheduler
        by_hand.default_hooks.checkpoint.interval = 1
        assert scaled.default_hooks == by_hand.default_hooks


def learning_rates(schedules, epochs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(schedule), default_args={'optimizer': optimizer})
        for schedule in schedules
    ]
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_a_short_training_reaches_the_whole_learning_rate(root):
    cfg = load_config(str(root / 'configs/ride_r32_cifar100_lt.py'))
    scale_schedule(cfg, 10)
    check_schedulers(cfg)
    assert learning_rates(cfg.param_scheduler, 10) == pytest.approx([0.02, *[0.1] * 7, 1e-3, 1e-5])


@pytest.mark.parametrize('prefix', ['', 'default_hooks.two_stage.'])
def test_a_scheduler_that_ends_before_it_begins(root, prefix):
    cfg = Config.fromfile(root / 'configs/ride_r32_digits_lt.py')
    cosine = dict(type='CosineAnnealingLR', begin=5, end=5)
    cfg.merge_from_dict({f'{prefix}param_scheduler': [cosine]})
    words = rf'^{re.escape(prefix)}param_scheduler\.0 has begin=5 and end=5, expected begin < end$'
    with pytest.raises(UserError, match=words):
        check_schedulers(cfg)


def test_a_warm_up_that_never_ends(root):
    cfg = load_config(str(root / 'configs/ride_r32_cifar100_lt.py'), {'param_scheduler.0.end': 1})
    assert learning_rates(cfg.param_scheduler, 3) == pytest.approx([0.02] * 3)
    with pytest.raises(UserError, match='param_scheduler.0.end=2 the first'):
        check_schedulers(cfg)


@pytest.mark.parametrize(
    'fine',
    [
        dict(type='LinearLR', end=2),
        dict(type='LinearLR', begin=1),
        dict(type='LinearLR', end=1, by_epoch=False),
        dict(type='LinearLR', end=1, by_epoch=True, convert_to_iter_based=True),
        dict(type='MultiStepLR', milestones=[1], end=1),
    ],
)
def test_other_schedules_are_left_alone(fine):
    check_schedulers(Config(dict(param_scheduler=fine)))
    check_schedulers(Config(dict(param_scheduler=[fine])))
    check_schedulers(Config(dict(param_scheduler=None)))


def test_iterations_are_refused():
    by_iterations = dict(train_cfg=dict(by_epoch=False, max_iters=5))
    with pytest.raises(UserError, match='train_cfg.max_epochs is missing'):
        scale_schedule(Config(by_iterations), 3)


def scaled_schedulers(new, old, *schedulers):
    cfg = Config(dict(train_cfg=dict(max_epochs=old), param_scheduler=list(schedulers)))
    scale_schedule(cfg, new)
    return cfg.param_scheduler


def test_what_follows_a_warm_up_still_follows_it():
    warm_up, cosine, steps = scaled_schedulers(
        10,
        100,
        dict(type='LinearLR', end=10),
        dict(type='CosineAnnealingLR', begin=10, T_max=90, end=100),
        dict(type='MultiStepLR', begin=10, milestones=[50, 85], end=100),
    )
    assert warm_up.end == cosine.begin == steps.begin == 2
    assert (cosine.T_max, cosine.end, steps.end) == (9, 10, 10)
    assert steps.milestones == [5, 8]  # from the begin on


def test_recipes_switch_in_proportion():
    schedule = [dict(action_epoch=epoch) for epoch in (1, 31, 55)]
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=60),
            custom_hooks=[dict(type='SwitchRecipeHook', schedule=schedule)],
        )
    )
    scale_schedule(cfg, 20)
    # after 0, 30 and 54 of 60 epochs
    assert [recipe.action_epoch for recipe in cfg.custom_hooks[0].schedule] == [1, 11, 19]


def test_recipes_of_a_short_run_that_fall_on_one_epoch(root):
    cfg = load_training(str(root / 'configs/ride_r32_cifar100_lt_fast.py'), epochs=6)
    schedule = cfg.default_hooks.recipe.schedule
    epochs = [recipe.action_epoch for recipe in schedule]
    assert epochs == sorted(set(epochs)) and len(epochs) < 3
    assert schedule[-1].train_pipeline == [cfg.whole_image]


def test_recipes_of_the_router_alone(root, tmp_path):
    path = str(root / 'configs/ride_r32_cifar100_lt_fast.py')
    cfg = load_training(path, stage='router')
    (recipe,) = cfg.default_hooks.recipe.schedule
    assert recipe == dict(action_epoch=1, train_pipeline=[cfg.whole_image])
    child = tmp_path / 'child.py'
    recipes = [dict(action_epoch=epoch, batch_augments=epoch) for epoch in (40, 51, 53)]
    child.write_text(
        f'_base_ = {path!r}\n'
        f"default_hooks = dict(recipe=dict(_delete_=True, type='SwitchRecipeHook', "
        f'schedule={recipes}))\n'
    )
    first, last = load_training(str(child), stage='router').default_hooks.recipe.schedule
    # after 50 epochs of the experts
    assert first == dict(action_epoch=1, batch_augments=51)
    assert last == dict(action_epoch=3, batch_augments=53)


def test_steps_periods_and_gamma():
    steps, restarts, by_step, decay, cosine = scaled_schedulers(
        20,
        200,
        dict(type='StepLR', step_size=60),
        dict(type='CosineRestartLR', periods=[20, 60, 120], restart_weights=[1] * 3),
        dict(type='LinearLR', by_epoch=False, begin=0, end=500),
        dict(type='ExponentialLR', gamma=0.98),
        dict(type='CosineAnnealingLR'),
    )
    assert steps.step_size == 6
    assert restarts.periods == [2, 6, 12]
    assert by_step.end == 50
    assert decay.gamma == pytest.approx(0.98**10)
    assert dict(cosine) == dict(type='CosineAnnealingLR')


@pytest.mark.parametrize(
    'config',
    [
        'ride_r32_digits_lt',
        'ride_swin_t_imagenet_lt',
        'ride_r152_places_lt',
        'ride_r32_cifar100_lt_distill',
        'baselines/ldam_drw_r32_cifar100_lt',
        'baselines/crt_r32_cifar100_lt',
    ],
)
@pytest.mark.parametrize('epochs', [2, 3, 4, 9, 41, 1000])
def test_whole_trainings(root, config, epochs):
    """The rules, for every kind of config and any length."""
    path = str(root / f'configs/{config}.py')
    old, cfg = load_config(path), load_training(path, None, epochs)
    first = first_stage_epochs(cfg)
    assert cfg.train_cfg.max_epochs == epochs
    hooks = hooks_of(cfg)
    if 'TwoStageHook' in hooks:
        assert 1 <= first < epochs
        share = 1 - first_stage_epochs(old) / old.train_cfg.max_epochs
        assert epochs - first == max(1, round(share * epochs))
        (stage_2,) = hooks['TwoStageHook'].param_scheduler
        assert stage_2.T_max == stage_2.end == epochs - first
    else:
        assert first == epochs
    rates = learning_rates(
        [
            dict(schedule, end=min(schedule.get('end', first), first))
            for schedule in cfg.param_scheduler
            if not schedule.get('convert_to_iter_based')
        ],
        first,
    )
    if first > 2 and 'swin' not in config and 'crt' not in config:
        assert max(rates) == pytest.approx(0.1)  # the warm-up has an end
        assert rates[-1] < 0.02  # no milestone is lost
        if 'DeferredReweightingHook' in hooks:
            assert 0 < hooks['DeferredReweightingHook'].begin < first
    assert 1 <= cfg.train_cfg.val_interval <= epochs
    assert 1 <= hooks['CheckpointHook'].interval <= epochs


def test_the_end_of_stage_1_is_still_validated_and_saved(root):
    path = str(root / 'configs/ride_r32_digits_lt.py')
    for epochs, interval in ((9, 2), (18, 4), (15, 3), (90, 20)):
        cfg = load_training(path, None, epochs)
        assert cfg.train_cfg.val_interval == interval
        assert cfg.default_hooks.checkpoint.interval == interval
        if epochs != 15:  # of 13 epochs
            assert first_stage_epochs(cfg) % interval == 0


def test_options_win_by_name(root, capsys):
    path = str(root / 'configs/ride_r32_digits_lt.py')
    cfg = load_training(
        path,
        {
            'default_hooks.two_stage.begin': 6,
            'train_cfg.max_epochs': 7,
            'train_cfg.val_interval': 3,
            'param_scheduler.1.milestones': [4, 5],
            'optim_wrapper.optimizer.lr': 0.2,
        },
        8,
    )
    assert (first_stage_epochs(cfg), cfg.train_cfg.max_epochs) == (6, 8)
    assert cfg.default_hooks.reweighting.begin == 5  # 32 of 40
    assert cfg.train_cfg.val_interval == 3
    assert cfg.param_scheduler[1].milestones == [4, 5]
    assert cfg.optim_wrapper.optimizer.lr == 0.2
    assert capsys.readouterr().err.splitlines() == [
        'warning: --epochs 8 overrides --cfg-options train_cfg.max_epochs=7',
        'warning: --cfg-options train_cfg.val_interval=3, '
        'param_scheduler.1.milestones=[4, 5] overrides --epochs 8, which '
        'would scale this value',
    ]


def test_hooks_that_are_taken_out(root):
    path = str(root / 'configs/ride_r32_digits_lt.py')
    cfg = load_training(path, {'default_hooks.two_stage': None}, 9)
    assert first_stage_epochs(cfg) == 9
    assert cfg.default_hooks.reweighting.begin == 6  # 32 of 45


@pytest.mark.parametrize(
    'epochs, options, message',
    [
        (1, {}, '--epochs 1: the config has two stages'),
        (5, {'default_hooks.two_stage.begin': 5}, 'begin=5 must lie between'),
        (5, {'default_hooks.two_stage.begin': 1.5}, 'begin=1.5 must lie between'),
    ],
)
def test_too_few_epochs(root, epochs, options, message):
    with pytest.raises(UserError, match=message):
        load_training(str(root / 'configs/ride_r32_digits_lt.py'), options, epochs)


@pytest.mark.parametrize(
    'config, batch, first',
    [
        ('ride_r32_cifar100_lt', 512, 200),
        ('ride_r32_digits_lt', 64, 40),
        ('ride_r50_imagenet_lt', 64, 100),
        ('ride_r152_places_lt', 128, 30),
        ('ride_swin_t_imagenet_lt', 64, 300),
    ],
)
def test_the_router_alone(root, config, batch, first):
    path = str(root / f'configs/{config}.py')
    hook = load_config(path).default_hooks.two_stage
    cfg = load_training(path, stage='router')
    assert cfg.model.stage == 'router'
    assert cfg.load_from == f'work_dirs/{config}/epoch_{first}.pth'
    assert cfg.work_dir == f'work_dirs/{config}_router'
    loader = cfg.train_dataloader
    assert loader.batch_size == batch
    assert dict(loader.sampler) == dict(type='ClassBalancedSampler')
    assert loader.dataset == load_config(path).train_dataloader.dataset
    assert cfg.optim_wrapper.optimizer == hook.optim_wrapper.optimizer
    assert 'paramwise_cfg' not in cfg.optim_wrapper
    assert cfg.param_scheduler == hook.param_scheduler
    assert dict(cfg.auto_scale_lr) == dict(base_batch_size=512, enable=False)
    assert cfg.train_cfg.max_epochs == 5
    assert not {'TwoStageHook', 'DeferredReweightingHook'} & set(hooks_of(cfg))
    assert cfg.model.get('init_cfg') is None


def test_one_stage_of_another_length(root, capsys):
    path = str(root / 'configs/ride_r32_digits_lt.py')
    cfg = load_training(path, stage='experts')
    assert cfg.train_cfg.max_epochs == 40
    assert 'TwoStageHook' not in hooks_of(cfg)
    assert cfg.param_scheduler == load_config(path).param_scheduler
    assert load_training(path, None, 10, 'experts').param_scheduler[1].milestones == [8, 9]
    cfg = load_training(
        path,
        {
            'train_dataloader.batch_size': 48,
            'optim_wrapper.optimizer.lr': 0.02,
            'default_hooks.two_stage.train_dataloader.sampler.type': 'DefaultSampler',
            'load_from': 'experts.pth',
            'param_scheduler.1.gamma': 0.5,
        },
        3,
        'router',
    )
    assert cfg.train_dataloader.batch_size == 48
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert cfg.optim_wrapper.optimizer.nesterov
    assert cfg.load_from == 'experts.pth'
    assert (cfg.param_scheduler[0].T_max, cfg.train_cfg.max_epochs) == (3, 3)
    assert capsys.readouterr().err == (
        'warning: --cfg-options param_scheduler.1.gamma=0.5 has no effect in this stage\n'
    )
    cfg = load_training(path, {'train_cfg.max_epochs': 2}, stage='router')
    assert cfg.train_cfg.max_epochs == 2
    cfg = load_training(path, {'default_hooks.two_stage.begin': 30}, stage='experts')
    assert cfg.train_cfg.max_epochs == 30


def test_no_stages_to_choose_from(root):
    with pytest.raises(UserError, match='--stage router: the config has no'):
        load_training(str(root / 'configs/baselines/ce_r32_cifar100_lt.py'), stage='router')
