"""docs/mmpretrain_tools.md: MMPretrain's own tools, run on a tiny training."""

import json
import os
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import cv2
import matplotlib.pyplot as plt
import mmengine
import numpy as np
import pytest
import torch
from conftest import ROOT, load_tool
from matplotlib import _tight_bbox
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from mmpretrain import get_model
from mmpretrain.registry import DATASETS
from prediction_files import write_predictions
from sklearn import manifold

from ride_mm.analysis import read_predictions
from ride_mm.analysis.accuracy.summary import summarize
from ride_mm.analysis.routing.compute import image_size, measure_compute
from ride_mm.datasets import DigitsLT
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.engine.schedule import load_training
from ride_mm.utils.errors import UserError

PAGE = (ROOT / 'docs/mmpretrain_tools.md').read_text()
# An epoch of the experts, then one of the router.
CONFIG = """
_base_ = '{root}/configs/ride_r32_digits_lt.py'

model = dict(backbone=dict(depth=20), neck=dict(expert=dict(depth=20)))
train_dataloader = dict(num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = dict(num_workers=0)
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(interval=1),
    reweighting=dict(begin=1),
    two_stage=dict(begin=1))
"""


launcher = load_tool('tools/mmpretrain_tool.py')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A folder with a config, two checkpoints, a log and predictions."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'tiny.py').write_text(CONFIG.format(root=ROOT))
    (block,) = re.findall(r'  ```python\n(.*?)  ```', PAGE, flags=re.S)
    (folder / 'file.py').write_text(
        textwrap.dedent(block).replace('configs/ride_r32_digits_lt.py', './tiny.py')
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LOCAL_RANK', '0')
        patch.chdir(folder)
        load_tool('tools/train.py').main(['tiny.py', '--work-dir', 'run'])
        load_tool('tools/test.py').main(
            ['tiny.py', 'run/epoch_2.pth', '--out', 'pred.pkl', '--work-dir', 'test']
        )
        write_predictions('pred.npz', mmengine.load('pred.pkl'))
    torch.set_num_threads(threads)
    (log,) = folder.glob('run/*/vis_data/2*.json')
    log.rename(folder / 'log.json')
    return folder


@pytest.fixture
def tool(run, tmp_path, monkeypatch):
    """Run a tool in an empty folder, beside what ``run`` holds."""
    for path in run.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    yield lambda *args: launcher.main(list(map(str, args)))
    plt.close('all')


def is_picture(path, number=1000):
    image = cv2.imread(str(path))
    return image is not None and image.size > number and image.std() > 1


def confusion(predictions):
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (predictions.gt_label, predictions.pred_label), 1)
    return matrix


def test_page_names_every_tool():
    folders = ('analysis_tools', 'visualization', 'misc')
    tools = {
        name for name, path in launcher.find_tools().items() if path.parent.name in folders
    } - {'utils'}
    assert tools | {'publish_model'} == set(re.findall(r'^\| `(\w+)` \|', PAGE, flags=re.M))
    mended = re.findall(r'^\| `(\w+)` .* \*patched\*', PAGE, flags=re.M)
    assert set(mended) == set(launcher.MENDS)
    named = re.findall(r'^python tools/mmpretrain_tool.py ([a-z_]+)', PAGE, re.M)
    assert tools - {'shape_bias'} < set(named) <= set(launcher.find_tools())


def test_unknown_tool(tool, monkeypatch):
    with pytest.raises(UserError, match="Did you mean 'get_flops'"):
        tool('get_flop')
    monkeypatch.setattr(launcher, 'find_tools', dict)
    with pytest.raises(UserError, match='without its tools'):
        tool('get_flops')


def test_help_is_that_of_the_tool(tool, capsys):
    with pytest.raises(SystemExit):
        tool('confusion_matrix', '--help')
    assert '--show-path' in capsys.readouterr().out


# ---------------------------------------------------------------------- logs


def test_curves(tool, tmp_path):
    tool(
        'analyze_logs',
        'plot_curve',
        'log.json',
        '--keys',
        'loss',
        'long_tail/overall',
        'experts/mean',
        '--out',
        'curves.png',
    )
    assert is_picture('curves.png')
    for key in ('loss_cls', 'loss_router'):
        with pytest.raises((KeyError, ValueError), match=key):
            tool('analyze_logs', 'plot_curve', 'log.json', '--keys', key)
        lines = (tmp_path / 'log.json').read_text().splitlines(True)
        (tmp_path / 'stage.json').write_text(''.join(line for line in lines if f'"{key}"' in line))
        tool('analyze_logs', 'plot_curve', 'stage.json', '--keys', key, '--out', f'{key}.png')
        assert is_picture(f'{key}.png')


