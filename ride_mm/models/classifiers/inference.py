"""Prediction with all experts, or with those that the router selects."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ride_mm.utils.errors import UserError

from ..routing import Threshold, route, thresholds_by_router

MODES = ('auto', 'ensemble', 'route')
# Pixels that a CPU predicts at once: for larger activations, every layer
# requests new memory from the system, which has to be cleared.
_CPU_PIXELS = 2**18


def make_test_cfg(
    mode: str = 'auto',
    threshold: Threshold = 0.5,
    expert_logits: bool = False,
    logit_adjustment: float = 0.0,
    prior: Sequence[float] | None = None,
) -> dict:
    """Fill in the defaults of the prediction options.

    Args:
        mode (str): "ensemble" runs all experts, "route" only those that the
            router selects, "auto" routes if the router has been trained.
            Defaults to "auto".
        threshold (float | Sequence[float]): An image continues to the next
            expert if the router's probability exceeds this: one number, or
            one for each of the E - 1 routers. Defaults to 0.5.
        expert_logits (bool): Whether to also return the logits of all experts
            and trained routers; needs mode "ensemble". Defaults to False.
        logit_adjustment (float): tau of the post-hoc adjustment, see
            ``RIDEHead.adjust``; routers get unadjusted logits. Defaults to 0.
        prior (Sequence[float], optional): How often each class occurs where
            the model is used, (K, ), in any unit; a class of 0 gets a score of
            0. Scores are multiplied by it; the model is taken to assume equal
            frequencies. Defaults to None: all classes equally often.

    Returns:
        dict: The options.
    """
    return dict(
        mode=mode,
        threshold=threshold,
        expert_logits=expert_logits,
        logit_adjustment=logit_adjustment,
        prior=prior,
    )


def check_test_cfg(test_cfg: dict, num_experts: int, has_router: bool, num_classes: int) -> None:
    """Check that the prediction options fit the model.

    Args:
        test_cfg (dict): See :func:`make_test_cfg`.
        num_experts (int): Number of experts E.
        has_router (bool): Whether the model has a router.
        num_classes (int): Number of classes K.

    Raises:
        UserError: If they do not fit.
    """
    prior = test_cfg['prior']
    if prior is not None:
        if len(prior) != num_classes or min(prior) < 0 or not 0 < sum(prior) < math.inf:
            raise UserError(
                f'model.test_cfg.prior must be one frequency, >= 0, for each of {num_classes} '
                f'classes, not all 0; found {len(prior)} numbers with a sum of {sum(prior):g}'
            )
    mode, threshold = test_cfg['mode'], test_cfg['threshold']
    if mode not in MODES:
        raise UserError(f'model.test_cfg.mode="{mode}" is unknown, expected one of {MODES}')
    if len(thresholds_by_router(threshold, num_experts - 1)) != num_experts - 1:
        raise UserError(
            f'model.test_cfg.threshold={threshold} must be one number, or '
            f'one for each of {num_experts - 1} routers'
        )
    if mode == 'route' and not has_router:
        raise UserError('model.test_cfg.mode="route" needs model.head.router')
    if test_cfg['expert_logits'] and mode != 'ensemble':
        raise UserError(
            'model.test_cfg.expert_logits=True needs mode="ensemble": a routed image has no '
            'logits of the experts it skipped'
        )


class Inference(NamedTuple):
    """Outputs for N images.

    Args:
        mean_logits (torch.Tensor): Mean logits of the experts used, (N, K).
        used (torch.Tensor): Number of experts used, (N, ).
        expert_logits (torch.Tensor, optional): Logits of all experts,
            (E, N, K), with ``test_cfg.expert_logits``. Defaults to None.
        router_logits (torch.Tensor, optional): Logits of all routers,
            (E - 1, N), as if every image reached them, with
            ``test_cfg.expert_logits`` and a trained router. Defaults to None.
    """

    mean_logits: torch.Tensor
    used: torch.Tensor
    expert_logits: torch.Tensor | None = None
    router_logits: torch.Tensor | None = None


def infer(model, inputs: torch.Tensor) -> Inference:
    """Run a RIDEClassifier on images.

    Args:
        model (RIDEClassifier): The model.
        inputs (torch.Tensor): Images, (N, C, H, W).

    Returns:
        Inference: Outputs for the N images.

    Raises:
        UserError: If the model is traced or exported: the graph would fix the
            batch size and the routing of the example images.
    """
    if _is_recorded():
        raise UserError(
            'mode="predict" cannot be traced or exported: the graph would fix the batch size and '
            'the routing of the example images. `python tools/export.py CONFIG CHECKPOINT OUT` '
            'exports the routed model; mode="tensor" is the mean of the logits of all experts'
        )
    parts: Sequence[torch.Tensor] = (inputs,)
    if inputs.device.type == 'cpu':
        parts = inputs.split(max(1, _CPU_PIXELS // inputs.shape[-2:].numel()))
    outputs = [_infer_part(model, part) for part in parts]
    mean_logits, used, expert_logits, router_logits = zip(*outputs)
    return Inference(
        torch.cat(mean_logits),
        torch.cat(used),
        None if expert_logits[0] is None else torch.cat(expert_logits, dim=1),
        None if router_logits[0] is None else torch.cat(router_logits, dim=1),
    )


def _infer_part(model, inputs: torch.Tensor) -> Inference:
    trunk = model.backbone(inputs.contiguous(memory_format=torch.channels_last))
    neck, head, test_cfg = model.neck, model.head, model.test_cfg
    if model.routes:
        thresholds = thresholds_by_router(test_cfg['threshold'], model.num_experts - 1)
        return Inference(
            *route(trunk[-1], neck.run_expert, head.logits_of, head.router, thresholds)
        )
    feats = neck(trunk)
    logits = head.expert_logits(feats)
    used = torch.full((len(inputs),), model.num_experts, device=inputs.device)
    if not test_cfg['expert_logits']:
        return Inference(logits.mean(0), used)
    router_logits = head.router.all_logits(feats, logits) if head.has_trained_router else None
    return Inference(logits.mean(0), used, logits, router_logits)


def _is_recorded() -> bool:
    """Whether torch.jit.trace, an ONNX exporter or torch.export runs the model.

    ``torch.export`` is recognized in non-strict mode and from PyTorch 2.7 on;
    otherwise its own error stops the export of a prediction.
    """
    # Within torch.compile, PyTorch 2.11 reports that it is exporting.
    return torch.jit.is_tracing() or (
        hasattr(torch.compiler, 'is_exporting')
        and not torch.compiler.is_dynamo_compiling()
        and torch.compiler.is_exporting()
    )
