"""Synchronize running statistics across processes."""

import mmengine.dist as dist
import torch
from mmengine.runner import Runner

from .averaging import averaging_hooks


def synchronize_buffers(runner: Runner) -> None:
    """Average BatchNorm's running statistics and other buffers over all processes.

    Distributed wrappers synchronize only gradients, so buffers differ between
    ranks, but only those of rank 0 are saved. All ranks have to call this
    function. A second call changes nothing: in float64, the mean of equal
    float32 values is exact.

    Args:
        runner (Runner): The runner. The floating-point buffers of its model,
            and of the model of an ``EMAHook``, are changed in place.
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
