"""tools/analysis/report.py: one self-contained page."""

import base64
import errno
import html
import io
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch
from conftest import load_tool
from mmengine.config import Config
from mmpretrain.structures import DataSample
from PIL import Image
from prediction_files import write_predictions

from ride_mm.analysis.accuracy.hardest import hardest_images, load_pictures
from ride_mm.analysis.predictions import Predictions
from ride_mm.analysis.report import write_report
from ride_mm.analysis.report.page import Figure, FigureMaker, mark_code, percent
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import fingerprint
from ride_mm.utils.errors import UserError, run_tool

TOOL = 'tools/analysis/report.py'
COUNTS = [200, 150, 60, 40, 9, 5]
NAMES = ['<script>alert(1)</script>', 'a $_ b$', '"5" & 6', 'dog', 'eel', 'fly']
NUM = 60
COMPUTE = [0.55, 0.8, 1.01]
CONFIG = """
custom_imports = dict(imports=['ride_mm'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='RIDEClassifier',
    num_experts=3,
    backbone=dict(type='CIFARResNet', depth=20),
    head=dict(loss=dict(type='LDAMLoss', max_margin=.5)),
    test_cfg=dict(mode='auto', threshold={threshold}))
data_preprocessor = dict(to_rgb=True)
train_dataloader = dict(batch_size=4, dataset=dict(type='CustomDataset'))
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type='CustomDataset',
        data_root=r'{root}',
        ann_file='test.txt',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
train_cfg = dict(max_epochs=3)
default_hooks = dict(two_stage=dict(type='TwoStageHook', begin=2))
randomness = dict(seed=7)
"""
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
# Width of the screen and of the page, and whether its contents are beside it and images shown.
MEASURE = """<script>onload = () => parent.document.title = [
    innerWidth, document.documentElement.scrollWidth,
    getComputedStyle(document.querySelector('nav')).display,
    [...document.images].filter(image => image.naturalWidth).length].join(' ')</script></body>"""


class Run:
    """A work_dir of a training, with test images and predictions."""

    def __init__(self, folder, threshold=0.5):
        self.path = folder / 'run'
        data = self.path / '20260101_000000' / 'vis_data'
        data.mkdir(parents=True)
        self.config = self.path / 'tiny.py'
        for path in (self.config, data / 'config.py'):
            path.write_text(CONFIG.format(root=folder, threshold=threshold))
        records = []
        for epoch in (1, 2, 3):
            losses = dict(loss_cls=4.0 / epoch, loss_diversity=-0.5)
            losses = losses if epoch < 3 else dict(loss_router=0.5)
            records.append(dict(losses, epoch=epoch, iter=epoch))
            records.append({'long_tail/overall': 10.0 * epoch, 'step': epoch})
        (data / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
        self.checkpoint = self.path / 'epoch_3.pth'
        self.checkpoint.write_bytes(b'weights')
        rng = np.random.default_rng(0)
        self.labels = np.arange(NUM) % 6
        self.logits = 2 * rng.normal(size=(3, NUM, 6)).astype(np.float32)
        self.logits[:, np.arange(NUM), self.labels] += 1.5
        self.routers = rng.normal(size=(2, NUM)).astype(np.float32)
        for i in range(NUM):
            # OpenCV writes blue, green, red.
            image = np.full((8, 8, 3), (4 * i, 50, 200), np.uint8)
            cv2.imwrite(str(folder / f'{i}.png'), image)
        lines = [f'{i}.png {label}' for i, label in enumerate(self.labels)]
        (folder / 'test.txt').write_text('\n'.join(lines))

    def write(self, experts=True, routers=True, used=None, **changes):
        """Write the predictions, as ``tools/test.py --out`` does."""
        run = dict(
            config=str(self.config),
            options={},
            checkpoint=str(self.checkpoint),
            weights=fingerprint(str(self.checkpoint)),
            classes=NAMES,
            class_counts=COUNTS,
        )
        samples = []
        for i, label in enumerate(self.labels):
            logits = torch.from_numpy(self.logits[:, i])
            score = logits.mean(0).softmax(0)
            sample = DataSample().set_gt_label(int(label)).set_pred_score(score)
            if used is not None:
                sample.num_experts_used = int(used[i])
                sample.relative_compute = COMPUTE[int(used[i]) - 1]
            elif experts:
                sample.num_experts_used = 3
                sample.relative_compute = 1.0
                sample.expert_logits = logits
            if routers and experts:
                sample.router_logits = torch.from_numpy(self.routers[:, i])
                sample.routed_compute = torch.tensor(COMPUTE).double()
            samples.append(sample.to_dict())
        file = self.path / 'predictions.npz'
        write_predictions(file, samples, **{**run, **changes})
        return file

    def routed(self, threshold=0.5):
        """Image by image: experts used, and their mean logits."""
        used, means = [], []
        for i in range(NUM):
            count = 1
            while count < 3 and 1 / (1 + math.exp(-self.routers[count - 1, i])) > threshold:
                count += 1
            used.append(count)
            means.append(self.logits[:count, i].mean(0))
        return np.array(used), np.array(means)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


class Page(HTMLParser):
    """Checks that tags are balanced, and collects their content."""

    VOID = ('meta', 'img', 'br')

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            if name in ('href', 'src', 'action', 'data', 'srcset'):
                self.sources.append(value)
            self.sources += re.findall(r'url\(([^)]*)\)', value or '')

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == 'style':
            self.sources += re.findall(r'url\(([^)]*)\)|@import', data)
        else:
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r'\s+', ' ', ' '.join(self.texts))


