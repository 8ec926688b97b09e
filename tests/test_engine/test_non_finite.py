import math
import warnings

import pytest
import torch
from conftest import ROOT
from mmengine.hooks import Hook
from mmengine.optim import MultiStepLR, OptimWrapper
from runs import STAGE_1, build_runner, digits_config, train

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.engine.hooks import NonFiniteHook
from ride_mm.engine.hooks import non_finite_hook as hook
from ride_mm.utils.errors import UserError


class Poison(Hook):
    """Puts NaN into an image at some steps of an epoch."""

    priority = 'HIGHEST'

    def __init__(self, epoch, steps):
        self.epoch, self.steps = epoch, steps

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == self.epoch and batch_idx in self.steps:
            inputs = data_batch['inputs']
            if isinstance(inputs, list):
                inputs[1] = torch.full(inputs[1].shape, math.nan)
            elif torch.is_tensor(inputs):
                data_batch['inputs'] = inputs.float()
                data_batch['inputs'][1] = math.nan
            else:
                inputs.top_logits[1] = math.nan


def poisoned(work_dir, epoch, *steps, **options):
    runner = build_runner(digits_config(ROOT, work_dir, **options))
    runner.register_hook(Poison(epoch, steps))
    return runner


def assert_finite(model):
    for name, value in model.state_dict().items():
        assert torch.isfinite(value.float()).all(), name


def test_a_learning_rate_too_high(tmp_path):
    runner = build_runner(digits_config(ROOT, tmp_path, **{'optim_wrapper.optimizer.lr': 1e30}))
    with pytest.raises(UserError, match='loss_cls is (nan|inf)') as error:
        runner.train()
    message = str(error.value)
    assert 'Epoch 1, step 2' in message
    assert 'the logits of expert 1, 2, 3 are not finite' in message
    assert 'of the training set' in message and 'and 19 more' in message
    assert 'optim_wrapper.optimizer.lr' in message
    assert not list(tmp_path.glob('*.pth'))


def test_one_expert_is_named(tmp_path):
    runner = build_runner(digits_config(ROOT, tmp_path, **{'default_hooks.validation_check': None}))
    with torch.no_grad():
        runner.model.head.classifiers[1].weight.fill_(math.nan)
    runner.model._is_init = True
    with pytest.raises(UserError, match='of expert 2 are not finite'):
        runner.train()


def test_last_good_checkpoint_stays(tmp_path):
    runner = poisoned(tmp_path, 1, 3)
    with pytest.raises(UserError, match='Epoch 2, step 4'):
        runner.train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_stage_2(tmp_path):
    router_cache = dict(type='RouterCacheHook')
    runner = poisoned(tmp_path, STAGE_1, 1, **{'default_hooks.router_cache': router_cache})
    with pytest.raises(UserError, match='Epoch 4, step 2: loss_router is nan'):
        runner.train()
    assert_finite(runner.model)


def test_skip_leaves_steps_out(tmp_path):
    runner = poisoned(tmp_path, 1, 1, 2, 4, **{'default_hooks.non_finite.skip': 2})
    warnings = []
    runner.logger.warning = lambda text, *_: warnings.append(text)
    runner.train()
    assert [text.split('skipped (')[1][:14] for text in warnings if 'skipped' in text] == [
        f'{i} of at most 2' for i in (1, 2, 1)
    ]
    assert_finite(runner.model)


def test_more_in_succession_than_skip(tmp_path):
    runner = poisoned(tmp_path, 1, 1, 2, 3, **{'default_hooks.non_finite.skip': 2})
    with pytest.raises(UserError, match='Epoch 2, step 4'):
        runner.train()


def test_steps_of_several_batches(tmp_path):
    """Only steps count, not the batches between them."""
    options = {'optim_wrapper.accumulative_counts': 2, 'default_hooks.non_finite.skip': 1}
    runner = poisoned(tmp_path / 'a', 1, *range(9), **options)
    with pytest.raises(UserError, match='Training stopped'):
        runner.train()
    for step in (1, 2):
        # one of them is the first batch of its step
        runner = poisoned(tmp_path / str(step), 1, step, **options)
        warnings = []
        runner.logger.warning = lambda text, *_: warnings.append(text)
        runner.train()
        (found,) = [text for text in warnings if 'skipped' in text]
        assert f'Epoch 2, step {step + 1}: loss' in found
        assert_finite(runner.model)


@pytest.mark.parametrize('value', [1, 1e25, math.inf, -math.inf, math.nan])
def test_all_finite(value):
    tensors = [torch.ones(3), torch.tensor([[0.5, value]]), torch.zeros(2, dtype=torch.float64)]
    assert hook._all_finite(tensors) is math.isfinite(value)


def test_infinite_gradient_of_a_finite_loss(tmp_path):
    runner = build_runner(digits_config(ROOT, tmp_path))
    parameter = next(runner.model.parameters())
    parameter.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(UserError, match='step 1: a gradient is infinite'):
        runner.train()
    assert_finite(runner.model)


def test_nothing_else_changes(tmp_path):
    one = train(digits_config(ROOT, tmp_path / 'a')).model.state_dict()
    other = train(digits_config(ROOT, tmp_path / 'b', **{'default_hooks.non_finite': None}))
    for key, value in other.model.state_dict().items():
        assert torch.equal(value, one[key]), key


def test_batch_of_another_process(monkeypatch):
    """All name that of the first process whose loss is not finite."""
    monkeypatch.setattr(
        hook.dist, 'all_gather_object', lambda own: [own, (True, 'Epoch 1, step 3: loss is nan.')]
    )
    monkeypatch.setattr(hook, '_describe', lambda *_: 'of this process')
    found = hook._describe_first(None, [(2, {}, {})])
    assert found == 'Process 1, epoch 1, step 3: loss is nan.'


def test_such_weights_are_not_saved_nor_resumed(tmp_path):
    cfg = digits_config(ROOT, tmp_path, **{'train_cfg.max_epochs': 4})
    runner = train(cfg)
    with torch.no_grad():
        runner.model.backbone.layer1[0].bn1.running_var[0] = math.inf
    with pytest.raises(UserError, match='Not saved: 1 .*bn1.running_var'):
        runner.save_checkpoint(str(tmp_path), 'bad.pth')
    assert not (tmp_path / 'bad.pth').exists()
    checkpoint = load_checkpoint_file(str(tmp_path / 'epoch_4.pth'))
    checkpoint['state_dict']['head.classifiers.0.weight'][0] = math.nan
    torch.save(checkpoint, tmp_path / 'nan.pth')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'nan.pth')
    with pytest.raises(UserError, match='Cannot resume: 1 .*classifiers.0'):
        train(cfg)


@pytest.mark.parametrize('skip', [-1, 1.5, True, 'x'])
def test_skip_is_a_number_of_steps(skip):
    with pytest.raises(UserError, match='NonFiniteHook.skip'):
        NonFiniteHook(skip=skip)


def test_schedulers_know_that_steps_are_counted():
    weight = torch.nn.Parameter(torch.ones(1))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.1))
    scheduler = MultiStepLR(wrapper, milestones=[5])
    hook._Guard(wrapper)
    wrapper.update_params((weight**2).sum())
    assert weight.item() == pytest.approx(0.8)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scheduler.step()
