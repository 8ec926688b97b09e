import importlib

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from ride_mm.engine.config import load_config
from ride_mm.engine.schedule import (check_warm_up, first_stage_epochs,
                                     scale_schedule)
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
            custom_hooks=[dict(type='Other', priority=3)]))
    scale_schedule(cfg, 9)
    assert cfg.train_cfg.max_epochs == 9
    assert cfg.param_scheduler == dict(type='PolyLR', begin=0, end=6)
    assert cfg.custom_hooks == [dict(type='Other', priority=3)]


def test_the_rule_is_that_of_the_short_runs(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'docs')
    short = importlib.import_module('make_short_runs')
    for name, run in short.RUNS.items():
        if name == 'crt':  # ten epochs of its own
            continue
        path = str(root / 'configs' / run.config)
        by_hand, scaled = load_config(path), load_config(path)
        by_hand.merge_from_dict(run.options)
        scale_schedule(scaled, 10)
        assert first_stage_epochs(scaled) == 10
        assert scaled.param_scheduler == by_hand.param_scheduler
        assert scaled.default_hooks == by_hand.default_hooks


def learning_rates(schedules, epochs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(schedule), default_args={
            'optimizer': optimizer
        }) for schedule in schedules
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
    check_warm_up(cfg)
    assert learning_rates(cfg.param_scheduler, 10) == pytest.approx(
        [0.02, *[0.1] * 7, 1e-3, 1e-5])


def test_a_warm_up_that_never_ends(root):
    cfg = load_config(
        str(root / 'configs/ride_r32_cifar100_lt.py'),
        {'param_scheduler.0.end': 1})
    assert learning_rates(cfg.param_scheduler, 3) == pytest.approx([0.02] * 3)
    with pytest.raises(UserError, match='param_scheduler.0.end=2 the first'):
        check_warm_up(cfg)


@pytest.mark.parametrize('fine', [
    dict(type='LinearLR', end=2),
    dict(type='LinearLR', begin=1),
    dict(type='LinearLR', end=1, by_epoch=False),
    dict(type='LinearLR', end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[1], end=1),
])
def test_other_schedules_are_left_alone(fine):
    check_warm_up(Config(dict(param_scheduler=fine)))
    check_warm_up(Config(dict(param_scheduler=[fine])))
    check_warm_up(Config(dict(param_scheduler=None)))


def test_iterations_are_refused():
    by_iterations = dict(train_cfg=dict(by_epoch=False, max_iters=5))
    with pytest.raises(UserError, match='train_cfg.max_epochs is missing'):
        scale_schedule(Config(by_iterations), 3)
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=3),
            param_scheduler=[
                dict(type='StepLR', step_size=1),
                dict(type='LinearLR', by_epoch=False, end=5)
            ]))
    with pytest.raises(UserError, match='param_scheduler.1 has by_epoch=Fals'):
        scale_schedule(cfg, 3)
