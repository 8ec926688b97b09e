"""Depths of parameters, for layer-wise learning-rate decay."""

from typing import Any

from torch import nn

from ride_mm.utils.errors import UserError


def layer_depth(param_name: str, backbone: nn.Module, tail: Any) -> tuple[int, int]:
    """Depth of a parameter of trunk, experts or head.

    Depths are those of mmpretrain in the whole backbone: the trunk, then the
    experts, then everything after them, including the router.

    Args:
        param_name (str): Name of the parameter in the classifier.
        backbone (nn.Module): The trunk.
        tail (nn.Module): An expert, whose ``get_layer_depth`` gives the depths
            in the whole backbone.

    Returns:
        tuple[int, int]: The depth, counted from 0, and the number of depths.

    Raises:
        UserError: If the expert has no ``get_layer_depth``.
    """
    if not hasattr(tail, 'get_layer_depth'):
        raise UserError(
            'layer-wise learning-rate decay needs the depths of model.neck.expert '
            f'({type(tail).__name__}), which has no get_layer_depth: see docs/backbones.md'
        )
    if param_name.startswith('neck.experts.'):
        name = param_name.split('.', 3)[-1]
        return tail.get_layer_depth(f'backbone.{name}', 'backbone.')
    for new, old in getattr(tail, 'aliases', {}).items():
        if param_name.startswith(f'backbone.{new}.'):
            param_name = param_name.replace(new, old, 1)
    depth, num_depths = tail.get_layer_depth(param_name, 'backbone.')
    if param_name.startswith('backbone.') and depth == num_depths - 1:
        # A final layer of the trunk, such as a norm, is as deep as the last block.
        depth = 0
        for name, _ in backbone.named_parameters(prefix='backbone'):
            if name == param_name:
                break
            found, _ = tail.get_layer_depth(name, 'backbone.')
            if found < num_depths - 1:
                depth = max(depth, found)
    return depth, num_depths