def test_times(tool, tmp_path, capsys):
    tool('analyze_logs', 'cal_train_time', 'log.json', '--include-outliers')
    lines = (tmp_path / 'log.json').read_text().splitlines()
    times = [log['time'] for log in map(json.loads, lines) if 'lr' in log]
    printed = capsys.readouterr().out
    assert f'average iter time: {np.mean(times):.4f} s/iter' in printed
    assert 'nan' not in printed


# --------------------------------------------------------------- predictions


def test_analyze_results(tool, tmp_path):
    tool(
        'analyze_results',
        'tiny.py',
        'pred.pkl',
        '--out-dir',
        'images',
        '--topk',
        3,
        '--rescale-factor',
        16,
    )
    samples = mmengine.load('pred.pkl')
    samples.sort(key=lambda sample: sample['pred_score'].max())
    for folder, right in (('success', True), ('fail', False)):
        expected = [
            sample['sample_idx']
            for sample in samples
            if (sample['pred_label'] == sample['gt_label']).all() == right
        ][:3]
        pictures = list((tmp_path / 'images' / folder).glob('*.png'))
        assert {int(path.stem) for path in pictures} == set(expected)
        assert all(map(is_picture, pictures))


def test_confusion_matrix_of_predictions_and_of_a_checkpoint(tool):
    expected = confusion(read_predictions('pred.npz'))
    for index, source in enumerate(('pred.pkl', 'run/epoch_2.pth')):
        tool(
            'confusion_matrix',
            'tiny.py',
            source,
            '--out',
            f'{index}.pkl',
            '--show-path',
            f'{index}.png',
        )
        matrix = mmengine.load(f'{index}.pkl')
        assert matrix.tolist() == expected.tolist()
        assert is_picture(f'{index}.png')


def test_without_the_launcher(tool, tmp_path):
    """As mim runs it: the config alone brings ride_mm."""
    command = re.search(r'TOOLS=.*\$TOOLS/analysis_tools/\w+\.py', PAGE, re.S)
    done = subprocess.run(
        ['bash', '-c', f'{command[0]} tiny.py run/epoch_2.pth --out direct.pkl'],
        env=dict(
            os.environ,
            PYTHONPATH=str(ROOT),
            OMP_NUM_THREADS='1',
            PATH=f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}',
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = confusion(read_predictions('pred.npz'))
    assert mmengine.load('direct.pkl').tolist() == expected.tolist()


def test_eval_metric(tool, capsys):
    counts = DigitsLT(split='test').metainfo['class_counts']
    given = 'class_counts=[' + ','.join(map(str, counts)) + ']'
    tool(
        'eval_metric',
        'pred.pkl',
        '--metric',
        'type=Accuracy',
        'topk=1,5',
        '--metric',
        'type=LongTailMetric',
        given,
        '--metric',
        'type=CalibrationMetric',
        given,
        '--metric',
        'type=ExpertUsageMetric',
        given,
    )
    found = dict(re.findall(r"'([\w/-]+)': ([\d.]+)", capsys.readouterr().out))
    expected = {
        name: value
        for name, value in summarize(read_predictions('pred.npz'), ClassGroups(counts)).items()
        if not name.startswith('label_shift/')  # no metric's
    }
    assert set(expected) < set(found)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value), name
    assert float(found['accuracy/top1']) == pytest.approx(expected['long_tail/overall'])
    assert 'accuracy/top5' in found


@pytest.mark.parametrize(
    'args',
    [
        ('eval_metric', 'bad.yaml', '--metric', 'type=Accuracy'),
        ('analyze_results', 'tiny.py', 'bad.yaml', '--out-dir', 'out'),
    ],
)
def test_yaml_files_of_others_run_no_code(tool, tmp_path, args):
    (tmp_path / 'bad.yaml').write_text('!!python/object/apply:builtins.open [trace, w]')
    with pytest.raises(UserError, match='^bad.yaml: cannot be read as plain data'):
        tool(*args)
    assert not (tmp_path / 'trace').exists()


# ---------------------------------------------------------------- operations


def test_get_flops_is_ours_without_the_classifiers(tool, capsys):
    cfg = Config.fromfile('tiny.py')
    assert image_size(cfg) == (16, 16)
    tool('get_flops', 'tiny.py', '--shape', 16)
    compute = measure_compute(get_model(cfg), (3, 16, 16), batch_norm=True)
    counted = sum(
        part.macs for part in compute.parts if part.name == 'trunk' or part.name.endswith('tail')
    )
    counted += 3 * 48 * 4 * 4  # pooling
    printed = capsys.readouterr().out
    assert f'Flops: {counted / 1e6:.3f}M' in printed
    assert f'Params: {compute.params / 1e6:.2f}M' in printed


# ----------------------------------------------------------------- datasets


