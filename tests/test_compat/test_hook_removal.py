from types import SimpleNamespace

from mmengine.runner import Runner


def test_none_removes_any_hook():
    hooks = []
    runner = SimpleNamespace(register_hook=hooks.append)
    own = dict(type='TwoStageHook')
    Runner.register_default_hooks(runner, dict(timer=None, reweighting=None, two_stage=own))
    assert own in hooks and None not in hooks
    assert all(hook['type'] != 'IterTimerHook' for hook in hooks)
