"""The same running statistics in every process."""

import mmengine.dist as dist
import torch
from mmengine.runner import Runner

from .averaging import averaging_hooks


def synchronize_buffers(runner: Runner) -> None:
    """Average the model's buffers, such as BatchNorm's running statistics,
    over all processes.

    Every process sees other images and a distributed wrapper synchronizes
    gradients alone, so that running statistics differ from rank to rank while
    rank 0's are saved. To be called by all ranks. A second call changes
    nothing, to the last bit: in float64 the mean of equal float32 values is
    that value.

    Args:
        runner (Runner): Its model, and that of an ``EMAHook``, are changed in
            place. Integers, which count steps, are equal already.
    """
    world_size = dist.get_world_size()
    if world_size == 1:
        return
    modules = [runner.model] + [
        hook.ema_model for hook in averaging_hooks(runner) if hasattr(hook, 'ema_model')
    ]
    buffers: list[torch.Tensor] = [
        buffer for module in modules for buffer in module.buffers() if buffer.is_floating_point()
    ]
    if not buffers:
        return
    flat = torch.cat([buffer.double().flatten() for buffer in buffers])
    dist.all_reduce(flat)
    flat /= world_size
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers])):
        buffer.copy_(mean.view_as(buffer))
