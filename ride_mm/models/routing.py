"""Which images continue to the next expert, and how many experts they use.

An image uses expert k + 1 if routers 1..k all decide to continue. The model and
the simulation of other thresholds share these functions.
"""

import math
from collections.abc import Callable, Sequence

import torch

Threshold = float | Sequence[float]


def thresholds_by_router(threshold: Threshold, num_routers: int) -> list[float]:
    """Expand a threshold for all routers to one per router.

    Args:
        threshold (float | Sequence[float]): One number for all routers, or
            one for each.
        num_routers (int): Number of routers, E - 1.

    Returns:
        list[float]: The thresholds; a sequence keeps its length.
    """
    if isinstance(threshold, (int, float)):
        return [threshold] * num_routers
    return list(threshold)


def router_bound(threshold: float) -> float:
    """Convert a probability threshold to a logit threshold.

    Comparing logits is exact at the thresholds 0 and 1, where a sigmoid rounds.

    Args:
        threshold (float): Probability, from 0 to 1.

    Returns:
        float: ``log(t / (1 - t))``.
    """
    if threshold in (0, 1):
        return math.inf if threshold else -math.inf
    return math.log(threshold / (1 - threshold))


def experts_used(router_logits: torch.Tensor, threshold: Threshold) -> torch.Tensor:
    """Compute how many experts each image uses.

    Args:
        router_logits (torch.Tensor): Logits of all routers, (E - 1, N).
        threshold (float | Sequence[float]): Threshold of all routers, or one
            for each.

    Returns:
        torch.Tensor: Numbers from 1 to E, (N, ).
    """
    bounds = router_logits.new_tensor(
        [router_bound(value) for value in thresholds_by_router(threshold, len(router_logits))]
    )
    continues = router_logits > bounds[:, None]
    return 1 + continues.long().cumprod(0).sum(0)


def route(
    trunk: torch.Tensor,
    run_expert: Callable,
    logits_of: Callable,
    router: Callable,
    thresholds: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run each expert on the images that continue to it.

    Args:
        trunk (torch.Tensor): Last output of the trunk, (N, C, H, W) or
            (N, L, C).
        run_expert (Callable): ``run_expert(k, trunk)`` returns the features of
            expert k = 0..E-1, (N, D).
        logits_of (Callable): ``logits_of(k, features)`` returns the logits of
            expert k, (N, K).
        router (Callable): ``router(k, features, mean_logits)`` returns the
            logits of router k = 0..E-2, (N, ).
        thresholds (Sequence[float]): Probability thresholds of the routers,
            (E - 1, ).

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Mean logits of the experts used,
        (N, K), and the number of experts used, (N, ).
    """
    feature = run_expert(0, trunk)
    totals = logits_of(0, feature)
    used = totals.new_ones(len(totals), dtype=torch.long)
    active = torch.arange(len(totals), device=totals.device)
    for k, threshold in enumerate(thresholds, start=1):
        logits = router(k - 1, feature, totals[active] / k)
        continues = logits > router_bound(threshold)
        active = active[continues]
        if len(active) == 0:
            break
        trunk = trunk[continues]
        feature = run_expert(k, trunk)
        totals[active] += logits_of(k, feature)
        used[active] += 1
    return totals / used.unsqueeze(1), used
