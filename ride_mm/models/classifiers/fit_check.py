"""Check that the parts of a model fit together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch.func import functional_call

from ride_mm.utils.errors import UserError

from ..heads.ride_head import RIDEHead
from ..necks.multi_expert_neck import MultiExpertNeck

_INTERFACE = (
    'An expert tail takes the last output of the trunk, (N, C, H, W) or tokens, (N, L, C), '
    'with C = in_channels, and returns features, (N, D), with D = out_channels: see '
    'docs/backbones.md'
)


def check_parts_fit(backbone: nn.Module, neck: MultiExpertNeck, head: RIDEHead) -> None:
    """Check that trunk, experts and head fit together.

    Args:
        backbone (nn.Module): The trunk.
        neck (MultiExpertNeck): The experts.
        head (RIDEHead): Classifiers, losses and router.

    Raises:
        UserError: If they do not.
    """
    if neck.num_experts != head.num_experts:
        raise UserError(
            f'model.neck.num_experts={neck.num_experts} and '
            f'model.head.num_experts={head.num_experts} must be equal'
        )
    out_channels = getattr(neck.experts[0], 'out_channels', None)
    if out_channels not in (None, head.in_channels):
        raise UserError(
            f'model.head.in_channels={head.in_channels}, but the experts of '
            f'model.neck return {out_channels} channels'
        )
    _check_experts_fit(backbone, neck)


def _check_experts_fit(backbone: nn.Module, neck: MultiExpertNeck) -> None:
    """Run the trunk and one expert on a blank image to check their shapes.

    If that fails, other image sizes are tried. A trunk that takes none of them
    is not checked.
    """
    misfit = None
    with _evaluation_mode(backbone, neck), torch.no_grad():
        # A cheap size; one that is large enough for any window, on the meta
        # device; the usual one.
        for run, size in (
            (nn.Module.__call__, 32),
            (_run_on_meta, 896),
            (nn.Module.__call__, 224),
        ):
            try:
                misfit = _find_misfit(run, backbone, neck, size)
            except Exception:
                continue
            if misfit is None:
                return
    if misfit is not None:
        raise UserError(misfit)


def _find_misfit(
    run: Callable, backbone: nn.Module, neck: MultiExpertNeck, size: int
) -> str | None:
    """Describe what does not fit; None if all does. Errors of the trunk are raised."""
    trunk = run(backbone, torch.zeros(1, 3, size, size))[-1]
    tail = neck.experts[0]
    found = (
        f'model.neck.expert ({type(tail).__name__}) does not fit model.backbone '
        f'({type(backbone).__name__}), whose last output is {_shape(trunk)} for images of '
        f'{size} x {size}'
    )
    channels = trunk.shape[1] if trunk.dim() == 4 else trunk.shape[-1]
    wanted = getattr(tail, 'in_channels', channels)
    if wanted != channels:
        return f'{found}: in_channels={wanted}, but there are {channels} channels. {_INTERFACE}'
    try:
        feature = run(neck.shared, run(tail, trunk))
    except Exception as error:
        reason = str(error).strip().split('\n')[0]
        return f'{found}: it fails with "{reason}". {_INTERFACE}'
    wanted = getattr(tail, 'out_channels', feature.shape[-1])
    if feature.shape != (1, wanted):
        return f'{found}: it returns {_shape(feature)} instead of (N, {wanted}). {_INTERFACE}'
    return None


def _run_on_meta(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run a module on the meta device, which computes shapes but no values."""
    tensors = {
        name: value.to('meta')
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }
    return functional_call(module, tensors, (x.to('meta'),))


@contextmanager
def _evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for part, _ in modes:
        part.training = False
    yield
    for part, mode in modes:
        part.training = mode


def _shape(x: torch.Tensor) -> str:
    return f'({", ".join(["N", *map(str, x.shape[1:])])})'


def with_num_experts(name: str, part: dict, num_experts: int) -> dict:
    """Set the model's number of experts in the config of neck or head.

    Args:
        name (str): "neck" or "head".
        part (dict): Its config.
        num_experts (int): ``model.num_experts``.

    Returns:
        dict: The config with ``num_experts``.

    Raises:
        UserError: If the config sets another number.
    """
    found = part.get('num_experts', num_experts)
    if found != num_experts:
        raise UserError(
            f'model.{name}.num_experts={found} contradicts model.num_experts={num_experts}: '
            'set only the latter'
        )
    return dict(part, num_experts=num_experts)
