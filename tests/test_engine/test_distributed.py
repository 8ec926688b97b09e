"""Training in two processes."""

import torch
import torch.distributed as dist
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from runs import STAGE_1, digits_config, run_two_ranks
from torch.nn.parallel import DistributedDataParallel

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


def compare_gradients(model_cfg):
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = MODELS.build(model_cfg).double().eval()
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


def test_gradients_are_those_of_the_whole_batch(tiny_model):
    run_two_ranks(compare_gradients, tiny_model)


def train(cfg):
    launch.set_launcher(cfg, 'pytorch')
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
    # 53 images per rank are 2 steps of 32, and half of them one.
    assert len(dataset) == 2 * 32
    values = [torch.empty_like(inputs.top_logits) for _ in range(2)]
    dist.all_gather(values, inputs.top_logits)
    assert torch.equal(*values)
    assert not torch.equal(inputs.top_logits[:32], inputs.top_logits[32:])


def test_ranks_have_equal_weights_after_both_stages(root, tmp_path):
    """The second training computes the inputs of the router once."""
    for name, hook in (('plain', None), ('cached', dict(type='RouterCacheHook'))):
        cfg = digits_config(root, tmp_path / name, workers=1)
        cfg.default_hooks.router_cache = hook
        cfg.experiment_name = name
        cfg.log_level = 'WARNING'
        # The compiler takes its time for each expert.
        cfg.model.num_experts = 2
        cfg.model.compile = dict(backend='eager')
        if hook:
            # It shares stage 1 with the first, as compiling it takes long.
            cfg.load_from, cfg.resume = str(tmp_path / f'plain/epoch_{STAGE_1}.pth'), True
        run_two_ranks(train, cfg)
        assert (tmp_path / name / 'epoch_5.pth').exists()
