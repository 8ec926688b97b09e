import pytest
from conftest import ROOT
from runs import build_runner, digits_config, train

from ride_mm.utils.errors import UserError


def one_stage(work_dir, **options):
    """Two epochs with 22 images per step."""
    cfg = digits_config(
        ROOT,
        work_dir,
        **{
            'train_cfg.max_epochs': 2,
            'default_hooks.two_stage': None,
            'default_hooks.reweighting': None,
            **options,
        },
    )
    train(cfg)
    return cfg


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    return one_stage(tmp_path_factory.mktemp('run'))


def resumed(cfg, tmp_path, batch_size, **options):
    """A runner that has resumed the run after its first epoch."""
    cfg = cfg.copy()
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'train_dataloader.batch_size': batch_size,
            'load_from': f'{cfg.work_dir}/epoch_1.pth',
            'resume': True,
            **options,
        }
    )
    runner = build_runner(cfg)
    warnings = []
    runner.logger.warning = lambda text, *_: warnings.append(text)
    runner.train()
    return runner, [text for text in warnings if 'images per step' in text]


@pytest.mark.parametrize('enable, rate', [(False, 0.05), (True, 0.05 / 2)])
def test_another_batch_is_said_and_followed(whole_run, tmp_path, enable, rate):
    base = 22 if enable else 7
    options = {'auto_scale_lr': dict(base_batch_size=base, enable=enable)}
    runner, warnings = resumed(whole_run, tmp_path, 11, **options)
    assert len(warnings) == 1
    assert '22 images per step before the resume, 11 now' in warnings[0]
    assert ('multiplying the learning rate by 0.5' in warnings[0]) == enable
    assert runner.optim_wrapper.param_groups[0]['initial_lr'] == rate
    # after the first milestone
    assert runner.optim_wrapper.get_lr()['lr'] == [pytest.approx(rate / 10)]
    assert runner.iter == runner.max_iters


def test_the_same_batch_is_no_news(whole_run, tmp_path):
    assert resumed(whole_run, tmp_path, 22)[1] == []
    assert resumed(whole_run, tmp_path, 11, **{'optim_wrapper.accumulative_counts': 2})[1] == []


def test_schedules_by_step_cannot_follow(tmp_path):
    cfg = one_stage(tmp_path / 'run', param_scheduler=[dict(type='ConstantLR', by_epoch=False)])
    with pytest.raises(UserError, match='set train_dataloader.batch_size to'):
        resumed(cfg, tmp_path, 11)
