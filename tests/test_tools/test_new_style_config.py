"""The tools on a config of MMEngine's new style: classes, not names."""

import pytest
from conftest import ROOT, load_tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from new_style import write_new_style
from test_engine.runs import digits_config

from ride_mm.analysis.accuracy.summary import load_test_classes
from ride_mm.analysis.report.overview import describe_config
from ride_mm.analysis.routing.compute import report_compute
from ride_mm.engine import launch
from ride_mm.engine.config import is_ride, load_config
from ride_mm.engine.schedule import check_schedulers
from ride_mm.utils.errors import UserError

CONFIGS = (
    'ride_r32_digits_lt',
    'ride_r50_imagenet_lt',
    'ride_swin_t_imagenet_lt',
    'ride_r32_cifar100_lt_balanced_softmax',
)


@pytest.mark.parametrize('name', CONFIGS)
def test_classes_are_read_as_names(tmp_path, name):
    names = Config.fromfile(ROOT / f'configs/{name}.py')
    path = write_new_style(names, tmp_path)
    assert isinstance(Config.fromfile(path).model.type, type)
    cfg = load_config(path)
    assert is_ride(cfg)
    assert DATASETS.get(cfg.train_dataloader.dataset.type) is DATASETS.get(
        names.train_dataloader.dataset.type
    )
    assert describe_config(cfg) == describe_config(names)
    # Written and read again, it is the same.
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()


def test_a_class_where_no_tool_has_read_the_config(tmp_path):
    cfg = Config.fromfile(
        write_new_style(Config.fromfile(ROOT / 'configs/ride_r32_digits_lt.py'), tmp_path)
    )
    launch.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    launch.enable_all_experts(cfg)
    cfg.param_scheduler[0].end = 1
    with pytest.raises(UserError, match='LinearLR of a single epoch'):
        check_schedulers(cfg)


def test_tools(tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    names = digits_config(ROOT, 'work')
    for part in (names.val_evaluator, names.test_evaluator):
        part[0].thresholds = (7, 50)
    config = write_new_style(names, tmp_path)
    train, test = (load_tool(f'tools/{n}.py').main for n in ('train', 'test'))
    train([config, '--amp', '--epochs', '2'])
    test([config, 'work/epoch_2.pth', '--all-experts', '--out', 'p.npz'])
    groups, *_ = load_test_classes(config)
    assert groups.thresholds == (7, 50)
    assert report_compute(config)
