"""Which images continue to the next expert, and how many experts they use.

An image runs expert k + 1 if all routers 1..k choose to continue. The model,
the simulation of other thresholds and exported parts share these functions.
"""

import math
from collections.abc import Callable, Sequence

import torch

Threshold = float | Sequence[float]


def thresholds_by_router(threshold: Threshold, num_routers: int) -> list[float]:
    """One threshold for each router.

    Args:
        threshold (float | Sequence[float]): One number for all of them, or
            one for each.
        num_routers (int): Their number, E - 1.

    Returns:
        list[float]: As many as were given, or E - 1.
    """
    if isinstance(threshold, (int, float)):
        return [threshold] * num_routers
    return list(threshold)


def router_bound(threshold: float) -> float:
    """Convert a probability threshold to a logit threshold.

    Exact at the thresholds 0 and 1, where a sigmoid would round.

    Args:
        threshold (float): The probability to exceed, from 0 to 1.

    Returns:
        float: Its logit.
    """
    if threshold in (0, 1):
        return math.inf if threshold else -math.inf
    return math.log(threshold / (1 - threshold))


def experts_used(router_logits: torch.Tensor, threshold: Threshold) -> torch.Tensor:
    """Compute how many experts each image runs.

    Args:
        router_logits (torch.Tensor): Logits of all routers, (E - 1, N).
        threshold (float | Sequence[float]): Of all routers, or one for each.

    Returns:
        torch.Tensor: 1..E with shape (N, ).
    """
    bounds = router_logits.new_tensor(
        [router_bound(value) for value in thresholds_by_router(threshold, len(router_logits))]
    )
    goes_on = router_logits > bounds[:, None]
    return 1 + goes_on.long().cumprod(0).sum(0)


def route(
    trunk: torch.Tensor,
    run_expert: Callable,
    logits_of: Callable,
    router: Callable,
    thresholds: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run each expert on the images that continue to it.

    Args:
        trunk (torch.Tensor): Output of the trunk, (N, C, H, W).
        run_expert (Callable): ``run_expert(k, trunk)``, the features of
            expert k, (N, D).
        logits_of (Callable): ``logits_of(k, features)``, its logits, (N, K).
        router (Callable): ``router(k, features, mean_logits)``, the logits
            of router k, (N, ).
        thresholds (Sequence[float]): One for each router, (E - 1, ).

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Mean logits of the experts used,
        (N, K), and their number, (N, ).
    """
    feature = run_expert(0, trunk)
    totals = logits_of(0, feature)
    used = totals.new_ones(len(totals), dtype=torch.long)
    active = torch.arange(len(totals), device=totals.device)
    for k, threshold in enumerate(thresholds, start=1):
        logits = router(k - 1, feature, totals[active] / k)
        in_doubt = logits > router_bound(threshold)
        active = active[in_doubt]
        if len(active) == 0:
            break
        trunk = trunk[in_doubt]
        feature = run_expert(k, trunk)
        totals[active] += logits_of(k, feature)
        used[active] += 1
    return totals / used.unsqueeze(1), used
