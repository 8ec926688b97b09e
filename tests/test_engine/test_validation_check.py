import numpy as np
import pytest
import torch
from conftest import ROOT
from runs import assert_same_state, build_runner, digits_config, train

from ride_mm.utils.errors import UserError


def refused(work_dir, match, **options):
    with pytest.raises(UserError, match=match):
        train(digits_config(ROOT, work_dir, **options))
    assert not list(work_dir.glob('*.pth'))


def test_topk(tmp_path):
    refused(tmp_path, r'val_evaluator.0, LongTailMetric, would fail .*topk',
            **{'val_evaluator.0.topk': (1, 11)})


def test_save_best(tmp_path):
    refused(
        tmp_path, r"save_best='long_tail/overal' is no figure .*mean "
        r"'long_tail/overall'\? There are .*long_tail/few",
        **{'default_hooks.checkpoint.save_best': 'long_tail/overal'})


def test_first_image(tmp_path):
    broken = [dict(type='LoadImageFromFile')]
    refused(tmp_path, 'first image of val_dataloader.dataset cannot be read',
            **{'val_dataloader.dataset.pipeline': broken})


def test_nothing_is_left_of_it(tmp_path):
    """A group's accuracy may be what is saved by; nothing else changes."""
    states = []
    for check in (dict(type='ValidationCheckHook'), None):
        runner = build_runner(
            digits_config(
                ROOT, tmp_path / str(bool(check)), **{
                    'default_hooks.validation_check': check,
                    'default_hooks.checkpoint.save_best': 'long_tail/few'
                }))
        np.random.seed(0)
        torch.manual_seed(0)
        runner.train()
        states.append([
            runner.model.state_dict(),
            torch.get_rng_state(),
            list(np.random.get_state()[1])
        ])
    assert_same_state(*(list(state[0].items()) for state in states))
    assert_same_state(*(state[1:] for state in states))
