import pytest
from mmengine.config import Config

from ride_mm.engine import config
from ride_mm.utils.errors import UserError

CONFIG = """
model = dict(type='RIDEClassifier', backbone=dict(type='ResNet', depth=50))
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict())
val_dataloader = dict(batch_size=2, dataset=dict())
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
param_scheduler = [dict(type='LinearLR', end=5)]
env_cfg = dict(mp_cfg=dict(mp_start_method='fork'))
"""


@pytest.fixture
def cfg():
    return Config.fromstring(CONFIG, '.py')


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / 'ride_tiny.py'
    path.write_text(CONFIG)
    return str(path)


class TestLoadConfig:
    def test_a_module_that_cannot_be_imported(self, config_path):
        with open(config_path, 'a') as file:
            file.write("\ncustom_imports = dict(imports=['ride_mm', 'no_parts'])\n")
            file.write("custom_imports['allow_failed_imports'] = False\n")
        with pytest.raises(UserError, match='Failed to import no_parts. .*PYTHONPATH') as info:
            config.load_config(config_path)
        assert len(str(info.value).splitlines()) == 1

    def test_options_are_merged(self, config_path):
        cfg = config.load_config(
            config_path, {'train_cfg.max_epochs': 7, 'param_scheduler.0.end': 1}
        )
        assert cfg.train_cfg.max_epochs == 7
        assert cfg.param_scheduler[0].end == 1

    def test_missing_config(self, config_path, tmp_path):
        with pytest.raises(UserError) as info:
            config.load_config(str(tmp_path / 'ride_tinny.py'))
        assert f'Did you mean {config_path}?' in str(info.value)

    def test_missing_config_in_a_mistyped_folder(self, monkeypatch, tmp_path):
        (tmp_path / 'configs').mkdir()
        (tmp_path / 'configs' / 'ride_r50.py').touch()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match='Did you mean configs/ride_r50.py'):
            config.load_config('config/ride_r50.py')

    @pytest.mark.parametrize(
        'key, place',
        [
            ('model.type.name', 'model.type'),
            ('param_scheduler.0.end.a', 'param_scheduler.0.end'),
            ('strides.1', 'strides'),
            ('none.a', 'none'),
        ],
    )
    def test_option_into_a_value(self, config_path, key, place):
        with open(config_path, 'a') as file:
            file.write('strides = [1, 2]\nnone = None\n')
        with pytest.raises(UserError) as info:
            config.load_config(config_path, {key: 1, 'train_cfg.val_begin': 2})
        assert str(info.value) == (
            f'--cfg-options {key}: {place} of {config_path} can only be set as a whole'
        )

    def test_option_beyond_a_list(self, config_path):
        with pytest.raises(UserError, match='does not fit'):
            config.load_config(config_path, {'param_scheduler.7.end': 1})

    def test_what_is_only_read_is_not_checked(self, config_path):
        options = {'train_cfg.max_epoch': 3}
        cfg = config.load_config(config_path, options, is_built=False)
        assert cfg.train_cfg.max_epoch == 3

    def test_typo_is_told_on_rank_0(self, config_path, capsys, monkeypatch):
        options = {'env_cfg.mp_cfg.mp_start_metod': 'fork'}
        config.load_config(config_path, options)
        message = capsys.readouterr().err
        assert message.startswith('warning: --cfg-options')
        assert "'mp_start_method'" in message
        monkeypatch.setenv('RANK', '1')
        config.load_config(config_path, options)
        assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    'key, name',
    [
        ('train_cfg.max_epoch', 'max_epochs'),
        ('trian_cfg.max_epochs', 'train_cfg'),
        ('train_dataloader.batchsize', 'batch_size'),
        ('param_scheduler.0.typ', 'type'),
    ],
)
def test_typo_hints(cfg, key, name):
    hints = config.typo_hints(cfg, {key: 1})
    assert len(hints) == 1
    assert hints[0].endswith(f'Did you mean {name!r}?')


@pytest.mark.parametrize(
    'key',
    [
        'train_cfg.max_epochs',
        'train_cfg.val_begin',
        'model.compile',
        'compile',
        'model.backbone.frozen_stages',
        'optim_wrapper.loss_scale',
        'param_scheduler.1.end',
        'resume',
        'work_dir',
        'default_hooks.logger.x',
    ],
)
def test_new_and_existing_keys_are_no_typos(cfg, key):
    assert config.typo_hints(cfg, {key: 1}) == []


@pytest.mark.parametrize(
    'key, places',
    [
        ('depth', "'model.backbone.depth'"),
        ('end', "'param_scheduler.0.end'"),
        ('batch_size', "'train_dataloader.batch_size' or 'val_dataloader.batch_size'"),
        ('data_root', "'train_dataloader.dataset.data_root'"),
    ],
)
def test_an_option_without_its_path(config_path, key, places):
    with open(config_path, 'a') as file:
        file.write(
            "data_root = 'here'\nstage_2 = dict(end=1)\n"
            "train_dataloader['dataset']['data_root'] = data_root\n"
        )
    with pytest.raises(UserError) as info:
        config.load_config(config_path, {key: 1})
    assert str(info.value) == (
        f'--cfg-options {key}: nothing reads {key} at the top level. Did you mean {places}?'
    )


@pytest.mark.parametrize(
    'key',
    [
        'find_unused_parameters',
        'load_from',
        'custom_hooks',
        'tta_model',
        'randomness.seed',
        'my_own',
        'my_own.new',
    ],
)
def test_options_at_their_place(config_path, key):
    with open(config_path, 'a') as file:
        file.write('my_own = dict()\n')
    value = False if key.startswith('find') else None
    config.load_config(config_path, {key: value})


