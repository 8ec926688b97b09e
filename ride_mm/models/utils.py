from math import prod
from typing import Callable, Dict, List

import torch
from torch.utils.flop_counter import FlopCounterMode


def full_precision(x: torch.Tensor) -> torch.autocast:
    """Context in which autocast is off on the device of ``x``.

    Cosines and softmax lose whole classes in 8 bits of mantissa.
    """
    return torch.autocast(x.device.type, enabled=False)


def _batch_norm_flops(input_shape: torch.Size, *args, **kwargs) -> int:
    return 4 * prod(input_shape)


# What a BatchNorm in evaluation mode is called by: it depends on torch's
# version and on the device.
_BATCH_NORM = dict.fromkeys(
    (torch.ops.aten.native_batch_norm, torch.ops.aten.cudnn_batch_norm,
     torch.ops.aten._native_batch_norm_legit_no_training), _batch_norm_flops)


def counting_augments(model: torch.nn.Module) -> list:
    """Batch augmentations of a classifier that follow the class counts."""
    chosen = getattr(
        getattr(model, 'data_preprocessor', None), 'batch_augments', None)
    return [
        augment for augment in getattr(chosen, 'augments', ())
        if hasattr(augment, 'set_class_counts')
    ]


@torch.no_grad()
def count_macs(module: Callable, *inputs, batch_norm: bool = False) -> int:
    """Multiply-accumulates of convolutions and matrix products.

    Measured by running the module, so it is right for whatever it is made
    of; normalization, activations and pooling are not counted, as usual.

    Args:
        module (Callable): A module, or a method of one, in evaluation mode.
        *inputs: What to run it on.
        batch_norm (bool): Whether to count two multiply-accumulates for every
            output of a BatchNorm, as the THOP counter did when RIDE was
            published, and as mmengine's counter does. Defaults to False.

    Returns:
        int: Multiply-accumulates of this call.
    """
    counter = FlopCounterMode(
        display=False, custom_mapping=_BATCH_NORM if batch_norm else None)
    with counter:
        module(*inputs)
    # A multiply-accumulate is counted as two operations.
    return counter.get_total_flops() // 2


def macs_by_experts(macs: Dict[str, list], routed: bool) -> List[int]:
    """Multiply-accumulates of an image by the number of experts it used.

    Args:
        macs (dict[str, list[int]]): See :meth:`RIDEClassifier.macs`.
        routed (bool): Whether it was the routers who said how many. An image
            that stops at expert k has been through routers 1..k.

    Returns:
        list[int]: For 1..E experts.
    """
    trunk, experts = macs['trunk'][0], macs['experts']
    routers = macs['routers'] if routed else []
    return [
        trunk + sum(experts[:k]) + sum(routers[:k])
        for k in range(1,
                       len(experts) + 1)
    ]
