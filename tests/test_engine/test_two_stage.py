import shutil

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from runs import STAGE_1, STAGE_2, assert_same_state, build_runner, digits_config, train

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.engine.hooks.two_stage_hook import merge_wrappers
from ride_mm.utils.errors import UserError


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    """An uninterrupted run with workers; its work_dir and runner."""
    from conftest import ROOT

    torch.set_num_threads(1)
    work_dir = tmp_path_factory.mktemp('whole')
    runner = train(digits_config(ROOT, work_dir, workers=2))
    return work_dir, runner


def load(work_dir, epoch):
    return load_checkpoint_file(str(work_dir / f'epoch_{epoch}.pth'))


def final_state(work_dir):
    checkpoint = load(work_dir, STAGE_1 + STAGE_2)
    return {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}


def assert_only_the_router_changed(before, after):
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {key for key in after if key.startswith('head.router')}


def test_stages(whole_run):
    work_dir, runner = whole_run
    stages = [
        load(work_dir, epoch)['meta']['ride_stage'] for epoch in range(1, STAGE_1 + STAGE_2 + 1)
    ]
    assert stages == ['experts'] * STAGE_1 + ['router'] * STAGE_2
    assert runner.model.stage == 'router'
    # 105 images: 5 steps of 22, then 4 of 32.
    assert runner.iter == runner.max_iters == 5 * STAGE_1 + 4 * STAGE_2


def test_only_the_router_changes_in_stage_2(whole_run):
    work_dir, _ = whole_run
    before = load(work_dir, STAGE_1)['state_dict']
    after = load(work_dir, STAGE_1 + STAGE_2)['state_dict']
    assert_only_the_router_changed(before, after)
    assert after['head.router.num_updates'] == 4 * STAGE_2


def test_stage_2_has_its_own_optimizer_and_schedule(whole_run):
    work_dir, _ = whole_run
    group = load(work_dir, STAGE_1 + 1)['optimizer']['param_groups'][0]
    assert group['initial_lr'] == 0.01
    # One epoch of five on a cosine.
    assert group['lr'] == pytest.approx(0.00905, abs=1e-5)
    assert group['weight_decay'] == 5e-4
    group = load(work_dir, STAGE_1)['optimizer']['param_groups'][0]
    assert group['initial_lr'] == 0.05
    assert group['lr'] == pytest.approx(0.05 * 0.1 * 0.1)


def test_log_of_stage_2_is_its_own(whole_run):
    scalars = whole_run[1].message_hub.log_scalars
    assert 'train/loss_router' in scalars
    assert 'train/loss_cls' not in scalars
    assert len(scalars['train/loss'].data[0]) == 4 * STAGE_2


def test_validation_during_training(whole_run):
    scalars = whole_run[1].message_hub.log_scalars
    for key in ('long_tail/overall', 'long_tail/few', 'experts/mean', 'experts/compute'):
        assert f'val/{key}' in scalars
    assert 'val/long_tail/many' in scalars
    assert 0 < scalars['val/experts/compute'].current() <= 1.001


@pytest.mark.parametrize('epoch', [1, 2, STAGE_1, STAGE_1 + 1])
def test_resumed_run_ends_bit_equal(whole_run, root, tmp_path, epoch):
    """In stage 1, before DRW, at the boundary, in stage 2; with another
    number of workers, and without persistent ones."""
    name = f'epoch_{epoch}.pth'
    shutil.copy(whole_run[0] / name, tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / name))
    cfg = digits_config(root, tmp_path, workers=1)
    cfg.train_dataloader.persistent_workers = False
    cfg.resume = True
    train(cfg)
    assert_same_state(final_state(tmp_path), final_state(whole_run[0]))


def test_router_alone_from_a_checkpoint(whole_run, root, tmp_path):
    cfg = digits_config(root, tmp_path)
    work_dir, _ = whole_run
    cfg.default_hooks.reweighting = cfg.default_hooks.two_stage = None
    cfg.model.stage = 'router'
    cfg.load_from = str(work_dir / f'epoch_{STAGE_1}.pth')
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = cfg.param_scheduler[:1]
    train(cfg)
    before = load(work_dir, STAGE_1)['state_dict']
    after = load(tmp_path, 1)['state_dict']
    assert_only_the_router_changed(before, after)