def make_page(run, out, **options):
    notes = write_report(run, out, **options)
    return Page(out.read_text()), notes


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run, and the folder that the tool writes to."""
    folder = tmp_path_factory.mktemp('whole')
    run = Run(folder)
    run.write()
    options = f'--figures {folder}/figures --json {folder}/report.json --config {run.config}'
    load_tool(TOOL).main([str(run.path), '-o', f'{folder}/out/report.html', *options.split()])
    return run, folder


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Drawing them takes seconds; `whole` has them."""
    monkeypatch.setattr(FigureMaker, 'draw', lambda *args, **options: Figure('wide', 'narrow'))


def test_the_whole_page(whole):
    run, folder = whole
    out = folder / 'out' / 'report.html'
    page = Page(out.read_text())

    # it is self-contained
    assert not [tag for tag, _ in page.tags if tag in ('script', 'link', 'iframe', 'object')]
    assert page.sources
    for source in page.sources:
        assert re.match('#|data:image/(png|svg[+]xml);base64,', source), source
    ids = [attrs['id'] for _, attrs in page.tags if 'id' in attrs]
    assert len(ids) == len(set(ids))
    assert {s[1:] for s in page.sources if s.startswith('#')} <= set(ids)
    assert '://' not in out.read_text()

    used, means = run.routed()
    accuracy = 100 * np.mean(means.argmax(1) == run.labels)
    everyone = 100 * np.mean(run.logits.mean(0).argmax(1) == run.labels)
    for text in (
        'tiny',
        'RIDEClassifier, 3 experts',
        f'{accuracy:.1f}%',
        f'all experts {everyone:.1f}%',
        f'{accuracy:.2f}',
        f'{used.mean():.2f}',
        'routed, threshold 0.5',
        '2 epochs of the experts, 1 of the router',
        'seed 7',
        fingerprint(str(run.checkpoint)),
        'stopped after expert 1',
        'continued to the last expert',
        '(not used)',
        *NAMES,
    ):
        assert text in page.text, text
    drawn = [s for s in page.sources if s.startswith('data:image/svg')]
    assert len(drawn) == 7
    assert all(attrs['alt'] for tag, attrs in page.tags if tag == 'img')

    content = json.loads((folder / 'report.json').read_text())
    assert content['figures']['long_tail/overall'] == pytest.approx(accuracy)
    assert content['all_experts']['long_tail/overall'] == pytest.approx(everyone)
    assert content['figures']['experts/mean'] == pytest.approx(used.mean())
    names = 'accuracy_by_class confusion expert_usage experts_by_class reliability tradeoff'
    files = sorted(path.name for path in (folder / 'figures').iterdir())
    names = [*names.split(), 'training']
    assert files == [f'{name}.{suffix}' for name in names for suffix in ('png', 'svg')]


def test_the_tool_prints_what_is_left_out(run, tmp_path, capsys):
    file = run.write(routers=False)
    out = tmp_path / 'a.html'
    load_tool(TOOL).main([str(file), '-o', str(out), '--images', '0'])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out)
    assert printed.err.count('note: ') == 2


def test_the_page_is_in_the_work_dir_by_default(run):
    file = run.write()
    for source in (run.path, file):
        load_tool(TOOL).main([str(source), '--images', '0'])
        (run.path / 'report.html').unlink()


