from types import SimpleNamespace

import pytest
import torch.nn as nn

from ride_mm.engine.hooks import DeferredReweightingHook


@pytest.mark.parametrize('stage, said', [('experts', 1), ('router', 0)])
def test_what_the_log_says(stage, said):
    """The router's loss has no class weights: nothing is said of them."""
    model = nn.Module()
    weights, lines = [], []
    model.stage = stage
    model.head = SimpleNamespace(set_reweighting=weights.append)
    runner = SimpleNamespace(model=model, epoch=0, logger=SimpleNamespace(info=lines.append))
    hook = DeferredReweightingHook(begin=1, beta=0.9)
    for runner.epoch in range(3):
        hook.before_train_epoch(runner)
    assert weights == [None, 0.9, 0.9]
    assert len(lines) == said
