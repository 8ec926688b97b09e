"""What the web page of tools/demo.py says of an image."""

import re

import numpy as np
import pytest
from conftest import ROOT, load_tool
from mmpretrain import ImageClassificationInferencer, get_model
from sklearn.datasets import load_digits

from ride_mm.analysis.taxonomy import read_taxonomy
from ride_mm.deploy.demo import BundleSource, TorchSource, build_page, explain
from ride_mm.engine.config import load_config
from ride_mm.utils.errors import UserError

NAME = 'ride_r32_digits_lt'
WEIGHTS = f'ride_mm://{NAME}'
tool = load_tool('tools/demo.py')


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo') / 'bundle'
    load_tool('tools/export.py').main([f'ride_mm::{NAME}', WEIGHTS, str(folder)])
    return folder


@pytest.fixture(scope='module')
def images():
    """Images as they are scanned, RGB, of each number of experts."""
    grey = load_digits().images[1357:] * (255 / 16)
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def source_of(kind, bundle):
    if kind == 'bundle':
        return BundleSource(bundle)
    return TorchSource(load_config(f'ride_mm::{NAME}'), WEIGHTS)


@pytest.mark.parametrize('kind', ['checkpoint', 'bundle'])
def test_as_the_routed_model(kind, bundle, images):
    source = source_of(kind, bundle)
    inferencer = ImageClassificationInferencer(get_model(NAME, pretrained=True, device='cpu'))
    found = inferencer([image[..., ::-1] for image in images], batch_size=64)
    numbers = {result['num_experts_used'] for result in found}
    assert numbers == {1, 2, 3}
    for number in numbers:
        index = next(i for i, result in enumerate(found) if result['num_experts_used'] == number)
        scores, text = explain(source, images[index])
        np.testing.assert_allclose(
            list(scores.values()), found[index]['pred_scores'], rtol=0, atol=1e-5
        )
        assert max(scores, key=scores.get) == found[index]['pred_class']
        assert text.startswith(f'**{number} of 3 experts**, ')
        assert text.count('go on') == number - 1 and text.count('not asked') == 3 - number
        compute = float(re.search(r', (\d.\d\d) of the compute', text)[1])
        assert compute == round(source.compute[number - 1], 2)


def test_all_experts(images):
    cfg = load_config(f'ride_mm::{NAME}', {'model.test_cfg.mode': 'ensemble'})
    text = explain(TorchSource(cfg, WEIGHTS), images[0]).text
    assert text.startswith('**3 of 3 experts**, 1.00 of') and 'not asked' not in text


def test_sets_and_ranks(bundle, images, tmp_path):
    source = BundleSource(bundle)
    assert 'Set: ' not in explain(source, images[0]).text
    source.sets = [0.0] * 10
    table = tmp_path / 'ranks.csv'
    table.write_text(
        'class,kind\n' + ''.join(f'{i},{"odd" if i % 2 else "even"}\n' for i in range(10))
    )
    taxonomy = read_taxonomy(str(table), source.classes)
    scores, text = explain(source, images[0], taxonomy, 0.0)
    best = max(scores, key=scores.get)
    assert f'\n\nSet: {best}, ' in text and f'\n\nclass: {best} (' in text
    assert (
        'No rank has a group of probability 1.1.' in explain(source, images[0], taxonomy, 1.1).text
    )


def test_the_page(bundle, images):
    pytest.importorskip('gradio', reason='gradio is not installed')
    page = build_page(BundleSource(bundle), 'digits')
    scores, text = page.fn(images[0])
    assert text == explain(BundleSource(bundle), images[0]).text and page.fn(None) == (None, '')
    assert not page.analytics_enabled


@pytest.mark.parametrize(
    'args, words',
    [
        (
            ['configs'],
            'configs: expected a bundle of tools/export.py, or a config and a checkpoint',
        ),
        (['{tmp}/plain.py', 'x.pth'], 'shows the experts of a RIDEClassifier'),
        ([f'ride_mm::{NAME}', 'x.pth'], 'x.pth: there is no such checkpoint'),
    ],
)
def test_mistakes(args, words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    args = [arg.format(tmp=tmp_path) for arg in args]
    plain = "model = dict(type='ImageClassifier', backbone=dict(type='LeNet5'))"
    (tmp_path / 'plain.py').write_text(plain)
    with pytest.raises(UserError, match=words):
        tool.load_source(tool.parse_args(args))
    monkeypatch.setattr(tool, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match="pip install 'ride_mm.demo.'"):
        tool.main(args)