def test_nothing_is_overwritten(run, tmp_path):
    run.write()
    main = load_tool(TOOL).main
    (tmp_path / 'report.html').touch()
    with pytest.raises(UserError, match='report.html exists'):
        main([str(run.path), '-o', str(tmp_path / 'report.html')])
    with pytest.raises(UserError, match='the file name must end in .html'):
        main([str(run.path), '-o', str(tmp_path / 'report.pdf')])
    with pytest.raises(UserError, match='run is not empty'):
        main([str(run.path), '-o', str(tmp_path / 'b.html'), '--figures', str(run.path)])


def test_full_disk_leaves_no_partial_page(run, tmp_path, monkeypatch, capsys):
    file, out = run.write(), tmp_path / 'a.html'

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    main = load_tool(TOOL).main
    with pytest.raises(SystemExit):
        run_tool(lambda: main([str(file), '-o', str(out)]))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: {out}: No space left on device')
    assert not list(tmp_path.glob('*a.html*'))


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        load_tool(TOOL).parse_args(['--help'])
    assert 'report.py work_dirs/r -o report.html' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        load_tool(TOOL).parse_args(['run', '-o', 'a.html', '--images', '-1'])


@pytest.mark.parametrize(
    'options, changes, expected',
    [
        (dict(), dict(), []),
        (dict(routers=False), dict(), ['Experts used and trade-off']),
        (dict(experts=False), dict(), ['the model has no experts']),
        (dict(used=np.arange(NUM) % 3 + 1), dict(), ['--all-experts --out']),
        (dict(used=np.full(NUM, 3)), dict(), ['--all-experts --out', 'Experts used and trade-off']),
        (dict(), dict(config='absent/x.py'), ['The images are left out', 'Settings of the model']),
    ],
)
def test_predictions_alone(run, tmp_path, options, changes, expected):
    """Unknown parts are named in a note, the rest is there."""
    if options.get('used') is not None:
        options = dict(options, experts=False, routers=False)
    file = run.write(**options, **changes)
    page, notes = make_page(file, tmp_path / 'report.html', config=None if changes else run.config)
    assert len(notes) == len(expected) + 1
    for text in (*expected, 'training curves are left out'):
        assert len([note for note in notes if text in note]) == 1
    for note in notes:
        assert note.replace('`', '') in page.text.replace(' .', '.')
    for title in ('Accuracy by group', 'Confusion', 'Reliability', 'hardest'):
        assert title in page.text


def test_prediction_sets(run, tmp_path):
    """Sets of all labels hold every label."""
    file = run.write(experts=False, set_thresholds=[0.0] * 6)
    page, _ = make_page(file, tmp_path / 'report.html', config=run.config)
    assert 'label in the set (%)' in page.text and '100.0 6.0' in ' '.join(page.text.split())


def test_frequencies_of_the_classes(run, tmp_path):
    run.write(prior=[0.0, 3.0, 1.0, 0.0, 1.0, 1.0])
    write_report(run.path, tmp_path / 'a.html', num_images=0)
    assert (
        '4 of 6, with the frequencies of --classes and'
        in Page((tmp_path / 'a.html').read_text()).text
    )


def test_without_images_no_data_is_needed(run, tmp_path):
    run.write()
    (tmp_path / 'test.txt').unlink()
    with pytest.raises(UserError, match='cannot be read.*--images 0'):
        write_report(run.path, tmp_path / 'a.html', config=run.config)
    page, notes = make_page(run.path, tmp_path / 'a.html', num_images=0)
    assert notes == [] and 'hardest' not in page.text


def test_threshold_and_mode_of_the_config(tmp_path):
    run = Run(tmp_path, threshold=[0.3, 0.7])
    run.write()
    numbers = tmp_path / 'a.json'
    page, _ = make_page(run.path, tmp_path / 'a.html', num_images=0, json_file=numbers)
    assert 'routed, threshold 0.3, 0.7' in page.text
    assert json.loads(numbers.read_text())['routing'] == [0.3, 0.7]
    # as --all-experts dumps it
    dumped = run.config.read_text().replace("mode='auto'", "mode='ensemble', expert_logits=True")
    run.config.write_text(dumped)
    page, _ = make_page(run.path, tmp_path / 'b.html', num_images=0)
    assert 'routed, threshold 0.3, 0.7' in page.text
    # the config asks for all experts
    run.config.write_text(dumped.replace(', expert_logits=True', ''))
    page, _ = make_page(run.path, tmp_path / 'c.html', num_images=0, json_file=numbers)
    assert 'all experts; routing is shown at threshold 0.3, 0.7' in page.text
    content = json.loads(numbers.read_text())
    assert content['all_experts'] is None
    assert content['figures']['long_tail/overall'] == pytest.approx(
        100 * np.mean(run.logits.mean(0).argmax(1) == run.labels)
    )
    assert 'experts per image' not in page.text


