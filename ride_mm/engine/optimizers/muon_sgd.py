from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmpretrain.registry import OPTIMIZERS
from torch.optim import Optimizer
from torch.optim.sgd import sgd

# Of the quintic polynomial that moves all singular values towards 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

Tensors = list[torch.Tensor]


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Replace the singular values of matrices by numbers near 1.

    Each Newton-Schulz step maps the singular values, after the matrix is
    divided by its Frobenius norm, by the polynomial
    ``3.4445 s - 4.7750 s^3 + 2.0315 s^5``. After 5 steps those that were above
    a few thousandths of the norm lie between about 0.7 and 1.2.

    Args:
        matrices (torch.Tensor): B matrices, (B, M, N).
        steps (int): Newton-Schulz steps. Defaults to 5.

    Returns:
        torch.Tensor: (B, M, N).
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    # A step multiplies x by a polynomial of x @ x.mT. All of them commute, so the
    # steps need only products of the shorter side.
    gram = x @ x.mT
    product = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.mT if tall else x


@OPTIMIZERS.register_module()
class MuonSGD(Optimizer):
    """Muon for the kernels of convolutions, SGD for all other parameters.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
    2024 (https://kellerjordan.github.io/posts/muon/). A kernel, flattened to a
    matrix with a row for each output channel, moves by the orthogonalized
    Nesterov momentum of its gradient::

        B <- momentum * B + G
        O <- orthogonalize(G + momentum * B)
        W <- (1 - lr * weight_decay) * W - lr * sqrt(max(1, rows / columns)) * O

    As one optimizer, it works with schedulers, mixed precision and resuming
    like any other. A learning rate or weight decay that ``paramwise_cfg``
    multiplies is multiplied for SGD as well.

    Args:
        params (Iterable): Parameters, or groups of them.
        lr (float): Learning rate of Muon. Defaults to 0.05.
        momentum (float): Momentum of Muon. Defaults to 0.95.
        weight_decay (float): Decoupled weight decay of Muon. Defaults to 0.02.
        sgd_lr (float): Learning rate of SGD. Defaults to 0.1.
        sgd_momentum (float): Nesterov momentum of SGD. Defaults to 0.9.
        sgd_weight_decay (float): Weight decay of SGD, added to the gradient.
            Defaults to 5e-4.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
        sgd_lr: float = 0.1,
        sgd_momentum: float = 0.9,
        sgd_weight_decay: float = 5e-4,
    ) -> None:
        params = list(params)
        if not params or isinstance(params[0], torch.Tensor):
            params = [dict(params=params)]
        groups = []
        for group in params:
            members = list(group['params'])
            lr_mult = _multiple(group.get('lr', lr), lr)
            decay_mult = _multiple(group.get('weight_decay', weight_decay), weight_decay)
            kernels = dict(group, params=[p for p in members if p.ndim == 4], orthogonal=True)
            others = dict(
                group,
                params=[p for p in members if p.ndim != 4],
                orthogonal=False,
                lr=sgd_lr * lr_mult,
                momentum=sgd_momentum,
                weight_decay=sgd_weight_decay * decay_mult,
            )
            groups += [part for part in (kernels, others) if part['params']]
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient.

        Args:
            closure (Callable, optional): Computes the loss again. Defaults to
                None.

        Returns:
            Any: The loss that the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            if not params:
                continue
            for param in params:
                if not self.state[param]:
                    self.state[param]['momentum_buffer'] = torch.zeros_like(param)
            buffers = [self.state[param]['momentum_buffer'] for param in params]
            options = {name: group[name] for name in ('lr', 'momentum', 'weight_decay')}
            update = _muon if group['orthogonal'] else _sgd
            update(params, [param.grad for param in params], buffers, **options)
        return loss


def _multiple(value: float, base: float) -> float:
    return value / base if base else 1.0


def _sgd(
    params: Tensors,
    grads: Tensors,
    buffers: Tensors,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    sgd(
        params,
        grads,
        list(buffers),  # of optional tensors, for the type checker
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        dampening=0,
        nesterov=True,
        maximize=False,
        foreach=True,
    )


def _muon(
    params: Tensors,
    grads: Tensors,
    buffers: Tensors,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, grads)
    updates = torch._foreach_add(grads, buffers, alpha=momentum)
    torch._foreach_mul_(params, 1 - lr * weight_decay)
    by_shape: dict[torch.Size, list[int]] = {}
    for index, param in enumerate(params):
        by_shape.setdefault(param.shape, []).append(index)
    for shape, indices in by_shape.items():
        matrices = torch.stack([updates[index].flatten(1) for index in indices])
        rows, columns = matrices.shape[1:]
        steps = orthogonalize(matrices).view(-1, *shape)
        torch._foreach_add_(
            [params[index] for index in indices],
            list(steps),
            alpha=-lr * max(1, rows / columns) ** 0.5,
        )
