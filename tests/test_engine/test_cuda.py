"""Both stages of a training in each way that a GPU offers.

The rest of the suite uses the GPU as well, where there is one.
"""

import os
import socket
import subprocess

import numpy as np
import official_to_ride_mm
import pytest
import ride_mm_to_official
import torch
from conftest import ROOT
from mmengine.hooks import Hook
from mmpretrain.registry import MODELS
from runs import STAGE_1, STAGE_2, build_runner, digits_config

from ride_mm.compat.checkpoint_loading import load_checkpoint_file

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
]
LAST = STAGE_1 + STAGE_2
AMP = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 'dynamic'}


class Losses(Hook):
    """The losses of the steps of the experts."""

    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch < STAGE_1:
            self.values.append(float(outputs['loss']))


def train(cfg):
    runner = build_runner(cfg)
    record = Losses()
    runner.register_hook(record)
    runner.train()
    return runner, record.values


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """Losses of the same training on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.get_device', lambda: 'cpu')
        runner, losses = train(digits_config(ROOT, tmp_path_factory.mktemp('cpu')))
    assert next(runner.model.parameters()).device.type == 'cpu'
    assert len(losses) == 15
    return losses


@pytest.mark.parametrize(
    'options, tolerance',
    [
        ({}, 0.01),
        (AMP | {'optim_wrapper.dtype': 'float16'}, 0.05),
        (AMP | {'optim_wrapper.dtype': 'bfloat16'}, 0.1),
        ({'model.compile': True}, 0.01),
        ({'model.compile': dict(mode='reduce-overhead')}, 0.01),
        (AMP | {'model.compile': dict(mode='reduce-overhead')}, 0.1),
        ({'custom_hooks': [dict(type='EMAHook', momentum=0.1)]}, 0.01),
    ],
    ids='fp32 fp16 bf16 compiled graphs fp16-graphs ema'.split(),
)
def test_losses_are_those_of_the_cpu(tmp_path, reference, options, tolerance):
    runner, losses = train(digits_config(ROOT, tmp_path, **options))
    assert next(runner.model.parameters()).is_cuda
    # Rounding grows from step to step.
    np.testing.assert_allclose(losses[:5], reference[:5], rtol=tolerance)
    assert len(losses) == len(reference) and np.isfinite(losses).all()
    assert (tmp_path / f'epoch_{LAST}.pth').is_file()


def test_resume(tmp_path):
    _, whole = train(digits_config(ROOT, tmp_path))
    for epoch in range(STAGE_1, LAST + 1):
        (tmp_path / f'epoch_{epoch}.pth').unlink()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / f'epoch_{STAGE_1 - 1}.pth'))
    _, rest = train(digits_config(ROOT, tmp_path, resume=True))
    np.testing.assert_allclose(rest, whole[-len(rest) :], rtol=1e-3)
    assert len(rest) == 5 and (tmp_path / f'epoch_{LAST}.pth').is_file()


@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
def test_routed_predictions_are_those_of_the_cpu(tiny_model, threshold):
    torch.manual_seed(0)
    model = MODELS.build(dict(tiny_model, test_cfg=dict(mode='route', threshold=threshold)))
    model.eval()
    x = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        expected = model(x, mode='predict')
        found = model.cuda()(x.cuda(), mode='predict')
    assert [a.num_experts_used for a in found] == [a.num_experts_used for a in expected]
    scores = [torch.stack([a.pred_score.cpu() for a in samples]) for samples in (found, expected)]
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_the_gpu_goes_to_the_official_code_and_back(tmp_path):
    depth = {'model.backbone.depth': 32, 'model.neck.expert.depth': 32}
    train(digits_config(ROOT, tmp_path, **depth))
    src = str(tmp_path / f'epoch_{LAST}.pth')
    official, back = str(tmp_path / 'official.pth'), str(tmp_path / 'back.pth')
    ride_mm_to_official.main([src, official])
    official_to_ride_mm.main([official, back])
    found, expected = (
        load_checkpoint_file(path, map_location='cpu')['state_dict'] for path in (back, src)
    )
    assert found.keys() == expected.keys()
    # which the official code does not have
    del found['head.router.num_updates']
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_one_process_over_nccl(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    digits_config(ROOT, tmp_path).dump(tmp_path / 'digits.py')
    done = subprocess.run(
        ['bash', 'tools/dist_train.sh', tmp_path / 'digits.py', '1', '--work-dir', tmp_path],
        cwd=ROOT,
        env={**os.environ, 'PORT': str(port), 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / f'epoch_{LAST}.pth').is_file()