def test_work_dir_without_predictions(run):
    with pytest.raises(UserError) as info:
        write_report(run.path, 'report.html')
    options = f'{run.config} {run.checkpoint} --all-experts --out {run.path}/predictions.npz'
    assert f'`python tools/test.py {options}`' in str(info.value)
    run.config.write_text("model = dict(type='ImageClassifier')")
    with pytest.raises(UserError, match=r'epoch_3.pth --out'):
        write_report(run.path, 'report.html')
    run.checkpoint.unlink()
    with pytest.raises(UserError, match='nor a checkpoint to create it with'):
        write_report(run.path, 'report.html')


def test_predictions_of_other_weights(run, tmp_path):
    file = run.write()
    newer = run.path / 'epoch_4.pth'
    newer.write_bytes(b'trained on')
    os.utime(newer, (2e9, 2e9))
    with pytest.raises(UserError) as info:
        write_report(run.path, tmp_path / 'a.html')
    message = str(info.value)
    assert 'an older checkpoint of this run, epoch_3.pth' in message
    assert f'{newer} --all-experts' in message
    assert f'report.py {file} -o' in message
    run.checkpoint.unlink()
    message = 'weights that are not in .*epoch_3.*fingerprint.*Test .*epoch_4.pth with its own'
    with pytest.raises(UserError, match=message):
        write_report(run.path, tmp_path / 'a.html')
    # derived from the last ones, such as with a temperature, or the best ones
    (run.path / 'calibrated.pth').write_bytes(b'weights')
    write_report(run.path, tmp_path / 'a.html', num_images=0)


def test_only_the_named_config_is_executed(run, tmp_path):
    """Neither that of a work_dir nor that of a predictions file."""
    trace = tmp_path / 'trace'
    code = f"import os\nos.system('touch {trace}')\n"
    options = {'test_dataloader.dataset.type': 'os.system'}
    program = tmp_path / 'program.py'
    program.write_text(code + run.config.read_text())
    file = run.write(config=str(program), options=options)
    page, notes = make_page(file, tmp_path / 'a.html')
    left_out = ['Settings of the model', 'The images', 'The training curves']
    assert [note.split(' are')[0] for note in notes] == left_out
    assert f'--config {program}' in page.text
    with pytest.raises(UserError, match='dataset.type=.*os.system.*repeat it'):
        write_report(file, tmp_path / 'b.html', config=run.config)
    data = run.path / '20260101_000000' / 'vis_data' / 'config.py'
    run.write()
    for config in (data, run.config):
        config.write_text(code + run.config.read_text())
    with pytest.raises(UserError, match='config.py, line 1:.*`import os`'):
        write_report(run.path, tmp_path / 'b.html')
    (run.path / 'predictions.npz').unlink()
    with pytest.raises(UserError, match='tiny.py, line 1:.*`import os`'):
        write_report(run.path, tmp_path / 'b.html')
    assert not trace.exists()


def test_invalid_files(run, tmp_path):
    out = tmp_path / 'a.html'
    with pytest.raises(UserError, match='there is no .*absent'):
        write_report(tmp_path / 'absent', out)
    file = run.write()
    with pytest.raises(UserError, match='--predictions needs a work_dir'):
        write_report(file, out, predictions_file=file)
    file.write_bytes(file.read_bytes()[:-50])
    for source in (file, run.path):
        with pytest.raises(UserError, match='not a file of predictions'):
            write_report(source, out)
    run.write(class_counts=[1, 2])
    with pytest.raises(UserError, match='6 classes.*counts of 2'):
        write_report(run.path, out)
    assert not out.exists()


def test_predictions_of_other_images(run, tmp_path):
    run.labels = run.labels[::-1]
    with pytest.raises(UserError, match='differs in its images or their order'):
        write_report(run.write(), tmp_path / 'a.html', config=run.config)


