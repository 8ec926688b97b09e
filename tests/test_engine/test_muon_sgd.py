import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import OPTIMIZERS
from torch import nn

from ride_mm.engine.optimizers.muon_sgd import COEFFICIENTS, orthogonalize


def _by_svd(matrix: np.ndarray, steps: int = 5) -> np.ndarray:
    """The polynomial, applied to the singular values."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.sqrt((matrix**2).sum()) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vt


@pytest.mark.parametrize('shape', [(4, 9), (9, 4), (5, 5), (1, 6)])
def test_orthogonalize(shape):
    matrices = np.random.default_rng(0).normal(size=(3, *shape))
    found = orthogonalize(torch.from_numpy(matrices)).numpy()
    np.testing.assert_allclose(found, [_by_svd(matrix) for matrix in matrices], atol=1e-12)


def test_singular_values_are_near_one():
    matrices = torch.randn(8, 24, 216, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert 0.6 < values.min() and values.max() < 1.3


def test_zero_gradient_stays_zero():
    assert orthogonalize(torch.zeros(1, 3, 5)).eq(0).all()


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    ).double()


def _gradients(network: nn.Module, step: int) -> None:
    rng = np.random.default_rng(step)
    for param in network.parameters():
        param.grad = torch.from_numpy(rng.normal(size=param.shape))


OPTIONS = dict(
    lr=0.03, momentum=0.9, weight_decay=0.1, sgd_lr=0.2, sgd_momentum=0.8, sgd_weight_decay=0.01
)


def test_against_a_derivation_by_hand():
    network = _network()
    optimizer = OPTIMIZERS.build(dict(type='MuonSGD', params=network.parameters(), **OPTIONS))
    expected = [param.detach().numpy().copy() for param in network.parameters()]
    buffers = [np.zeros_like(value) for value in expected]
    for step in range(3):
        _gradients(network, step)
        for i, param in enumerate(network.parameters()):
            grad, weight = param.grad.numpy(), expected[i]
            if weight.ndim == 4:
                buffers[i] = 0.9 * buffers[i] + grad
                rows = weight.shape[0]
                move = _by_svd((grad + 0.9 * buffers[i]).reshape(rows, -1))
                scale = np.sqrt(max(1, rows / move.shape[1]))
                weight = (1 - 0.03 * 0.1) * weight - 0.03 * scale * move.reshape(weight.shape)
            else:
                grad = grad + 0.01 * weight
                buffers[i] = 0.8 * buffers[i] + grad
                weight = weight - 0.2 * (grad + 0.8 * buffers[i])
            expected[i] = weight
        optimizer.step()
    for param, value in zip(network.parameters(), expected):
        np.testing.assert_allclose(param.detach().numpy(), value, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='PyTorch has Muon since 2.9')
def test_equals_pytorchs_muon_on_flattened_kernels():
    kernel = torch.randn(24, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(kernel.clone()), nn.Parameter(kernel.flatten(1).clone())
    options = dict(lr=0.05, momentum=0.95, weight_decay=0.02)
    optimizers = [
        OPTIMIZERS.build(dict(type='MuonSGD', params=[ours], **options)),
        torch.optim.Muon([theirs], **options),
    ]
    for step in range(3):
        generator = torch.Generator().manual_seed(step + 1)
        ours.grad = torch.randn(24, 8, 3, 3, generator=generator)
        theirs.grad = ours.grad.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    # PyTorch orthogonalizes in bfloat16.
    moved = (ours - kernel).flatten(1)
    difference = (moved - (theirs - kernel.flatten(1))).norm() / moved.norm()
    assert difference < 0.02


def test_resumes_bit_identically():
    whole, halves = _network(), _network()
    optimizer = OPTIMIZERS.build(dict(type='MuonSGD', params=whole.parameters(), **OPTIONS))
    for step in range(4):
        _gradients(whole, step)
        optimizer.step()
    first = OPTIMIZERS.build(dict(type='MuonSGD', params=halves.parameters(), **OPTIONS))
    for step in range(4):
        if step == 2:
            state = first.state_dict()
            first = OPTIMIZERS.build(dict(type='MuonSGD', params=halves.parameters(), **OPTIONS))
            first.load_state_dict(state)
        _gradients(halves, step)
        first.step()
    for a, b in zip(whole.parameters(), halves.parameters()):
        assert torch.equal(a, b)


def test_multipliers_hold_for_both_parts():
    wrapper = build_optim_wrapper(
        _network(),
        dict(
            type='OptimWrapper',
            optimizer=dict(type='MuonSGD', **OPTIONS),
            paramwise_cfg=dict(
                bias_decay_mult=0.5, custom_keys={'4': dict(lr_mult=0.1, decay_mult=2.0)}
            ),
        ),
    )
    found = {
        (group['orthogonal'], round(group['lr'], 6), round(group['weight_decay'], 6))
        for group in wrapper.optimizer.param_groups
    }
    assert found == {
        (True, 0.03, 0.1),
        (False, 0.2, 0.01),
        (False, 0.2, 0.005),
        (False, 0.02, 0.02),
    }


def test_parameters_without_gradient_stay():
    network = _network()
    _gradients(network, 0)
    network[0].weight.grad = None
    before = network[0].weight.clone()
    optimizer = OPTIMIZERS.build(dict(type='MuonSGD', params=network.parameters()))
    loss = optimizer.step(lambda: torch.tensor(2.0))
    assert torch.equal(network[0].weight, before) and loss == 2
