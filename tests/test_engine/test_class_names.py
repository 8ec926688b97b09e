import pytest
from conftest import ROOT
from mmengine.runner import Runner
from runs import build_runner, digits_config, train

from ride_mm.engine.class_names import difference
from ride_mm.utils.errors import UserError


@pytest.mark.parametrize(
    'found, words',
    [
        (['a', 'b'], None),
        (None, None),
        ([], None),
        (['b', 'a'], r"their order differs. .* set classes=\['a', 'b'\]"),
        (['a', 'z'], 'z unknown to the model; b missing$'),
        (['a'], 'b missing; with classes='),
        (['a', 'b', 'c'], 'c unknown to the model$'),
    ],
)
def test_difference(found, words):
    text = difference(('a', 'b'), found)
    if words is None:
        assert text is None
    else:
        with pytest.raises(ValueError, match=words):
            raise ValueError(text)
    assert difference(None, found) is None


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    cfg = digits_config(
        ROOT,
        tmp_path_factory.mktemp('run'),
        **{
            'train_cfg.max_epochs': 1,
            'default_hooks.two_stage': None,
            'default_hooks.reweighting': None,
            'param_scheduler': [],
        },
    )
    train(cfg)
    return cfg


def renamed(cfg, name):
    classes = list('zero one two three four five six seven eight'.split())
    cfg[f'{name}_dataloader'].dataset.metainfo = dict(classes=[*classes, 'neuf'])
    return cfg


def test_test_set_of_other_classes(trained, tmp_path):
    cfg = trained.copy()
    cfg.work_dir = str(tmp_path)
    cfg.load_from = f'{trained.work_dir}/epoch_1.pth'
    for name in (
        'train_cfg',
        'train_dataloader',
        'optim_wrapper',
        'val_cfg',
        'val_dataloader',
        'val_evaluator',
        'param_scheduler',
    ):
        cfg[name] = None
    assert build_runner(cfg).test()
    runner: Runner = build_runner(renamed(cfg, 'test'))
    with pytest.raises(UserError, match='test_dataloader.dataset .*neuf'):
        runner.test()


def test_resumed_with_other_classes(trained, tmp_path):
    cfg = renamed(trained.copy(), 'train')
    cfg.work_dir, cfg.train_cfg.max_epochs = str(tmp_path), 2
    cfg.load_from = f'{trained.work_dir}/epoch_1.pth'
    for cfg.resume in (True, False):
        runner = build_runner(cfg)
        if cfg.resume:
            with pytest.raises(UserError, match='train_dataloader.* neuf'):
                runner.train()
        else:  # a fine-tuning may have others
            runner.train()
