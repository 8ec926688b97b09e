"""A bundle gives the model's decisions, without its packages."""

import csv
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import load_tool
from families import TINY, scatter
from mmcv.transforms import Compose
from mmengine.config import Config
from mmpretrain.registry import MODELS, TRANSFORMS
from test_backbones import ride

from ride_mm.deploy.bundle import preprocessing_of, settings_of, write_bundle
from ride_mm.utils.errors import UserError

NORMALIZATION = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 55.0], to_rgb=True)
CROP = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
PACK = [dict(type='PackInputs')]


def build(family, num_experts=2, router=True, temperature=None, **test_cfg):
    """A model that routes its random images to different experts."""
    torch.manual_seed(0)
    cfg = ride(
        TINY[family],
        data_preprocessor=NORMALIZATION,
        test_cfg=dict(dict(threshold=0.5), **test_cfg),
    )
    cfg['num_experts'] = num_experts
    cfg['head']['router'] = dict(type='ExpertRouter', topk=3) if router else None
    model = MODELS.build(cfg).eval()
    scatter(model)
    if router:
        model.head.router.num_updates.fill_(1)
    model.head.set_class_counts([50, 20, 10, 5])
    if temperature:
        model.head.set_temperature(temperature)
    return model


def config(pipeline=CROP):
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def open_bundle(folder):
    return load_tool('tools/predict.py').Bundle(folder)


@torch.no_grad()
def assert_same(bundle, model, images):
    found = model.infer(images)
    scores, used = bundle.predict(images.numpy())
    assert used.tolist() == found.used.tolist()
    tau = model.test_cfg['logit_adjustment']
    expected = model.head.scores(found.mean_logits, tau, model.test_cfg['prior'])
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    return used


def spread(model, images):
    """Shift the routers so that about half of these images ask on, none by a hair."""
    with torch.no_grad():
        feats = model.extract_feat(images)
        logits = model.head.router.all_logits(feats, model.head.expert_logits(feats))[0]
        middle = logits.sort().values[len(logits) // 3 : -(len(logits) // 3)]
        gap = middle.diff().argmax()
        model.head.router.fc.bias -= (middle[gap] + middle[gap + 1]) / 2


@pytest.mark.parametrize('family', ['cifar_resnet', 'swin', 'vit', 'efficientnet_lite'])
def test_every_family(family, tmp_path):
    size = TINY[family]['size']
    model = build(family)
    images = torch.randn(24, 3, size, size)
    spread(model, images)
    write_bundle(model, config(PACK), tmp_path / 'bundle', size=(size, size))
    bundle = open_bundle(tmp_path / 'bundle')
    assert set(assert_same(bundle, model, images)) == {1, 2}
    for number in (0, 1, 3):
        assert_same(bundle, model, images[:number])


def test_three_experts_and_what_is_fitted(tmp_path):
    """Thresholds of 0 and 1, a temperature and adjusted logits."""
    model = build('cifar_resnet', 3, temperature=1.7, logit_adjustment=0.5, threshold=[0.5, 0.5])
    images = torch.randn(40, 3, 32, 32)
    spread(model, images)
    manifest = write_bundle(model, config(PACK), tmp_path / 'bundle', size=(32, 32))
    assert len(manifest['relative_compute']) == 3
    json.loads((tmp_path / 'bundle' / 'manifest.json').read_text(), parse_constant=pytest.fail)
    bundle = open_bundle(tmp_path / 'bundle')
    assert len(set(assert_same(bundle, model, images))) > 1
    model.test_cfg['prior'] = [1, 0, 7, 0.5]
    bundle.manifest.update(settings_of(model, (3, 32, 32)))
    assert_same(bundle, model, images)
    assert (bundle.predict(images.numpy())[0][:, 1] == 0).all()
    for threshold, experts in ((0.0, 3), (1.0, 1)):
        model.test_cfg['threshold'] = threshold
        bundle.manifest.update(settings_of(model, (3, 32, 32)))
        assert set(assert_same(bundle, model, images)) == {experts}


def test_without_routers(tmp_path):
    model = build('cifar_resnet', router=False)
    write_bundle(model, config(PACK), tmp_path / 'bundle', size=(32, 32))
    used = assert_same(open_bundle(tmp_path / 'bundle'), model, torch.randn(5, 3, 32, 32))
    assert set(used) == {2}


def test_programs_of_pytorch(tmp_path):
    model = build('cifar_resnet')
    write_bundle(model, config(PACK), tmp_path / 'bundle', (32, 32), torch_too=True)
    images = torch.randn(5, 3, 32, 32)
    first, second = (
        torch.export.load(tmp_path / 'bundle' / f'expert_{k}.pt2').module() for k in (1, 2)
    )
    with torch.no_grad():
        trunk, total, _ = first(images)
        (total,) = second(trunk, total)
        torch.testing.assert_close(total / 2, model(images))


@pytest.mark.parametrize(
    'steps',
    [
        [],
        [dict(type='ResizeEdge', scale=40, backend='pillow', interpolation='bicubic')],
        [dict(type='ResizeEdge', scale=71, interpolation='area')],
        [dict(type='Resize', scale=(32, 48))],
        [dict(type='Resize', scale=32, backend='pillow', interpolation='lanczos')],
    ],
)
@pytest.mark.parametrize('shape', [(120, 91), (77, 131), (64, 64)])
def test_pixels_are_those_of_the_pipeline(steps, shape):
    crop = [dict(type='CenterCrop', crop_size=(31, 32))] if steps else []
    pipeline = [*steps, *crop, dict(type='PackInputs')]
    model = build('cifar_resnet', 1, router=False)
    image = np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)
    sample = Compose([TRANSFORMS.build(step) for step in pipeline])(
        dict(img=image, img_shape=shape, ori_shape=shape)
    )
    expected = model.data_preprocessor(dict(inputs=sample['inputs'][None]))['inputs'][0].numpy()
    program = object.__new__(load_tool('tools/predict.py').Bundle)
    program.manifest = dict(
        preprocessing=preprocessing_of(model, config(pipeline)), input_shape=list(expected.shape)
    )
    np.testing.assert_array_equal(program.preprocess(image), expected)
    program.manifest['input_shape'] = [3, 30, 40]
    with pytest.raises(ValueError, match=rf'has {shape[0]} x {shape[1]} pixels, expected 30 x 40'):
        program.preprocess(image)


