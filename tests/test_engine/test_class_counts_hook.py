"""The counts that the losses get are those that the metrics group by."""
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.registry import DATASETS, HOOKS

from ride_mm.utils.errors import UserError


def fake_runner(val_factor):
    """Losses and loaders, as the hook sees them."""
    train, val = (
        DATASETS.build(
            dict(type='DigitsLT', split=split, imb_factor=factor, pipeline=[]))
        for split, factor in (('train', .1), ('test', val_factor)))
    head = SimpleNamespace()
    head.set_class_counts = lambda counts: setattr(head, 'counts', counts)
    model = torch.nn.Module()
    model.head = head
    return SimpleNamespace(
        model=model,
        val_loop=object(),
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=SimpleNamespace(dataset=val))


def test_counts_of_the_training_set():
    runner = fake_runner(.1)
    HOOKS.build(dict(type='ClassCountsHook')).before_train(runner)
    counts = runner.train_dataloader.dataset.metainfo['class_counts']
    assert runner.model.head.counts == counts
    assert counts[0] // counts[-1] == 10


def test_a_validation_set_of_another_profile():
    runner = fake_runner(.05)
    hook = HOOKS.build(dict(type='ClassCountsHook'))
    with pytest.raises(UserError, match='class 1 has .*states .*imb_factor'):
        hook.before_train(runner)
    runner.val_loop = None
    hook.before_train(runner)
