"""Count the bytes that a step of distributed training sends.

Two processes on this machine train a step of each stage by gloo, and what
their collectives are given is counted as PyTorch dispatches them. Beside it
stands what it has to be, by the number of parameters, and the time that n GPUs
need to send it and to compute the step, on paper.
"""
import argparse
import socket
from typing import Dict, Optional, Sequence

import results_file
import torch
import torch.distributed as dist
import torch.multiprocessing
import variants
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ride_mm.models.classifiers import RIDEClassifier
from ride_mm.structures import BatchDataSample
from ride_mm.utils.errors import run_tool

EXAMPLE = """example:
  python tools/benchmark/communication.py configs/ride_r50_imagenet_lt.py
"""
# one direction, bytes a second and GPU
LINKS = {
    'NVLink 4, 450 GB/s': 450e9,
    'PCIe 4 x16, 32 GB/s': 32e9,
    '100 Gbit Ethernet, 12.5 GB/s': 12.5e9
}
# images in the step that is counted: the bytes do not depend on it
_BATCH = 2
# Of a whole run.
STAGES = ('experts', 'router')
_FP32 = 4


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[results_file.common_arguments()])
    parser.add_argument('config', help='a config of RIDE')
    parser.add_argument(
        '--gpus',
        type=results_file.positive,
        default=8,
        metavar='N',
        help='how many GPUs, on paper (default: 8)')
    parser.add_argument(
        '--tflops',
        type=float,
        default=100,
        metavar='T',
        help='what a GPU computes, in 10^12 operations a second '
        '(default: 100)')
    parser.set_defaults(device='cpu', threads=None)
    return parser.parse_args(argv)


def bytes_on_paper(model: RIDEClassifier) -> Dict[str, int]:
    """What a step has to send in each stage.

    Args:
        model (RIDEClassifier): In stage "experts", where it stays.

    Returns:
        dict[str, int]: The gradients of what is trained, in fp32, and the
        sum of the weights of a batch's images.
    """
    router = set(model.head.router.parameters())
    gradients = dict(
        experts=[p for p in model.parameters() if p not in router],
        router=router)
    return {
        stage: _FP32 * (sum(p.numel() for p in parameters) + 1)
        for stage, parameters in gradients.items()
    }


def ring_seconds(num_bytes: float, gpus: int, bandwidth: float) -> float:
    """Time of a ring all-reduce, without its latency.

    Each GPU sends 2 (n - 1) / n of the bytes: all but one of n parts once to
    sum them, and once to hand the sums round.

    Args:
        num_bytes (float): Bytes to reduce.
        gpus (int): How many GPUs n.
        bandwidth (float): Bytes a second that each sends.
    """
    return 2 * (gpus - 1) / gpus * num_bytes / bandwidth


def compute_seconds(cfg: Config, model: RIDEClassifier,
                    flops: float) -> Dict[str, float]:
    """Time of the arithmetic of a step.

    The backward pass is counted as two forward passes, a
    multiply-accumulate as two operations.

    Args:
        cfg (Config): Says the images in a step.
        model (RIDEClassifier): The model.
        flops (float): Operations a second.

    Returns:
        dict[str, float]: By stage; only the forward pass in stage "router".
    """
    macs = model.macs((3, *variants.image_size(cfg)))
    operations = 2 * (macs['trunk'][0] + sum(macs['experts']))
    seconds = operations * cfg.train_dataloader.batch_size / flops
    return dict(experts=3 * seconds, router=seconds)


def count_bytes(cfg: Config) -> Dict[str, int]:
    """Count what a step sends in each stage, in two gloo processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'tcp://127.0.0.1:{free.getsockname()[1]}'
    queue = torch.multiprocessing.get_context('spawn').SimpleQueue()
    torch.multiprocessing.spawn(
        _count_in_process, args=(address, cfg.to_dict(), queue), nprocs=2)
    return queue.get()


def _count_in_process(rank: int, address: str, cfg: dict, queue) -> None:
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=address, rank=rank, world_size=2)
    cfg = Config(cfg)
    model = build(cfg)
    counted = {stage: _count_stage(cfg, model, stage) for stage in STAGES}
    if rank == 0:
        queue.put(counted)
    dist.destroy_process_group()


def _count_stage(cfg: Config, model: RIDEClassifier, stage: str) -> int:
    model.set_stage(stage)
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    inputs = torch.randn(_BATCH, 3, *variants.image_size(cfg))
    samples = BatchDataSample(torch.arange(_BATCH))
    with _CountCollectives() as counted:
        losses = wrapped(inputs, samples, mode='loss')
        sum(losses.values()).backward()
    return counted.bytes


class _CountCollectives(TorchDispatchMode):
    """Adds up the bytes of the tensors that collectives are called with.

    A profiler would miss what a gloo thread has not yet reported.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == 'c10d':
            self.bytes += sum(
                leaf.nbytes for leaf in tree_iter(args[0])
                if isinstance(leaf, torch.Tensor))
        return func(*args, **(kwargs or {}))


def build(cfg: Config) -> RIDEClassifier:
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.get('data_preprocessor')))
    model.head.set_class_counts([1] * model.head.num_classes)
    return model


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    results_file.check_arguments(args)
    cfg = variants.load(args.config, args.cfg_options)
    model = build(cfg)
    paper, counted = bytes_on_paper(model), count_bytes(cfg)
    compute = compute_seconds(cfg, model, args.tflops * 1e12)
    sending = {
        stage: {
            link: ring_seconds(paper[stage], args.gpus, bandwidth)
            for link, bandwidth in LINKS.items()
        }
        for stage in STAGES
    }
    results_file.print_table(
        'Bytes of a step, per process',
        ['stage', 'on paper', 'counted, two gloo processes'],
        [[stage, f'{paper[stage]:,}', f'{counted[stage]:,}']
         for stage in STAGES])
    results_file.print_table(
        f'Milliseconds of a step on {args.gpus} GPUs, on paper: '
        f'{cfg.train_dataloader.batch_size} images each at {args.tflops:g} '
        'TFLOP/s, sent by ring all-reduce', ['stage', 'compute', *LINKS], [[
            stage, f'{1e3 * compute[stage]:.2f}',
            *(f'{1e3 * seconds:.3f}' for seconds in sending[stage].values())
        ] for stage in STAGES])
    results_file.finish(
        'communication', args,
        dict(
            bytes_on_paper=paper,
            bytes_counted=counted,
            compute_seconds=compute,
            sending_seconds=sending))


if __name__ == '__main__':
    run_tool(main)