@pytest.mark.parametrize(
    'transform, shown',
    [
        (dict(type='ResizeEdge', scale=40, edge='long'), 'ResizeEdge'),
        (dict(type='Resize', scale=40, keep_ratio=True), 'Resize'),
        (dict(type='Resize', scale_factor=2.0), r'Resize\(scale_factor=2.0\)'),
        (dict(type='Resize', scale=40, backend='tifffile'), 'Resize'),
        (dict(type='CenterCrop', crop_size=32, auto_pad=True), r'CenterCrop\(auto_pad=True\)'),
        (dict(type='Pad', size=(40, 40)), r'Pad\(size=\(40, 40\)\)'),
        (
            dict(type='LoadImageFromFile', color_type='grayscale'),
            "LoadImageFromFile\\(color_type='",
        ),
    ],
)
def test_transforms_without_a_counterpart(transform, shown):
    with pytest.raises(UserError, match=rf'{shown}.* has no counterpart in a bundle'):
        preprocessing_of(build('cifar_resnet', 1, router=False), config([transform]))


def test_pipelines_inside_of_wrappers_and_without_one_shape():
    model = build('cifar_resnet', 1, router=False)
    cfg = Config(
        dict(test_dataloader=dict(dataset=dict(type='HoldOut', dataset=dict(pipeline=CROP))))
    )
    assert preprocessing_of(model, cfg) == preprocessing_of(model, config(CROP))
    with pytest.raises(UserError, match='gives images of different shapes: end it with'):
        write_bundle(model, config(CROP[:2]), 'unused')


@pytest.mark.parametrize('to_bgr, warned', [(True, 0), (False, 1)])
def test_channels_of_arrays(to_bgr, warned, monkeypatch):
    said = []
    monkeypatch.setattr('ride_mm.deploy.bundle.print_log', lambda text, **_: said.append(text))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=PACK, to_bgr=to_bgr))))
    preprocessing_of(build('cifar_resnet', 1, router=False), cfg)
    assert ['blue, green, red' in text for text in said] == [True] * warned


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp('export') / 'bundle'
    model = build('cifar_resnet')
    model._dataset_meta = dict(classes=['cat', 'dog', 'eel', 'fox'])
    write_bundle(model, config([dict(type='Resize', scale=32), *PACK]), folder)
    return folder