@pytest.mark.parametrize('number', [1, 7, 60, 1000])
def test_hardest_images(run, number):
    used, means = run.routed()
    shifted = np.exp(means - means.max(1, keepdims=True))
    scores = shifted / shifted.sum(1, keepdims=True)
    predictions = Predictions(run.labels, scores, num_experts_used=used, expert_logits=run.logits)
    found = hardest_images(predictions, ClassGroups(COUNTS), number)
    nll = {i: -math.log(scores[i, y]) for i, y in enumerate(run.labels)}
    groups = dict(many=(0, 1), medium=(2, 3), few=(4, 5))
    sizes = [number // 3 + (i < number % 3) for i in range(3)]
    for (name, classes), size in zip(groups.items(), sizes):
        members = [i for i in nll if run.labels[i] in classes]
        hardest = sorted(members, key=lambda i: (-nll[i], i))[:size]
        assert [image.index for image in found.get(name, [])] == hardest
        for image in found.get(name, []):
            assert image.nll == pytest.approx(nll[image.index])
            assert image.true_score == pytest.approx(scores[image.index, image.gt_label])
            assert image.confidence == scores[image.index].max()
            assert image.used == used[image.index]
            for k, opinion in enumerate(image.opinions):
                logits = run.logits[k, image.index].astype(float)
                assert opinion.label == logits.argmax()
                assert opinion.confidence == pytest.approx(1 / np.exp(logits - logits.max()).sum())
                assert opinion.asked == (k < image.used)


def test_pictures_are_rgb(run):
    config = Config.fromfile(run.config)
    pictures = load_pictures(config, [2, 7], run.labels)
    assert pictures[7].shape == (8, 8, 3)
    assert pictures[7][0, 0].tolist() == [200, 50, 28]
    config.data_preprocessor.to_rgb = False  # as they come
    assert load_pictures(config, [7], run.labels)[7][0, 0].tolist() == [28, 50, 200]
    config.test_dataloader.dataset.pipeline[0].color_type = 'grayscale'
    grey = load_pictures(config, [7], run.labels)[7]
    assert grey.shape == (8, 8, 3) and (grey == grey[0, 0, 0]).all()


def test_pictures_on_the_page(run, tmp_path):
    page, _ = make_page(run.write(), tmp_path / 'a.html', num_images=3, config=run.config)
    images = [attrs for tag, attrs in page.tags if tag == 'img' and attrs.get('class') == 'pixels']
    assert len(images) == 3
    for attrs in images:
        content = base64.b64decode(attrs['src'].split(',')[1])
        picture = np.array(Image.open(io.BytesIO(content)))
        index = int(re.search(r'image (\d+)', attrs['alt']).group(1))
        assert picture[0, 0].tolist() == [200, 50, 4 * index]


def test_formats():
    assert mark_code('a `<b>` c `d`') == ('a <code>&lt;b&gt;</code> c <code>d</code>')
    assert mark_code('<i>') == '&lt;i&gt;'
    texts = list(map(percent, (0.0, 0.0004, 0.0123, 0.4321, 1.0)))
    assert texts == ['below 0.1%', 'below 0.1%', '1.2%', '43%', '100%']


@pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium')
@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width, nav', [(390, 'none'), (1280, 'block')])
def test_looks(whole, tmp_path, width, nav, dark):
    """In a browser, on a phone and on a desktop, light and dark."""
    page = (whole[1] / 'out' / 'report.html').read_text().replace('</body>', MEASURE)
    # a window cannot be as narrow as a phone, but a frame can
    style = f'position: fixed; inset: 0; border: 0; width: {width}px; height: 9000px'
    frame = tmp_path / 'frame.html'
    frame.write_text(f'<iframe style="{style}" srcdoc="{html.escape(page)}"></iframe>')
    options = f"""--headless --no-sandbox --disable-gpu --hide-scrollbars --dump-dom
        --window-size={width},9000 --blink-settings=preferredColorScheme={int(not dark)}
        --user-data-dir={tmp_path}/profile --screenshot={tmp_path}/picture.png"""
    command = [CHROMIUM, *options.split(), frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # nothing is wider than the screen
    assert re.search('<title>(.*)</title>', dom).group(1) == f'{width} {width} {nav} 19'
    pixels = np.array(Image.open(tmp_path / 'picture.png').convert('L'), dtype=float)
    assert pixels.mean() < 100 if dark else pixels.mean() > 200
    assert pixels.std() > 20
