"""EMA and SWA in both stages, and through kills."""

import copy
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from runs import STAGE_1, STAGE_2, assert_same_state, build_runner, digits_config, train

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.utils.errors import UserError

LAST = STAGE_1 + STAGE_2
EMA = dict(type='EMAHook', momentum=0.1)
HOOKS = dict(
    mmpretrain=EMA,
    mmengine=dict(EMA, type='mmengine.EMAHook', begin_iter=3),
    buffers=dict(EMA, update_buffers=True),
    swa=dict(type='EMAHook', ema_type='StochasticWeightAverage', begin_epoch=2),
)


class Record(Hook):
    """What an EMA of the source weights has to be, by a loop of its own."""

    priority = 'LOW'

    def __init__(self):
        self.expected = None
        self.shapes = []

    def after_train_iter(self, runner, batch_idx, **kwargs):
        model = runner.model
        self.shapes.append({name: value.shape for name, value in model.named_buffers()})
        if model.stage == 'router':
            return
        if self.expected is None:
            self.expected = {
                name: value.detach().clone() for name, value in model.named_parameters()
            }
            return
        for name, value in model.named_parameters():
            old = self.expected[name]
            self.expected[name] = old + 0.1 * (value.detach() - old)


def config(root, work_dir, hook, **options):
    cfg = digits_config(root, work_dir, **options)
    cfg.custom_hooks = [copy.deepcopy(hook)]
    return cfg


def load(work_dir, epoch):
    return load_checkpoint_file(str(work_dir / f'epoch_{epoch}.pth'))


@pytest.fixture(scope='module', params=HOOKS)
def run(request, tmp_path_factory):
    """Its hook, work_dir, record and runner."""
    from conftest import ROOT

    torch.set_num_threads(1)
    work_dir = tmp_path_factory.mktemp(request.param)
    hook, record = HOOKS[request.param], Record()
    runner = build_runner(config(ROOT, work_dir, hook))
    built = {name: value.shape for name, value in runner.model.named_buffers()}
    runner.register_hook(record)
    runner.train()
    assert all(shapes == built for shapes in record.shapes)
    return hook, work_dir, record, runner


def test_stage_1_is_averaged(run):
    hook, work_dir, record, _ = run
    checkpoint = load(work_dir, STAGE_1)
    averaged = checkpoint['state_dict']
    source = checkpoint['ema_state_dict']
    name = 'head.classifiers.0.weight'
    assert not torch.equal(averaged[name], source[f'module.{name}'])
    if hook['type'] == 'EMAHook' and 'ema_type' not in hook:
        for name, expected in record.expected.items():
            torch.testing.assert_close(averaged[name], expected, rtol=1e-4, atol=1e-6)


def test_stage_2_trains_the_router_for_the_averaged_experts(run):
    _, work_dir, _, runner = run
    before = load(work_dir, STAGE_1)['state_dict']
    checkpoint = load(work_dir, LAST)
    after = checkpoint['state_dict']
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {key for key in after if key.startswith('head.router')}
    # What was trained is what is saved.
    assert_same_state(dict(runner.model.state_dict()), dict(after))
    for key, value in after.items():
        assert torch.equal(checkpoint['ema_state_dict'][f'module.{key}'], value)
    assert runner.model.head.router.trained


@pytest.mark.parametrize('epoch', [1, STAGE_1, STAGE_1 + 1])
def test_resumed_run_ends_bit_equal(run, root, tmp_path, epoch):
    hook, work_dir, _, _ = run
    name = f'epoch_{epoch}.pth'
    shutil.copy(work_dir / name, tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / name))
    train(config(root, tmp_path, hook, resume=True))
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    one, other = load(tmp_path, LAST), load(work_dir, LAST)
    for key in keys:
        assert_same_state(one[key], other[key])


@pytest.mark.parametrize('hook', [EMA, HOOKS['buffers']])
def test_validation_is_of_the_averaged_weights(root, tmp_path, hook):
    """The figure in the log is that of the file, without any hook."""
    cfg = config(
        root,
        tmp_path,
        hook,
        **{'train_cfg.val_interval': 1, 'default_hooks.checkpoint.interval': 1},
    )
    logged = {}

    class Figures(Hook):
        priority = 'LOWEST'

        def after_val_epoch(self, runner, metrics=None):
            logged[runner.epoch] = metrics['long_tail/overall']

    runner = build_runner(cfg)
    runner.register_hook(Figures())
    runner.train()
    for epoch in (STAGE_1, LAST):
        plain = digits_config(root, tmp_path)
        plain.load_from = str(tmp_path / f'epoch_{epoch}.pth')
        figures = build_runner(plain).test()
        assert figures['long_tail/overall'] == logged[epoch]


def test_averages_that_begin_too_late(root, tmp_path):
    for late in (dict(begin_epoch=STAGE_1 + 1), dict(begin_iter=16)):
        with pytest.raises(UserError, match='averaged in stage 1'):
            train(config(root, tmp_path, dict(EMA, **late)))