@pytest.mark.parametrize('mode', ['original', 'transformed', 'concat'])
def test_browse_dataset(tool, mode, tmp_path):
    tool(
        'browse_dataset',
        'tiny.py',
        '--mode',
        mode,
        '--not-show',
        '--output-dir',
        'browse',
        '--show-number',
        2,
    )
    pictures = sorted((tmp_path / 'browse').iterdir())
    assert len(pictures) == 2
    assert all(is_picture(path, number=100) for path in pictures)


def test_browse_pipeline_cannot_draw_pil_images(tool):
    with pytest.raises(AttributeError, match="'Image' .* no attribute 'shape"):
        tool('browse_dataset', 'tiny.py', '--mode', 'pipeline', '--not-show')


def test_browse_has_no_views_of_a_batch(tool, tmp_path):
    (tmp_path / 'batch.py').write_text("""
_base_ = './tiny.py'
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type='DrawCropFlipRotate', size=8)]))
""")
    with pytest.raises(KeyError, match='data_samples'):
        tool('browse_dataset', 'batch.py', '--mode', 'original', '--not-show')


def test_verify_dataset(tool, tmp_path, capsys):
    for name in ('a/0', 'a/1', 'b/0', 'b/1'):
        file = tmp_path / f'images/{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((8, 8, 3), 100, np.uint8))
    (tmp_path / 'images/b/0.png').write_bytes(b'no picture')
    (tmp_path / 'list.py').write_text("""
custom_imports = dict(imports=['ride_mm'], allow_failed_imports=False)
train_dataloader = dict(
    dataset=dict(
        type='LongTailList', data_prefix='images',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
""")
    tool('verify_dataset', 'list.py', '--out-path', 'broken.log')
    assert '1 broken files found' in capsys.readouterr().out
    assert (tmp_path / 'broken.log').read_text() == 'images/b/0.png\n'
    with pytest.raises(AssertionError, match='load image from files'):
        tool('verify_dataset', 'tiny.py')


# -------------------------------------------------------------------- models


@pytest.mark.parametrize(
    'row, config, size',
    [
        ('CIFAR ResNet-32', 'ride_r32_digits_lt.py', 16),
        ('ResNet-50', 'ride_r50_imagenet_lt.py', 64),
    ],
)
def test_layers_of_an_expert_have_its_own_gradients(row, config, size):
    """That is what vis_cam draws."""
    expert, trunk = re.search(rf'^\| {row}.*? `(\S+)` \| `(\S+)` \|$', PAGE, re.M).groups()
    model = get_model(str(ROOT / 'configs' / config))
    layers = [expert.replace('.k.', f'.{k}.') for k in range(3)] + [trunk]
    maps = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: maps.update({name: out})
        )
    image = torch.randn(1, 3, size, size)
    mean_logits = model(image)
    feats = [torch.flatten(maps[name].mean((2, 3)), 1) for name in layers[:3]]
    own = model.head.expert_logits(feats)[:, 0, 3]
    for name, logit in zip(layers, own):
        gradient, by_mean = (
            torch.autograd.grad(score, maps[name], retain_graph=True)[0]
            for score in (logit, mean_logits[0, 3])
        )
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(by_mean, gradient / 3)
    (gradient,) = torch.autograd.grad(mean_logits[0, 3], maps[trunk])
    assert gradient.dim() == 4 and gradient.abs().sum() > 0


def test_vis_cam(tool):
    cv2.imwrite('digit.png', DigitsLT(split='test')[0]['img'])
    dataset = Config.fromfile('tiny.py').test_dataloader.dataset
    pipeline = Config.fromfile('file.py').test_dataloader.dataset.pipeline
    assert torch.equal(
        Compose(pipeline)(dict(img_path='digit.png'))['inputs'],
        DATASETS.build(dataset)[0]['inputs'],
    )
    args = (
        'digit.png',
        'file.py',
        'run/epoch_1.pth',
        '--target-layers',
        'neck.experts.1.layer3.2',
        '--save-path',
        'cam.png',
    )
    if find_spec('pytorch_grad_cam') is None:
        with pytest.raises(ImportError, match='grad-cam'):
            tool('vis_cam', *args)
    else:
        tool('vis_cam', *args)
        assert is_picture('cam.png', 100)


