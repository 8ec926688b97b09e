"""Multiply-accumulates of a network and its parts."""

from collections.abc import Callable
from functools import partial
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode


def _batch_norm_flops(input_shape: torch.Size, *args, **kwargs) -> int:
    return 4 * prod(input_shape)


# Operators of BatchNorm in evaluation mode, which depend on PyTorch's version
# and on the device.
_BATCH_NORM = dict.fromkeys(
    (
        torch.ops.aten.native_batch_norm,
        torch.ops.aten.cudnn_batch_norm,
        torch.ops.aten._native_batch_norm_legit_no_training,
    ),
    _batch_norm_flops,
)


@torch.no_grad()
def count_macs(module: Callable, *inputs, batch_norm: bool = False) -> int:
    """Count the multiply-accumulates of convolutions and matrix products.

    The module is run, so any architecture works. As usual, normalization,
    activations and pooling do not count.

    Args:
        module (Callable): A module, or a method of one, in evaluation mode.
        *inputs: Arguments of the call.
        batch_norm (bool): Whether to count 2 multiply-accumulates per
            BatchNorm output, as the THOP counter did when RIDE was published,
            and as mmengine's counter does. Defaults to False.

    Returns:
        int: Multiply-accumulates of the call.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_BATCH_NORM if batch_norm else None)
    with counter:
        module(*inputs)
    # A multiply-accumulate is two operations.
    return counter.get_total_flops() // 2


@torch.no_grad()
def macs_by_part(
    model, image_shape: tuple[int, ...], batch_norm: bool = False
) -> dict[str, list[int]]:
    """Count the multiply-accumulates of each part of a RIDEClassifier.

    Args:
        model (RIDEClassifier): The model.
        image_shape (tuple[int]): Shape of the image, (C, H, W).
        batch_norm (bool): See :func:`count_macs`. Defaults to False.

    Returns:
        dict[str, list[int]]: Multiply-accumulates for one image: "trunk" has 1
        entry, "experts" has E (tail and classifier), "classifiers" has E (the
        classifiers alone), and "routers" has E - 1, or none without a router.
    """
    count = partial(count_macs, batch_norm=batch_norm)
    training, head = model.training, model.head
    model.eval()
    image = torch.zeros((1, *image_shape), device=next(model.parameters()).device)
    trunk = model.backbone(image)[-1]
    feature = model.neck.run_expert(0, trunk)
    mean_logits = feature.new_zeros((1, head.num_classes))
    routers = 0 if head.router is None else model.num_experts - 1
    classifiers = [count(part, feature) for part in head.classifiers]
    macs = dict(
        trunk=[count(model.backbone, image)],
        experts=[
            count(model.neck.run_expert, index, trunk) + classifier
            for index, classifier in enumerate(classifiers)
        ],
        classifiers=classifiers,
        routers=[count(head.router, index, feature, mean_logits) for index in range(routers)],
    )
    model.train(training)
    return macs


def macs_by_experts(macs: dict[str, list[int]], routed: bool) -> list[int]:
    """Multiply-accumulates of an image by the number of experts it uses.

    Args:
        macs (dict[str, list[int]]): See :func:`macs_by_part`.
        routed (bool): Whether to add the routers: an image that stops at
            expert k has passed routers 1..k.

    Returns:
        list[int]: Multiply-accumulates for 1..E experts.
    """
    trunk, experts = macs['trunk'][0], macs['experts']
    routers = macs['routers'] if routed else []
    return [trunk + sum(experts[:k]) + sum(routers[:k]) for k in range(1, len(experts) + 1)]


def relative_compute(macs: dict[str, list[int]], routed: bool) -> list[float]:
    """Compute of an image, relative to the whole ensemble without routers.

    Args:
        macs (dict[str, list[int]]): See :func:`macs_by_part`.
        routed (bool): See :func:`macs_by_experts`.

    Returns:
        list[float]: Relative compute for 1..E experts.
    """
    ensemble = macs_by_experts(macs, routed=False)[-1]
    return [spent / ensemble for spent in macs_by_experts(macs, routed)]
