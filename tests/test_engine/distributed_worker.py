"""Run by torchrun in two processes: what to compare, and configs to train.

`distributed_worker.py MODEL CONFIG...`
"""

import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.nn.parallel import DistributedDataParallel

import ride_mm  # noqa: F401
from ride_mm.engine import launch

COUNTS = [50, 40, 30, 20, 10, 8, 6, 4, 3, 2]


def gradients(model, inputs, labels):
    """Gradients of one step with BatchNorm in evaluation mode."""
    model.zero_grad()
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    losses = model(inputs, samples, mode='loss')
    sum(losses.values()).backward()
    module = getattr(model, 'module', model)
    return {
        name: parameter.grad
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def whole_batch_gradients(model, inputs, labels):
    """What a single process would compute."""
    head = model.head
    distributed = head.sample_weights
    weights = head.class_weights[labels]
    head.sample_weights = lambda labels: (weights, weights.sum())
    expected = gradients(model, inputs, labels)
    head.sample_weights = distributed
    return {name: grad.clone() for name, grad in expected.items()}


def compare_gradients(config):
    """Two ranks average to the gradients of the whole batch."""
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model).double().eval()
    model.head.set_class_counts(COUNTS)
    inputs = torch.randn(16, 3, 16, 16).double()
    # Head classes on rank 0, tail classes on rank 1: their weights differ.
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 0, 9, 8, 7, 6, 9, 8, 5, 4])
    mine = slice(8 * rank, 8 * rank + 8)
    for stage, beta in (('experts', None), ('experts', 0.9999), ('router', 0.9999)):
        model.set_stage(stage)
        model.head.set_reweighting(beta)
        expected = whole_batch_gradients(model, inputs, labels)
        assert any(grad.abs().max() > 1e-3 for grad in expected.values())
        wrapped = DistributedDataParallel(model)
        actual = gradients(wrapped, inputs[mine], labels[mine])
        assert actual.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-8)


def train(config, launched):
    """Ranks have equal weights after both stages."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(launched)
    runner = Runner.from_cfg(cfg)
    runner.train()
    module = runner.model.module
    assert module.stage == 'router' and module.head.router.trained
    for name, value in module.state_dict().items():
        values = [torch.empty_like(value) for _ in range(2)]
        dist.all_gather(values, value)
        assert torch.equal(*values), name
    check_cache(runner.train_dataloader.dataset)


def check_cache(dataset):
    """Every rank keeps what all have computed."""
    inputs = getattr(dataset, 'inputs', None)
    if inputs is None:
        return
    # 219 images a rank are 2 steps of 128, and half of them one.
    assert len(dataset) == 2 * 128
    values = [torch.empty_like(inputs.top_logits) for _ in range(2)]
    dist.all_gather(values, inputs.top_logits)
    assert torch.equal(*values)
    assert not torch.equal(inputs.top_logits[:128], inputs.top_logits[128:])


if __name__ == '__main__':
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    launched = Config()
    launch.set_launcher(launched, 'pytorch')
    compare_gradients(sys.argv[1])
    for path in sys.argv[2:]:
        train(path, launched.to_dict())
