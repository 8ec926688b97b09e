import os
import time

import pytest
import torch
from mmengine.config import Config

from ride_mm.engine import launch
from ride_mm.utils.errors import UserError

CONFIG = """
model = dict(
    type='RIDEClassifier',
    backbone=dict(type='ResNet', depth=50, num_stages=2))
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict())
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dict())
test_dataloader = dict(
    batch_size=2, num_workers=1, pin_memory=True, persistent_workers=False,
    dataset=dict(pipeline=[dict(type='Resize'), dict(type='PackInputs')]))
val_cfg = dict()
val_evaluator = dict(type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


@pytest.fixture
def cfg():
    return Config.fromstring(CONFIG, '.py')


def parse(*argv):
    return launch.common_arguments().parse_args(['config.py', *argv])


class TestArguments:
    def test_options(self):
        args = parse('--cfg-options', 'a.b=1', 'c=x,y')
        assert args.cfg_options == {'a.b': 1, 'c': ['x', 'y']}

    def test_an_option_without_a_value(self, capsys):
        with pytest.raises(SystemExit):
            parse('--cfg-options', 'lonely')
        assert "expected KEY=VALUE, found 'lonely'" in capsys.readouterr().err

    @pytest.mark.parametrize('flag', ['--local_rank', '--local-rank'])
    def test_local_rank(self, flag):
        assert parse(f'{flag}=3').local_rank == 3


class TestDataloaders:
    def test_defaults(self, cfg):
        launch.set_dataloader_defaults(cfg)
        train, val = cfg.train_dataloader, cfg.val_dataloader
        assert train.pin_memory == val.pin_memory == torch.cuda.is_available()
        assert train.persistent_workers is True
        assert val.persistent_workers is False
        assert train.collate_fn == dict(type='default_collate')
        # the config's own settings stay
        assert cfg.test_dataloader.pin_memory is True
        assert cfg.test_dataloader.persistent_workers is False

    def test_no_workers_to_persist(self, cfg):
        cfg.train_dataloader.update(num_workers=0, persistent_workers=True)
        launch.set_dataloader_defaults(cfg)
        assert cfg.train_dataloader.persistent_workers is False

    def test_options(self, cfg):
        launch.set_dataloader_defaults(cfg, pin_memory=False, persistent_workers=False)
        assert cfg.test_dataloader.pin_memory is False
        assert cfg.train_dataloader.persistent_workers is False

    def test_without_validation(self, cfg):
        launch.disable_validation(cfg)
        launch.set_dataloader_defaults(cfg)
        assert cfg.val_dataloader is cfg.val_cfg is cfg.val_evaluator is None


class TestAmp:
    def test_amp(self, cfg):
        launch.enable_amp(cfg)
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper.loss_scale == 'dynamic'

    def test_the_loss_scale_of_the_config_stays(self, cfg):
        cfg.optim_wrapper.loss_scale = 512.0
        launch.enable_amp(cfg)
        assert cfg.optim_wrapper.loss_scale == 512.0

    def test_another_wrapper(self, cfg):
        cfg.optim_wrapper.type = 'ApexOptimWrapper'
        with pytest.raises(UserError, match='ApexOptimWrapper'):
            launch.enable_amp(cfg)


class TestAutoScaleLR:
    def test_enabled(self, cfg):
        cfg.auto_scale_lr = dict(base_batch_size=128, enable=False)
        launch.enable_auto_scale_lr(cfg)
        assert cfg.auto_scale_lr.enable is True

    @pytest.mark.parametrize('value', [None, dict(enable=False)])
    def test_no_base_batch_size(self, cfg, value):
        cfg.auto_scale_lr = value
        with pytest.raises(UserError, match='base_batch_size'):
            launch.enable_auto_scale_lr(cfg)


class TestWorkDir:
    def test_from_the_name_of_the_config(self, cfg):
        launch.set_work_dir(cfg, None, 'configs/ride_x.py')
        assert cfg.work_dir == os.path.join('work_dirs', 'ride_x')

    def test_from_the_config(self, cfg):
        cfg.work_dir = 'mine'
        launch.set_work_dir(cfg, None, 'configs/ride_x.py')
        assert cfg.work_dir == 'mine'

    def test_from_the_command_line(self, cfg):
        cfg.work_dir = 'mine'
        launch.set_work_dir(cfg, 'yours', 'configs/ride_x.py')
        assert cfg.work_dir == 'yours'


class TestResume:
    @pytest.fixture
    def cfg(self, cfg, tmp_path):
        stage1 = tmp_path / 'stage1.pth'
        stage1.touch()
        cfg.load_from = str(stage1)
        cfg.work_dir = str(tmp_path / 'run')
        return cfg

    def leave_checkpoint(self, cfg, name='epoch_3.pth'):
        os.makedirs(cfg.work_dir, exist_ok=True)
        path = os.path.join(cfg.work_dir, name)
        with open(path, 'w') as file:
            file.write('checkpoint')
        return path

    def test_new_run(self, cfg):
        launch.set_resume(cfg, None)
        assert not cfg.get('resume')

    @pytest.mark.parametrize('name', ['epoch_3.pth', 'iter_900.pth', 'last_checkpoint'])
    def test_used_work_dir_is_refused(self, cfg, name):
        self.leave_checkpoint(cfg, name)
        with pytest.raises(UserError) as info:
            launch.set_resume(cfg, None)
        for word in (cfg.work_dir, '--resume', '--work-dir'):
            assert word in str(info.value)

    def test_only_rank_0_refuses(self, cfg, monkeypatch):
        self.leave_checkpoint(cfg)
        monkeypatch.setenv('RANK', '1')
        launch.set_resume(cfg, None)

    def test_other_files_do_not_matter(self, cfg):
        self.leave_checkpoint(cfg, 'exported.pth')
        launch.set_resume(cfg, None)

    def test_auto(self, cfg):
        self.leave_checkpoint(cfg)
        launch.set_resume(cfg, 'auto')
        assert cfg.resume is True
        assert cfg.load_from is None

    def test_auto_with_nothing_to_resume_keeps_load_from(self, cfg):
        load_from = cfg.load_from
        launch.set_resume(cfg, 'auto')
        assert cfg.resume is False
        assert cfg.load_from == load_from

    def test_from_a_checkpoint(self, cfg):
        path = self.leave_checkpoint(cfg)
        launch.set_resume(cfg, path)
        assert cfg.resume is True
        assert cfg.load_from == path

    def test_from_a_mistyped_checkpoint(self, cfg):
        path = self.leave_checkpoint(cfg)
        with pytest.raises(UserError) as info:
            launch.set_resume(cfg, path.replace('epoch', 'epoc'))
        assert '--resume ' in str(info.value)
        assert "Did you mean 'epoch_3.pth'?" in str(info.value)

    def test_load_from_is_checked(self, cfg):
        cfg.load_from = 'no/such/epoch_100.pth'
        with pytest.raises(UserError, match='load_from=no/such/epoch_100'):
            launch.set_resume(cfg, None)

    def test_the_newest_is_last(self, cfg):
        for i, name in enumerate(['epoch_9.pth', 'epoch_10.pth']):
            path = self.leave_checkpoint(cfg, name)
            os.utime(path, (time.time(), time.time() + i))
        names = [path.name for path in launch.find_checkpoints(cfg.work_dir)]
        assert names == ['epoch_9.pth', 'epoch_10.pth']


@pytest.mark.parametrize('path', ['https://host/ride.pth', 's3://bucket/ride.pth'])
def test_remote_checkpoints_are_not_looked_for(path):
    launch.check_checkpoint_path(path)


class TestLauncher:
    def test_none(self, cfg):
        launch.set_launcher(cfg, 'none')
        assert cfg.launcher == 'none'
        assert 'model_wrapper_cfg' not in cfg

    def test_without_torchrun(self, cfg, monkeypatch):
        monkeypatch.delenv('RANK', raising=False)
        with pytest.raises(UserError, match='dist_train.sh'):
            launch.set_launcher(cfg, 'pytorch')

    @pytest.fixture
    def gloo(self, monkeypatch):
        backends = []
        monkeypatch.setenv('RANK', '0')
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr(torch.distributed, 'init_process_group', backends.append)
        return backends

    @pytest.mark.parametrize(
        'given',
        [
            dict(),
            dict(model_wrapper_cfg=None),
            dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel')),
        ],
    )
    def test_cpu(self, cfg, gloo, given):
        cfg.merge_from_dict(given)
        cfg.find_unused_parameters = True
        launch.set_launcher(cfg, 'pytorch')
        assert gloo == ['gloo']
        assert cfg.model_wrapper_cfg == dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=True,
        )

    def test_slurm_on_the_cpu(self, cfg, gloo):
        with pytest.raises(UserError, match='needs GPUs'):
            launch.set_launcher(cfg, 'slurm')

    def test_more_processes_than_gpus(self, cfg, monkeypatch):
        monkeypatch.setenv('RANK', '3')
        monkeypatch.setenv('LOCAL_RANK', '3')
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
        with pytest.raises(UserError, match='2 GPUs'):
            launch.set_launcher(cfg, 'pytorch')


class TestTTA:
    def test_default(self, cfg):
        model = cfg.model
        launch.enable_tta(cfg)
        assert cfg.model == dict(type='AverageClsScoreTTA', module=model)
        resize, tta = cfg.test_dataloader.dataset.pipeline
        assert resize.type == 'Resize'
        assert tta.type == 'TestTimeAug'
        flips, pack = tta.transforms
        assert [flip['prob'] for flip in flips] == [0.0, 1.0]
        assert pack[0].type == 'PackInputs'

    def test_of_the_config(self, cfg):
        cfg.tta_model = dict(type='MyTTA')
        cfg.tta_pipeline = [dict(type='MyAug')]
        launch.enable_tta(cfg)
        assert cfg.model.type == 'MyTTA'
        assert cfg.test_dataloader.dataset.pipeline == [dict(type='MyAug')]


class TestVisualization:
    def test_enabled(self, cfg):
        cfg.default_hooks = dict(visualization=dict(type='VisualizationHook'))
        launch.enable_visualization(cfg, show=False, out_dir='images')
        assert cfg.default_hooks.visualization == dict(
            type='VisualizationHook', enable=True, show=False, out_dir='images'
        )

    def test_no_hook(self, cfg):
        with pytest.raises(UserError, match='VisualizationHook'):
            launch.enable_visualization(cfg, show=True)


class TestOutputFile:
    def test_new_file(self, tmp_path):
        launch.check_output_file(str(tmp_path / 'new' / 'a.pkl'), ('.pkl',))
        assert (tmp_path / 'new').is_dir()

    def test_nothing_is_overwritten(self, tmp_path):
        path = tmp_path / 'a.pkl'
        path.touch()
        with pytest.raises(UserError, match='not overwritten'):
            launch.check_output_file(str(path), ('.pkl',))

    def test_wrong_suffix(self, tmp_path):
        with pytest.raises(UserError, match='.json or .pkl'):
            launch.check_output_file(str(tmp_path / 'a.txt'), ('.json', '.pkl'))


def test_all_experts():
    cfg = Config(dict(model=dict(type='RIDEClassifier', test_cfg=dict(threshold=0.7))))
    launch.enable_all_experts(cfg)
    assert cfg.model.test_cfg == dict(threshold=0.7, mode='ensemble', expert_logits=True)
    with pytest.raises(UserError, match='found "ImageClassifier"'):
        launch.enable_all_experts(Config(dict(model=dict(type='ImageClassifier'))))


def test_resume_of_a_mistyped_folder(tmp_path, capsys):
    (tmp_path / 'ride_seed0').mkdir()
    (tmp_path / 'ride_seed0' / 'epoch_1.pth').touch()
    cfg = Config(dict(work_dir=str(tmp_path / 'ride_sed0')))
    launch.set_resume(cfg, 'auto')
    assert cfg.resume is False
    warning = capsys.readouterr().err
    assert 'finds no checkpoint' in warning and warning.count('\n') == 1
    assert "mean 'ride_seed0'?" in warning