@pytest.mark.parametrize(
    'key, hint',
    [
        ('foo', ''),
        ('data.samples_per_gpu', ''),
        ('resme', " Did you mean 'resume'?"),
        ('trian_cfg.max_epochs', " Did you mean 'train_cfg'?"),
    ],
)
def test_an_option_that_nothing_reads(config_path, key, hint):
    with pytest.raises(UserError) as info:
        config.load_config(config_path, {key: 1})
    name = key.split('.')[0]
    assert str(info.value) == (f'--cfg-options {key}: nothing reads {name} at the top level.{hint}')


@pytest.mark.parametrize(
    'name, content',
    [('a.py', 'x = = 1'), ('README.md', '# ride_mm'), ('b.py', "_base_ = './none.py'")],
)
def test_what_is_no_config(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f'{name} cannot be read as a config'):
        config.load_config(str(tmp_path / name))


def test_what_the_runner_reads_at_the_top_level(config_path):
    cfg = config.load_config(
        config_path, {'model.train_cfg': dict(augments=[]), 'train_cfg': dict(max_epochs=3)}
    )
    config.check_keys(cfg, dict(train_cfg=1))


class TestCompile:
    @pytest.mark.parametrize('value', [True, False, dict(mode='default')])
    def test_moves_into_the_classifier(self, config_path, value):
        cfg = config.load_config(config_path, {'compile': value})
        assert cfg.model.compile == value
        assert 'compile' not in cfg

    def test_other_models_leave_it_to_mmengine(self, config_path):
        cfg = config.load_config(config_path, {'compile': True, 'model.type': 'ImageClassifier'})
        assert cfg.compile is True
        assert 'compile' not in cfg.model

    def test_not_asked_for(self, cfg):
        config.move_compile(cfg)
        assert 'compile' not in cfg.model


class TestTrainingProfile:
    """One option is enough for another imbalance."""

    def test_test_sets_follow_the_training_set(self, root):
        cfg = config.load_config(
            str(root / 'configs/ride_r32_cifar100_lt.py'),
            {
                'train_dataloader.dataset.imb_factor': 0.1,
                'train_dataloader.dataset.max_count': 300,
                'test_dataloader.dataset.imb_factor': 0.02,
            },
        )
        assert cfg.val_dataloader.dataset.imb_factor == 0.1
        assert cfg.val_dataloader.dataset.imb_type == 'exp'
        assert cfg.val_dataloader.dataset.max_count == 300
        assert cfg.test_dataloader.dataset.max_count == 300
        assert cfg.test_dataloader.dataset.imb_factor == 0.02

    def test_other_data_sets_do_not(self, cfg):
        cfg.train_dataloader.dataset.update(type='A', imb_factor=0.1)
        cfg.val_dataloader.dataset.type = 'B'
        config.follow_training_set(cfg)
        assert 'imb_factor' not in cfg.val_dataloader.dataset
        cfg.val_dataloader = None
        config.follow_training_set(cfg)


def test_hooks_are_changed_by_name(root, tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(
        f"_base_ = '{root}/configs/ride_r32_cifar100_lt.py'\n"
        "custom_hooks = [dict(type='EMAHook')]\n"
    )
    cfg = config.load_config(
        str(path),
        {
            'default_hooks.two_stage.begin': 40,
            'default_hooks.reweighting': None,
            'default_hooks.router_cache.type': 'RouterCacheHook',
        },
    )
    hooks = cfg.default_hooks
    assert hooks.two_stage.type == 'TwoStageHook'
    assert hooks.two_stage.begin == 40
    assert hooks.reweighting is None
    assert hooks.class_counts.type == 'ClassCountsHook'
    assert cfg.custom_hooks == [dict(type='EMAHook')]


def test_hooks_of_old_configs_are_moved_to_their_names(tmp_path, capsys):
    path = tmp_path / 'old.py'
    path.write_text(
        "custom_hooks = [dict(type='ClassCountsHook'), dict(type='EMAHook'),\n"
        "         dict(type='mmpretrain.DeferredReweightingHook', begin=3)]\n"
    )
    cfg = config.load_config(str(path), {'custom_hooks.2.begin': 4})
    assert cfg.default_hooks.reweighting.begin == 4
    assert cfg.default_hooks.class_counts.type == 'ClassCountsHook'
    assert cfg.custom_hooks == [dict(type='EMAHook')]
    assert 'class_counts, reweighting moved' in capsys.readouterr().err


@pytest.mark.parametrize(
    'text, options, message',
    [
        ('', {'custom_hooks.1.begin': 32}, 'default_hooks.reweighting, default_hooks.two_stage'),
        (
            'custom_hooks = _base_.custom_hooks[:2]',
            {},
            r'_base_.custom_hooks does not exist.*default_hooks=dict\(',
        ),
        (
            "custom_hooks = [dict(type='ClassCountsHook')]",
            {},
            'second ClassCountsHook: change default_hooks.class_counts',
        ),
    ],
)
def test_hooks_by_their_place_are_refused(root, tmp_path, text, options, message):
    path = tmp_path / 'old.py'
    path.write_text(f"_base_ = '{root}/configs/ride_r32_digits_lt.py'\n{text}")
    with pytest.raises(UserError, match=message):
        config.load_config(str(path), options)


def test_old_lists_of_bases_are_refused(root, tmp_path):
    path = tmp_path / 'old.py'
    path.write_text(f"""_base_ = [
    '{root}/configs/_base_/schedules/cifar_lt.py',
    '{root}/configs/_base_/default_runtime.py',
]""")
    with pytest.raises(UserError, match='default_runtime.py. from _base_'):
        config.load_config(str(path))
