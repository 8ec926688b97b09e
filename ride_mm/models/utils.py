from typing import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def full_precision(x: torch.Tensor) -> torch.autocast:
    """Context in which autocast is off on the device of ``x``.

    Cosines and softmax lose whole classes in 8 bits of mantissa.
    """
    return torch.autocast(x.device.type, enabled=False)


@torch.no_grad()
def count_macs(module: Callable, *inputs) -> int:
    """Multiply-accumulates of convolutions and matrix products.

    Measured by running the module, so it is right for whatever it is made
    of; normalization, activations and pooling are not counted, as usual.

    Args:
        module (Callable): A module, or a method of one, in evaluation mode.
        *inputs: What to run it on.

    Returns:
        int: Multiply-accumulates of this call.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        module(*inputs)
    # A multiply-accumulate is counted as two operations.
    return counter.get_total_flops() // 2
