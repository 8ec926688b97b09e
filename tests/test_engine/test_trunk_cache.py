"""Trainings on the kept maps of a frozen trunk."""

import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from runs import (
    STAGE_1,
    STAGE_2,
    assert_same_state,
    build_runner,
    digits_config,
    run_two_ranks,
    train,
)

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.datasets import trunk_maps
from ride_mm.datasets.augmentation_seeds import seed_everything
from ride_mm.engine.hooks import TrunkCacheHook
from ride_mm.utils.errors import UserError

IMAGES, VIEWS = 105, 2


def kept_config(work_dir, **options):
    cfg = digits_config(ROOT, work_dir, **options)
    cfg.model.setdefault('freeze_trunk', True)
    cfg.default_hooks.setdefault(
        'trunk_cache', dict(type='TrunkCacheHook', views=VIEWS, folder=str(work_dir / 'maps'))
    )
    return cfg


@pytest.fixture(scope='module')
def small_files():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trunk_maps, 'CHUNK', 40)
        yield


@pytest.fixture(scope='module')
def kept_run(tmp_path_factory, small_files):
    """A whole run of both stages; its work_dir and runner."""
    torch.set_num_threads(1)
    work_dir = tmp_path_factory.mktemp('kept')
    return work_dir, train(kept_config(work_dir, workers=2))


def files_of(work_dir):
    return sorted((work_dir / 'maps').rglob('*.npy'))


def maps_of(runner):
    return runner.train_dataloader.dataset.dataset


def load(work_dir, epoch):
    return load_checkpoint_file(str(work_dir / f'epoch_{epoch}.pth'))


def test_maps_are_those_of_the_augmented_images(kept_run):
    work_dir, runner = kept_run
    assert len(files_of(work_dir)) == VIEWS * 3
    (folder,) = (work_dir / 'maps').iterdir()
    images = maps_of(runner).dataset
    found = np.load(folder / 'view_1/2.npy')
    assert found.dtype == np.float16 and len(found) == IMAGES - 80
    seeds = np.random.default_rng((1, 80)).integers(2**32, size=25)
    model = runner.model.eval()
    for row in (0, 7, 24):
        seed_everything(int(seeds[row]))
        image = images[80 + row]['inputs'][None]
        batch = model.data_preprocessor(dict(inputs=image, data_samples=None))
        with torch.no_grad():
            expected = model.backbone(batch['inputs'])[-1]
        torch.testing.assert_close(
            torch.from_numpy(found[row]), expected[0].half(), rtol=1e-3, atol=1e-3
        )


def test_every_epoch_has_the_next_view_of_each_image(kept_run):
    _, runner = kept_run
    dataset = maps_of(runner)
    maps = {}
    for epoch in range(3):
        dataset.epoch = epoch
        maps[epoch] = dataset.__getitems__([3, 4, 100])['inputs'].maps
    assert torch.equal(maps[0], maps[2])
    assert not any(torch.equal(one, other) for one, other in zip(maps[0], maps[1]))
    labels = dataset.__getitems__([3, 104])['data_samples'].gt_label
    assert labels.tolist() == [dataset.dataset.get_data_info(n)['gt_label'] for n in (3, 104)]


def test_both_stages_are_trained_and_the_trunk_is_not(kept_run):
    work_dir, runner = kept_run
    assert runner.model.head.router.trained
    assert runner.iter == 5 * STAGE_1 + 4 * STAGE_2
    first, last = load(work_dir, 1)['state_dict'], load(work_dir, STAGE_1)['state_dict']
    changed = {key for key in last if not torch.equal(first[key], last[key])}
    assert changed and not [key for key in changed if key.startswith('backbone.')]
    assert {key for key in last if key.startswith('neck.experts.2.') and 'conv' in key} <= changed


def test_a_resumed_run_is_the_same(kept_run, tmp_path):
    work_dir, _ = kept_run
    shutil.copytree(work_dir / 'maps', tmp_path / 'maps')
    cfg = kept_config(tmp_path)
    cfg.load_from, cfg.resume = str(work_dir / f'epoch_{STAGE_1 - 1}.pth'), True
    train(cfg)
    for key in ('state_dict', 'optimizer'):
        assert_same_state(
            load(tmp_path, STAGE_1 + STAGE_2)[key], load(work_dir, STAGE_1 + STAGE_2)[key]
        )