def test_the_end_of_a_stage_is_saved_at_any_interval(root, tmp_path):
    cfg = digits_config(
        root,
        tmp_path,
        **{
            'default_hooks.checkpoint.interval': 10,
            'train_cfg.max_epochs': 3,
            'default_hooks.two_stage.begin': 2,
        },
    )
    train(cfg)
    names = {path.name for path in tmp_path.glob('*.pth')}
    assert names == {'epoch_2.pth', 'epoch_3.pth'}


def test_best_of_stage_1_neither_blocks_nor_goes(root, tmp_path):
    cfg = digits_config(root, tmp_path)
    cfg.default_hooks.checkpoint.save_best = 'long_tail/overall'
    cfg.train_cfg.val_interval = 1
    cfg.train_cfg.max_epochs = STAGE_1 + 1
    runner = train(cfg)
    best = sorted(path.name for path in tmp_path.glob('best_*'))
    assert len(best) == 2
    assert best[-1] == f'best_long_tail_overall_epoch_{STAGE_1 + 1}.pth'
    assert runner.message_hub.get_info('best_ckpt').endswith(best[-1])


def test_amp_and_compile_hold_in_both_stages(root, tmp_path):
    cfg = digits_config(
        root,
        tmp_path,
        **{
            'optim_wrapper.type': 'AmpOptimWrapper',
            'optim_wrapper.loss_scale': 'dynamic',
            'model.num_experts': 2,  # the compiler takes its time for each
            'model.compile': dict(backend='eager'),
            'train_cfg.max_epochs': 2,
            'default_hooks.two_stage.begin': 1,
            'param_scheduler.1.milestones': [1],
        },
    )
    runner = train(cfg)
    assert type(runner.optim_wrapper).__name__ == 'AmpOptimWrapper'
    assert runner.model.head.router.trained


def test_reweighting_begins_with_its_epoch(root, tmp_path):
    cfg = digits_config(root, tmp_path)
    seen = []

    class Record(Hook):
        def before_train_iter(self, runner, **kwargs):
            if runner.model.stage == 'experts':
                weights = runner.model.head.class_weights
                seen.append(
                    (
                        runner.epoch,
                        bool((weights != 1).any()),
                        runner.model.head.diversity.reweighting,
                    )
                )

    runner = build_runner(cfg)
    runner.register_hook(Record())
    runner.train()
    assert set(seen) == {(0, False, False), (1, False, False), (2, True, True)}


@pytest.mark.parametrize(
    'options, message',
    [
        ({'default_hooks.two_stage.begin': 5}, 'TwoStageHook.begin=5'),
        ({'model.head.num_classes': 11}, '10 entries.* 11 classes'),
    ],
)
def test_users_mistakes(root, tmp_path, options, message):
    cfg = digits_config(root, tmp_path, **options)
    with pytest.raises(UserError, match=message):
        train(cfg)
    assert not list(tmp_path.glob('*.pth'))


def test_only_runs_by_epoch(root, tmp_path):
    cfg = digits_config(root, tmp_path)
    cfg.train_cfg = dict(by_epoch=False, max_iters=5)
    cfg.param_scheduler = []
    with pytest.raises(UserError, match='by_epoch=True'):
        train(cfg)


@OPTIM_WRAPPERS.register_module()
class NoisyOptimWrapper(OptimWrapper):
    """A wrapper with an option of its own."""

    def __init__(self, noise=0.0, **kwargs):
        super().__init__(**kwargs)
        self.noise = noise


CLIP = dict(max_norm=0.5, norm_type=2)


