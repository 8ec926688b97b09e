import math
from collections.abc import Callable
from functools import partial, update_wrapper
from itertools import islice
from typing import Any

import mmengine.dist as dist
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.utils.errors import UserError, name_some

from .class_counts_hook import unwrapped


class NonFiniteError(UserError):
    """Training stopped because a loss or gradient is infinite or NaN."""


def _all_finite(tensors: list[torch.Tensor]) -> bool:
    """Whether all tensors are finite; of many, fast on a CPU as well."""
    # The squares of the fast norm overflow where the largest number does not.
    return any(
        torch.stack(torch._foreach_norm(tensors, order)).isfinite().all().item()
        for order in (2, math.inf)
    )


class _Guard:
    """Lets an optimizer take a step only if losses and gradients are finite.

    Args:
        wrapper (OptimWrapper): Its ``backward`` and ``step`` are replaced.
    """

    def __init__(self, wrapper: OptimWrapper) -> None:
        self.wrapper = wrapper
        # whether the step of this iteration was left out; None without a step
        self.stopped: bool | None = None
        # whether each loss since the last step is finite
        self.finite: list[torch.Tensor] = []
        self._backward, self._step = wrapper.backward, wrapper.step
        wrapper.backward = self.backward
        # with the attribute by which schedulers recognize a counted step
        wrapper.step = update_wrapper(partial(self.step), self._step)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        self.finite.append(torch.isfinite(loss.detach()))
        self._backward(loss, **kwargs)

    def step(self, **kwargs) -> None:
        finite = torch.stack(self.finite).all()
        self.finite.clear()
        scaler = getattr(self.wrapper, 'loss_scaler', None)
        # AMP that scales the loss skips steps whose gradients overflow itself
        if scaler is None or not getattr(scaler, 'is_enabled', lambda: True)():
            parameters = [p for group in self.wrapper.param_groups for p in group['params']]
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                finite = finite & _all_finite(gradients)
        if dist.get_world_size() > 1:
            # all ranks must leave out the step together
            finite = finite.float()
            dist.all_reduce(finite, 'min')
        self.stopped = not finite.item()
        if not self.stopped:
            self._step(**kwargs)


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops training at once if a loss or gradient is infinite or NaN.

    No process takes the step, so the weights stay finite, and no saved or
    resumed checkpoint holds others. The message names the loss, the experts
    whose logits are not finite, and images of the batch. If AMP scales the
    loss, it handles overflowing gradients itself, and only the loss is
    checked.

    Args:
        skip (int): Number of such steps in a row that are skipped before
            training stops. Running statistics of a skipped step are restored.
            Defaults to 0.

    Raises:
        UserError: If ``skip`` is not a whole number of 0 or more.
    """

    # Before hooks that count, log or save the result of a step.
    priority = 'VERY_HIGH'

    def __init__(self, skip: int = 0) -> None:
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            raise UserError(f'NonFiniteHook.skip={skip!r} must be a whole number, 0 or more')
        self.skip = skip
        self._skipped = 0
        self._guard: _Guard | None = None
        self._buffers: dict[str, torch.Tensor] = {}
        self._batches: list[tuple[int, dict, dict]] = []

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to resume from weights that are not finite."""
        if runner._resume:
            _check_weights(checkpoint.get('state_dict', {}), runner, 'Cannot resume')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite."""
        _check_weights(checkpoint['state_dict'], runner, 'Not saved')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Guard the optimizer, which stage 2 replaces."""
        if self._guard is None or self._guard.wrapper is not runner.optim_wrapper:
            self._guard = _Guard(runner.optim_wrapper)
        self._guard.stopped = None
        if not self._guard.finite:  # the first batch that a step accumulates
            self._batches.clear()
            if self.skip:
                buffers = unwrapped(runner).named_buffers()
                self._buffers = {name: buffer.clone() for name, buffer in buffers}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop, or continue after a skipped step.

        Raises:
            NonFiniteError: If the loss or a gradient is not finite.
        """
        stopped = self._guard and self._guard.stopped
        if stopped is None:
            samples = {k: v for k, v in data_batch.items() if k != 'inputs'}
            self._batches.append((batch_idx, samples, outputs or {}))
            return
        if not stopped:
            self._skipped = 0
            return
        found = _describe_first(runner, [*self._batches, (batch_idx, data_batch, outputs or {})])
        if self._skipped == self.skip:
            raise NonFiniteError(
                f'{found} Training stopped before this step, so no checkpoint '
                'holds such weights. Try a lower optim_wrapper.optimizer.lr, '
                'optim_wrapper.clip_grad.max_norm=1, or, if this is rare, '
                'default_hooks.non_finite.skip=3.'
            )
        self._skipped += 1
        buffers = dict(unwrapped(runner).named_buffers())
        for name, buffer in self._buffers.items():
            buffers[name].copy_(buffer)
        runner.logger.warning(
            f'{found} The step is skipped ({self._skipped} of at most {self.skip} in a row).'
        )


def _check_weights(state: dict, runner: Runner, action: str) -> None:
    """Check the parameters and running statistics of a state dict."""
    model = unwrapped(runner)
    names = [name for name, _ in model.named_parameters()]
    statistics = ('running_mean', 'running_var')
    names += [name for name, _ in model.named_buffers() if name.endswith(statistics)]
    tensors = {name: state[name] for name in names if torch.is_tensor(state.get(name))}
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(
            f'{action}: {len(bad)} weights or running statistics '
            f'are infinite or NaN, the first is {bad[0]}.'
        )


def _bad_losses(outputs: dict) -> list[str]:
    return [
        f'{name} is {value.item():g}'
        for name, value in outputs.items()
        if torch.is_tensor(value) and not torch.isfinite(value).all()
    ]


def _describe_first(runner: Runner, batches: list[tuple[int, dict, dict]]) -> str:
    """Describe the first batch of the step, on any process, whose loss is not
    finite, otherwise the last one."""
    own = next((batch for batch in batches if _bad_losses(batch[2])), None)
    found = dist.all_gather_object((own is not None, _describe(runner, *(own or batches[-1]))))
    rank = next((i for i, (is_bad, _) in enumerate(found) if is_bad), 0)
    text = found[rank][1]
    return text if len(found) == 1 else f'Process {rank}, {text[0].lower()}{text[1:]}'


def _describe(runner: Runner, batch_idx: int, data_batch: Any, outputs: dict) -> str:
    """Describe the step, losses, experts and images of a batch."""
    bad = _bad_losses(outputs)
    # without the total loss, if it has parts, and the parts of the experts
    bad = [text for text in bad if not text.startswith(('loss is ', 'expert/'))] or bad
    what = ', '.join(bad) or 'a gradient is infinite or NaN'
    experts = ', '.join(map(str, _bad_experts(runner, data_batch)))
    if experts:
        what += f', the logits of expert {experts} are not finite'
    return (
        f'Epoch {runner.epoch + 1}, step {batch_idx + 1}: {what}. Images '
        f'of the batch: {_images(runner, batch_idx, data_batch)}.'
    )


@torch.no_grad()
def _bad_experts(runner: Runner, data_batch: Any) -> list[int]:
    """Find experts, counted from 1, with logits that are not finite."""
    model = unwrapped(runner)
    if (
        not hasattr(getattr(model, 'head', None), 'expert_logits')
        or model.stage == 'router'
        or 'inputs' not in data_batch
    ):
        return []
    batch = model.data_preprocessor(data_batch, training=True)
    # SyncBN would wait for processes that have no such batch
    model.eval()
    logits = model.head.expert_logits(model.extract_feat(batch['inputs']))
    model.train()
    return [i + 1 for i, expert in enumerate(logits) if not torch.isfinite(expert).all()]


def _images(runner: Runner, batch_idx: int, data_batch: Any) -> str:
    """Name the first images of a batch."""
    names = [sample.get('img_path') for sample in data_batch.get('data_samples', [])]
    if not names or None in names:
        loader = runner.train_dataloader
        read: Callable = getattr(loader.dataset, 'get_data_info', lambda index: {})
        # samplers draw the same again in the same epoch
        drawn: list[int] = next(islice(loader.batch_sampler, batch_idx, None), [])
        names = [read(i).get('img_path') or f'number {i} of the training set' for i in drawn]
    return name_some(names, 3)