def test_an_interrupted_extraction_goes_on(kept_run, tmp_path, monkeypatch):
    work_dir, _ = kept_run
    shutil.copytree(work_dir / 'maps', tmp_path / 'maps')
    lost = files_of(tmp_path)[1]
    whole = lost.read_bytes()
    lost.unlink()
    written = []
    write = trunk_maps.MapFiles.write
    monkeypatch.setattr(
        trunk_maps.MapFiles, 'write', lambda self, *args: [written.append(args), write(self, *args)]
    )
    train(kept_config(tmp_path, **{'train_cfg.max_epochs': STAGE_1 + 1}))
    assert len(written) == 1 and lost.read_bytes() == whole


@pytest.mark.parametrize(
    'options',
    [
        {'randomness.seed': 5},
        {'model.head.classifier.scale': 20},
        {'train_dataloader.batch_size': 30},
        {'train_dataloader.dataset.pipeline.3.degrees': 10},
        {'data_preprocessor.std': [90.0] * 3},
    ],
)
def test_what_the_files_belong_to(kept_run, tmp_path, options):
    work_dir, _ = kept_run
    shutil.copytree(work_dir / 'maps', tmp_path / 'maps')
    before = files_of(tmp_path)
    checkpoint = str(work_dir / f'epoch_{STAGE_1}.pth')
    cfg = kept_config(tmp_path, **options)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    cfg.train_cfg.max_epochs = STAGE_1 + 1
    train(cfg)
    shared = not any(key.startswith(('data_', 'train_dataloader.dataset')) for key in options)
    assert (files_of(tmp_path) == before) is shared


def test_router_inputs_are_those_of_the_maps(kept_run, tmp_path):
    work_dir, _ = kept_run
    shutil.copytree(work_dir / 'maps', tmp_path / 'maps')
    cfg = kept_config(tmp_path)
    cfg.default_hooks.router_cache = dict(type='RouterCacheHook', share=1.0)
    runner = train(cfg)
    assert runner.iter == 5 * STAGE_1 + 4 * STAGE_2
    assert runner.model.head.router.trained
    same = load(work_dir, STAGE_1)['state_dict']
    assert_same_state(load(tmp_path, STAGE_1)['state_dict'], same)


def rank(work_dir):
    trunk_maps.CHUNK = 40
    train(kept_config(work_dir, **{'randomness.seed': 3}))


def test_processes_share_the_extraction(tmp_path):
    run_two_ranks(rank, tmp_path)
    assert len(files_of(tmp_path)) == VIEWS * 3
    assert load(tmp_path, STAGE_1 + STAGE_2)['meta']['ride_stage'] == 'router'


@pytest.mark.parametrize(
    'options, words',
    [
        ({'model.freeze_trunk': False}, 'trains conv1.weight'),
        ({'default_hooks.trunk_cache.limit': 1e-6}, 'more than the TrunkCacheHook.limit of 0.00'),
        ({'model.train_cfg': dict(augments=dict(type='Mixup', alpha=1.0))}, 'augments mixes'),
        (
            {
                'default_hooks.recipe': dict(
                    type='SwitchRecipeHook', schedule=[dict(action_epoch=2, train_pipeline=[])]
                )
            },
            'SwitchRecipeHook changes the images',
        ),
    ],
)
def test_what_is_refused(tmp_path, options, words):
    cfg = kept_config(tmp_path)
    cfg.merge_from_dict(options)
    with pytest.raises(UserError, match=words):
        train(cfg)
    assert not files_of(tmp_path)


def test_no_space(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(UserError, match='more than the free space'):
        train(kept_config(tmp_path))
    assert not files_of(tmp_path)


def test_a_number_too_large_for_half_precision(tmp_path):
    runner = build_runner(kept_config(tmp_path))
    bias = runner.model.backbone.layer1[-1].bn2.bias
    runner.model.init_weights = lambda: torch.nn.init.constant_(bias, 1e5)
    with pytest.raises(UserError, match='exceeds 65504'):
        runner.train()


@pytest.mark.parametrize('options', [dict(views=0), dict(limit=0)])
def test_options_out_of_range(options):
    with pytest.raises(UserError, match='must be'):
        TrunkCacheHook(**options)