def run(bundle, *arguments):
    """The program in a bundle, where none of our packages can be imported."""
    blocked = 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'ride_mm', 'scipy'
    code = (
        f'import runpy, sys; sys.modules.update(dict.fromkeys({blocked})); del sys.argv[0];'
        f'runpy.run_path(sys.argv[0], run_name="__main__")'
    )
    return subprocess.run(
        [sys.executable, '-c', code, str(bundle / 'predict.py'), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def write_images(folder):
    rng = np.random.default_rng(0)
    for name in ('b.png', 'a/c.png', 'a/b.JPG'):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', rng.integers(256, size=(20, 30, 3)))[1].tobytes())
    (folder / 'notes.txt').write_text('no image')
    (folder / 'broken.png').write_bytes(b'no image')
    (folder / 'empty.png').touch()


def test_the_program(bundle, tmp_path):
    write_images(tmp_path / 'images')
    done = run(bundle, tmp_path / 'images', '--out', tmp_path / 'found.csv')
    assert done.returncode == 0, done.stderr
    assert '3 images' in done.stdout
    for name in ('broken.png', 'empty.png'):
        assert f'{name} is left out: is not an image' in done.stderr
    rows = list(csv.DictReader((tmp_path / 'found.csv').open(newline='')))
    assert [row['file'] for row in rows] == ['a/b.JPG', 'a/c.png', 'b.png']
    assert all(
        row['class'] == ['cat', 'dog', 'eel', 'fox'][int(row['class_index'])] for row in rows
    )
    assert all(0.25 <= float(row['score']) <= 1 for row in rows)
    assert {row['num_experts_used'] for row in rows} <= {'1', '2'}
    one = run(bundle, tmp_path / 'images' / 'b.png', '--out', tmp_path / 'one.csv')
    assert one.returncode == 0
    assert (tmp_path / 'one.csv').read_text().splitlines()[1] == ','.join(rows[2].values())


def test_sets_in_the_table(bundle, tmp_path):
    write_images(tmp_path / 'images')
    other = shutil.copytree(bundle, tmp_path / 'bundle')
    manifest = json.loads((other / 'manifest.json').read_text())
    manifest['set_thresholds'] = [1.1, 1.1, 0.0, 1.1]
    (other / 'manifest.json').write_text(json.dumps(manifest))
    run(other, tmp_path / 'images', '--out', tmp_path / 'found.csv')
    for row in csv.DictReader((tmp_path / 'found.csv').open(newline='')):
        best = row['class']
        assert row['set'] == ('eel' if best == 'eel' else f'{best}|eel')


def test_mistakes(bundle, tmp_path):
    write_images(tmp_path / 'images')
    out = tmp_path / 'found.csv'
    empty = run(bundle, tmp_path / 'absent', '--out', out)
    assert empty.returncode == 1 and 'error: there is no image that can be read in' in empty.stderr
    other = run(bundle, tmp_path / 'images', '--out', out, '--bundle', tmp_path)
    assert other.returncode == 1 and f'{tmp_path} is not a whole bundle' in other.stderr
    assert not out.exists()
    out.touch()
    assert 'exists and is not overwritten' in run(bundle, tmp_path, '--out', out).stderr
    with pytest.raises(UserError, match='exists and is not overwritten'):
        write_bundle(build('cifar_resnet'), config(PACK), bundle, (32, 32))


def test_a_changed_graph(bundle, tmp_path):
    write_images(tmp_path / 'images')
    changed = tmp_path / 'bundle'
    changed.mkdir()
    for path in bundle.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    graph = changed / 'expert_2.onnx'
    graph.write_bytes(graph.read_bytes()[:-1])
    done = run(changed, tmp_path / 'images', '--out', tmp_path / 'found.csv')
    assert done.returncode == 1
    assert f'error: {graph} has changed since it was exported' in done.stderr
    manifest = json.loads((bundle / 'manifest.json').read_text())
    for key in manifest.keys() - {'ride_mm', 'opset', 'thresholds', 'set_thresholds'}:
        if key != 'relative_compute':
            part = {name: value for name, value in manifest.items() if name != key}
            (changed / 'manifest.json').write_text(json.dumps(part))
            with pytest.raises(SystemExit, match=f'is not a whole bundle .*{key}'):
                open_bundle(changed)
    graph.unlink()
    assert 'is not a whole bundle' in run(changed, tmp_path, '--out', tmp_path / 'a.csv').stderr


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr('ride_mm.deploy.bundle._TOLERANCE', -1.0)
    with pytest.raises(UserError, match='other results than the model'):
        write_bundle(build('cifar_resnet', 1, router=False), config(PACK), tmp_path / 'b', (32, 32))
    assert not list(tmp_path.iterdir())
