"""What a trace, an ONNX file and an exported program compute."""

import re
from pathlib import Path

import pytest
import torch
from families import TINY
from test_layer_depth import model_of

from ride_mm.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def trace(model, example):
    # The tests compare it for more than the example.
    return torch.jit.trace(model, example, check_trace=False)


def export(model, example):
    return torch.export.export(
        model, (example,), dynamic_shapes=({0: torch.export.Dim('images')},)
    ).module()


def onnx(model, example):
    torch.onnx.export(model, (example,), 'unused.onnx', dynamo=False)


class Predict(torch.nn.Module):
    """As one would write it to export the scores."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        found = self.model(inputs, mode='predict')
        return torch.stack([sample.pred_score for sample in found])


def images(n, size=16):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, size, size, generator=generator)


def build(name, mode):
    torch.manual_seed(0)
    model = model_of(TINY[name]).eval()
    model.test_cfg['mode'] = mode
    return model


@pytest.mark.parametrize('mode', ['route', 'ensemble'])
@pytest.mark.parametrize('record', [trace, onnx, export])
def test_a_prediction_is_not_recorded(record, mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build('cifar_resnet', mode)
    with torch.no_grad(), pytest.raises(UserError) as error:
        record(Predict(model), images(3))
    assert re.match(
        'mode="predict" cannot be traced or exported: the graph would fix .*'
        'routing of the example images. `python tools/export.py .*mode="tensor" is the mean .*$',
        str(error.value),
    )
    assert not list(tmp_path.iterdir())
    # Nor is anything left behind.
    assert len(model.eval().predict(images(2))) == 2


@pytest.mark.parametrize('mode', ['route', 'ensemble'])
def test_a_prediction_is_compiled(mode):
    """The compiler records anew what an example does not fix."""
    model = Predict(build('resnet10', mode))
    compiled = torch.compile(model, backend='eager')
    with torch.no_grad():
        for n in (3, 5):
            torch.testing.assert_close(compiled(images(n, 32)), model(images(n, 32)))


@pytest.mark.parametrize('record', [trace, export])
@pytest.mark.parametrize('name', TINY)
def test_tensor_mode_is_recorded(name, record):
    """For other images, and another number of them, than the example."""
    size = TINY[name]['size']
    model = build(name, 'route')
    model.head.set_temperature(2.5)
    with torch.no_grad():
        recorded = record(model, images(3, size))
        expected = model.head.expert_logits(model.extract_feat(images(5, size))).mean(0)
        found = recorded(images(5, size))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found[:3], model(images(3, size)))


def test_tensor_mode_as_onnx(tmp_path):
    reference = pytest.importorskip('onnx.reference')
    model, file = build('cifar_resnet', 'route'), str(tmp_path / 'ride.onnx')
    torch.onnx.export(
        model,
        (images(3),),
        file,
        dynamo=False,
        input_names=['images'],
        dynamic_axes=dict(images={0: 'n'}),
    )
    (found,) = reference.ReferenceEvaluator(file).run(None, dict(images=images(5).numpy()))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(images(5)), rtol=1e-4, atol=1e-5)


def test_the_page(tmp_path, monkeypatch):
    page = (ROOT / 'docs/export.md').read_text()
    code = page.split('```python\n')[1].split('```')[0]
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / 'ride.onnx').stat().st_size > 3_000_000