@pytest.mark.parametrize(
    'stage_1, stage_2, expected',
    [
        (
            dict(accumulative_counts=2, clip_grad=CLIP),
            {},
            dict(
                type='OptimWrapper',
                _accumulative_counts=2,
                clip_grad_kwargs=CLIP,
                clip_func=torch.nn.utils.clip_grad_norm_,
            ),
        ),
        (
            dict(type='AmpOptimWrapper', dtype='bfloat16', accumulative_counts=2),
            {},
            dict(type='AmpOptimWrapper', cast_dtype=torch.bfloat16, _accumulative_counts=2),
        ),
        (
            dict(type='NoisyOptimWrapper', noise=0.1, clip_grad=CLIP),
            {},
            dict(type='NoisyOptimWrapper', noise=0.1, clip_grad_kwargs=CLIP),
        ),
        (
            dict(
                type='NoisyOptimWrapper',
                noise=0.1,
                clip_grad=CLIP,
                constructor='LearningRateDecayOptimWrapperConstructor',
                paramwise_cfg=dict(layer_decay_rate=0.75),
            ),
            dict(type='OptimWrapper', clip_grad=None),
            dict(type='OptimWrapper', clip_grad_kwargs=None),
        ),
        (dict(accumulative_counts=2), dict(accumulative_counts=1), dict(_accumulative_counts=1)),
    ],
)
def test_stage_2_keeps_the_wrapper_of_stage_1(root, tmp_path, stage_1, stage_2, expected):
    """Unless it says otherwise itself; its optimizer is its own, also when
    it is resumed."""
    cfg = digits_config(
        root, tmp_path, **{'train_cfg.max_epochs': 3, 'default_hooks.two_stage.begin': 1}
    )
    cfg.optim_wrapper.pop('type')
    cfg.optim_wrapper.update(stage_1)
    cfg.default_hooks.two_stage.optim_wrapper.update(stage_2)

    def check(wrapper):
        found = dict(vars(wrapper), type=type(wrapper).__name__)
        for key, value in expected.items():
            assert found[key] == value, key
        (group,) = wrapper.param_groups
        assert group['initial_lr'] == 0.01
        assert group['weight_decay'] == 5e-4

    check(train(cfg).optim_wrapper)
    cfg.load_from, cfg.resume = str(tmp_path / 'epoch_2.pth'), True
    check(train(cfg).optim_wrapper)


def test_loss_scale_is_kept():
    merged = merge_wrappers(
        dict(
            type='mmengine.AmpOptimWrapper',
            loss_scale=dict(init_scale=512.0),
            dtype='float16',
            optimizer=dict(type='SGD', lr=1.0),
        ),
        dict(optimizer=dict(type='Adam'), dtype='bfloat16'),
    )
    assert merged == dict(
        type='mmengine.AmpOptimWrapper',
        loss_scale=dict(init_scale=512.0),
        dtype='bfloat16',
        optimizer=dict(type='Adam'),
    )


def test_validation_of_an_epoch_trained_once_more(root, tmp_path):
    """What was validated before the newest checkpoints were lost is over."""
    cfg = digits_config(root, tmp_path, **{'train_cfg.val_interval': 1})
    train(cfg)
    for epoch in range(2, STAGE_1 + STAGE_2 + 1):
        (tmp_path / f'epoch_{epoch}.pth').write_bytes(b'')
    cfg.resume = True
    runner = build_runner(cfg)

    def killed():
        raise KeyboardInterrupt

    runner.val_loop.run = killed
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    resumed, epochs = build_runner(cfg), []
    resumed.val_loop.run = lambda: epochs.append(resumed.epoch)
    resumed.train()
    assert epochs == [2, 3, 4, 5]


def test_validation_that_a_kill_swallowed(root, tmp_path, monkeypatch):
    """The best is that of a run without a break."""
    options = {
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.save_best': 'long_tail/overall',
    }
    cfg = digits_config(root, tmp_path / 'whole', **options)
    whole = train(cfg)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    cfg.work_dir = str(tmp_path / 'killed')
    runner = build_runner(cfg)
    validate = runner.val_loop.run

    def run():
        if runner.epoch == STAGE_1:
            raise KeyboardInterrupt
        return validate()

    monkeypatch.setattr(runner.val_loop, 'run', run)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    cfg.resume = True
    resumed = build_runner(cfg)
    epochs = []
    validate_again = resumed.val_loop.run
    monkeypatch.setattr(
        resumed.val_loop, 'run', lambda: (epochs.append(resumed.epoch), validate_again())
    )
    resumed.train()
    assert epochs == [STAGE_1, STAGE_1 + 1, STAGE_1 + STAGE_2]
    names = {path.name for path in (tmp_path / 'whole').glob('*.pth')}
    assert names == {path.name for path in (tmp_path / 'killed').glob('*.pth')}
    assert whole.message_hub.get_info('best_score') == resumed.message_hub.get_info('best_score')
    # that of the last epoch is there
    cfg.work_dir, epochs[:] = str(tmp_path / 'killed'), []
    resumed = build_runner(cfg)
    monkeypatch.setattr(resumed.val_loop, 'run', killed)
    resumed.train()
