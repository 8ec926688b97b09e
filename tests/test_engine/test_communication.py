"""What a step of distributed training sends."""

import mmengine
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmpretrain.registry import MODELS
from runs import run_two_ranks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ride_mm.structures import BatchDataSample


class CountCollectives(TorchDispatchMode):
    """Adds up the bytes of the tensors that collectives are called with."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == 'c10d':
            self.bytes += sum(
                leaf.nbytes for leaf in tree_iter(args[0]) if isinstance(leaf, torch.Tensor)
            )
        return func(*args, **(kwargs or {}))


def count(config, found):
    dist.init_process_group('gloo')
    model = MODELS.build(Config.fromfile(config).model)
    model.head.set_class_counts([1] * 10)
    counted = {}
    for stage in ('experts', 'router'):
        model.set_stage(stage)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
        with CountCollectives() as counter:
            losses = wrapped(
                torch.randn(2, 3, 16, 16), BatchDataSample(torch.arange(2)), mode='loss'
            )
            sum(losses.values()).backward()
        counted[stage] = counter.bytes
    if dist.get_rank() == 0:
        mmengine.dump(counted, found)
    dist.destroy_process_group()


def test_gradients_of_the_stage_are_sent_and_one_number(root, tmp_path):
    found = str(tmp_path / 'found.json')
    run_two_ranks(count, str(root / 'configs/ride_r32_digits_lt.py'), found)
    # A router: 2 x (48 + 1) x 16 hidden weights, then 10 logits and 16.
    # ResNet-32 with 3 experts and 100 classes has 783,856 parameters.
    assert mmengine.load(found) == dict(
        experts=4 * (783856 - 3 * 48 * 90 + 1), router=4 * (2 * 49 * 16 + 27 + 1)
    )