def test_vis_scheduler(tool):
    """The schedules of both stages, step by step."""
    config = str(ROOT / 'configs/ride_r32_digits_lt.py')
    load_training(config, stage='router').dump('router.py')
    epochs = np.arange(40)
    warm_up = 0.05 * np.minimum(1, (epochs + 1) / 5)
    steps = 0.1 ** ((epochs >= 32).astype(int) + (epochs >= 36))
    cosine = 0.01 * (1 + np.cos(np.pi * np.arange(5) / 5)) / 2
    size = len(DigitsLT())
    for config, expected, batch_size, options in (
        (config, warm_up * steps, 32, ['--cfg-options', 'train_cfg.max_epochs=40']),
        ('router.py', cosine, 64, []),
    ):
        tool('vis_scheduler', config, '--not-show', '--save-path', 'lr.png', *options)
        drawn = plt.gcf().axes[0].lines[0].get_ydata()
        np.testing.assert_allclose(drawn, expected.repeat(size // batch_size))
        assert is_picture('lr.png')


TSNE = ('--max-num-samples', 4, '--n-iter', 250, '--perplexity', 5)
SINGLE = (
    '--cfg-options',
    'model.num_experts=1',
    'model.head.router=None',
    'model.head.diversity=None',
)


@pytest.mark.parametrize(
    'options, channels',
    [
        (('--checkpoint', 'run/epoch_2.pth', '--vis-stage', 'backbone'), 16),
        (SINGLE, 48),
    ],
)
def test_vis_tsne(tool, tmp_path, options, channels):
    tool('vis_tsne', 'tiny.py', '--work-dir', 'tsne', *TSNE, *options)
    (features,) = tmp_path.glob('tsne/*/feat_0.npy')
    assert np.load(features).shape == (40, channels)
    assert is_picture(features.with_suffix('.png'))


@pytest.mark.parametrize('stage', ['neck', 'pre_logits'])
def test_vis_tsne_has_one_name_for_the_features(tool, stage):
    with pytest.raises(IndexError, match='out of range'):
        tool('vis_tsne', 'tiny.py', '--work-dir', 'tsne', *TSNE, '--vis-stage', stage)


def test_features_of_the_experts(tool):
    """The page's way round vis_tsne."""
    code = re.search(r'```python\n(import matplotlib.*?)```', PAGE, re.S)[1]
    code = code.replace('configs/ride_r32_digits_lt.py', 'tiny.py').replace(
        'work_dirs/ride_r32_digits_lt/epoch_45.pth', 'run/epoch_2.pth'
    )
    names = {}
    exec(code.replace('TSNE()', 'TSNE(max_iter=250)'), names)
    assert is_picture('tsne.png')
    loader = Runner.build_dataloader(Config.fromfile('tiny.py').test_dataloader)
    model = names['extractor'].model
    batch = model.data_preprocessor(next(iter(loader)))['inputs']
    with torch.no_grad():
        expected = model.extract_feat(batch)
    for k in range(3):
        found = torch.stack([f[k] for f in names['features'][: len(batch)]])
        torch.testing.assert_close(found, expected[k])


# --------------------------------------------------- configs and checkpoints


def test_print_config(tool, capsys):
    tool('print_config', 'tiny.py', '--cfg-options', 'model.num_experts=4')
    printed = Config.fromstring(capsys.readouterr().out, '.py')
    expected = Config.fromfile('tiny.py')
    expected.model.num_experts = 4
    assert printed.to_dict() == expected.to_dict()


def test_publish_model(tool, tmp_path):
    tool('publish_model', 'run/epoch_2.pth', 'ride.pth')
    (published,) = tmp_path.glob('ride_*.pth')
    assert re.fullmatch(r'ride_\d{8}-[0-9a-f]{8}.pth', published.name)
    checkpoint = torch.load(published, weights_only=True)
    assert set(checkpoint) == {'meta', 'state_dict'}
    assert checkpoint['meta']['dataset_meta']['classes']
    state = get_model('tiny.py', 'run/epoch_2.pth').state_dict()
    assert checkpoint['state_dict'].keys() == state.keys()
    for name, value in get_model('tiny.py', str(published)).state_dict().items():
        assert torch.equal(value, state[name]), name


# ----------------------------------------------- packages, older and newer


def with_renderer(figure, bbox_inches, renderer, fixed_dpi=None):
    return bbox_inches, renderer


def without_renderer(figure, bbox_inches, fixed_dpi=None):
    return bbox_inches, figure.canvas.get_renderer()


@pytest.mark.parametrize('adjust_bbox', [with_renderer, without_renderer])
def test_mended_adjust_bbox(adjust_bbox, monkeypatch):
    monkeypatch.setattr(_tight_bbox, 'adjust_bbox', adjust_bbox)
    figure = plt.figure()
    with launcher.mend_adjust_bbox():
        assert _tight_bbox.adjust_bbox(figure, 'box') == ('box', figure.canvas.get_renderer())
    assert _tight_bbox.adjust_bbox is adjust_bbox
    plt.close(figure)


@pytest.mark.parametrize(
    'tsne',
    [
        lambda perplexity, max_iter: (perplexity, max_iter),
        lambda perplexity, n_iter: (perplexity, n_iter),
    ],
)
def test_mended_tsne(tsne, monkeypatch):
    monkeypatch.setattr(manifold, 'TSNE', tsne)
    with launcher.mend_tsne():
        assert manifold.TSNE(perplexity=30, n_iter=500) == (30, 500)
    assert manifold.TSNE is tsne
