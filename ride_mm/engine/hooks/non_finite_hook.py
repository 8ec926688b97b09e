from functools import partial, update_wrapper
from itertools import islice
from typing import Any

import mmengine.dist as dist
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.utils.errors import UserError

from .class_counts_hook import unwrapped

_NAMED = 3


class NonFiniteError(UserError):
    """Training stopped because a loss or gradient is infinite or NaN."""


class _Guard:
    """Guards an optimizer's step and lets only finite ones through.

    Args:
        wrapper (OptimWrapper): Its ``backward`` and ``step`` are replaced.
    """

    def __init__(self, wrapper: OptimWrapper) -> None:
        self.wrapper = wrapper
        # None before a step
        self.stopped: bool | None = None
        # of the losses since the last step, None without any
        self.finite: torch.Tensor | None = None
        self._backward, self._step = wrapper.backward, wrapper.step
        wrapper.backward = self.backward
        # With the mark by which schedulers know that they count the steps.
        wrapper.step = update_wrapper(partial(self.step), self._step)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        finite = torch.isfinite(loss.detach())
        # of all the losses that one step accumulates
        self.finite = finite if self.finite is None else self.finite & finite
        self._backward(loss, **kwargs)

    def step(self, **kwargs) -> None:
        finite, self.finite = self.finite, None
        if not self._scales_loss():
            finite = finite & _all_finite(self._gradients()).to(finite.device)
        if dist.get_world_size() > 1:
            # a rank alone must not leave out a step
            finite = finite.float()
            dist.all_reduce(finite, 'min')
        self.stopped = not finite.item()
        if not self.stopped:
            self._step(**kwargs)

    def _scales_loss(self) -> bool:
        """Whether AMP checks for overflowing gradients, which occur now and
        then when it scales the loss."""
        scaler = getattr(self.wrapper, 'loss_scaler', None)
        return scaler is not None and getattr(scaler, 'is_enabled', lambda: True)()

    def _gradients(self) -> list[torch.Tensor]:
        return [
            parameter.grad
            for group in self.wrapper.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]


def _all_finite(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Whether no element is infinite or NaN, without device
    synchronization."""
    if not tensors:
        return torch.tensor(True)
    norms = torch._foreach_norm(tensors, float('inf'))
    return torch.isfinite(torch.stack([norm.double() for norm in norms])).all()


def non_finite_weights(state: dict[str, Any], names: list[str] | None = None) -> list[str]:
    """Find weights that are infinite or NaN.

    Args:
        state (dict[str, torch.Tensor]): A ``state_dict``.
        names (list[str], optional): Names of parameters and buffers to check.
            Defaults to None, which means all.

    Returns:
        list[str]: Keys of tensors with an infinite or undefined element.
    """
    return [
        key
        for key in (state if names is None else names)
        if torch.is_tensor(state.get(key))
        and state[key].is_floating_point()
        and not torch.isfinite(state[key]).all()
    ]


def _learned(model: torch.nn.Module) -> list[str]:
    """Names of parameters and of BatchNorm's running statistics."""
    return [name for name, _ in model.named_parameters()] + [
        name for name, _ in model.named_buffers() if name.endswith(('running_mean', 'running_var'))
    ]


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops training at once if a loss or gradient is infinite or NaN.

    No process takes the step, so the weights stay finite, and no saved or
    resumed checkpoint holds others. The message names the loss, the experts
    whose logits are not finite, and images of the batch. If AMP scales the
    loss, it handles overflowing gradients itself, and only the loss is
    checked.

    Args:
        skip (int): How many such steps in a row to skip before training stops.
            Running statistics of a skipped step are restored. Defaults to 0.

    Raises:
        UserError: If ``skip`` is not a whole number of 0 or more.
    """

    # Before hooks that count, log or save what a step has done.
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
            _refuse(checkpoint.get('state_dict', {}), unwrapped(runner), 'Cannot resume')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite."""
        _refuse(checkpoint['state_dict'], unwrapped(runner), 'Not saved')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Guard the optimizer, which stage 2 replaces."""
        if self._guard is None or (self._guard.wrapper is not runner.optim_wrapper):
            self._guard = _Guard(runner.optim_wrapper)
        self._guard.stopped = None
        if self._guard.finite is not None:
            return
        # what one step accumulates begins
        self._batches.clear()
        if self.skip:
            self._buffers = {
                name: buffer.clone() for name, buffer in unwrapped(runner).named_buffers()
            }

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop, or continue after a skipped step.

        Raises:
            NonFiniteError: If the loss or a gradient is not finite.
        """
        if self._guard.stopped is None:
            samples = {k: v for k, v in data_batch.items() if k != 'inputs'}
            self._batches.append((batch_idx, samples, outputs or {}))
            return
        if not self._guard.stopped:
            self._skipped = 0
            return
        batches = [*self._batches, (batch_idx, data_batch, outputs or {})]
        found = _describe_first(runner, batches)
        if self._skipped < self.skip:
            self._skipped += 1
            buffers = dict(unwrapped(runner).named_buffers())
            for name, buffer in self._buffers.items():
                buffers[name].copy_(buffer)
            runner.logger.warning(
                f'{found} The step is skipped ({self._skipped} of at most {self.skip} in a row).'
            )
            return
        raise NonFiniteError(
            f'{found} Training stopped before this step, so no checkpoint '
            'holds such weights. Try a lower optim_wrapper.optimizer.lr, '
            'optim_wrapper.clip_grad.max_norm=1, or, if this is rare, '
            'default_hooks.non_finite.skip=3.'
        )


def _refuse(state: dict, model: torch.nn.Module, action: str) -> None:
    bad = non_finite_weights(state, _learned(model))
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
    text = _describe(runner, *(own or batches[-1]))
    found = dist.all_gather_object((own is not None, text))
    rank = next((i for i, (is_bad, _) in enumerate(found) if is_bad), 0)
    where = f'Process {rank}, ' if len(found) > 1 else ''
    text = found[rank][1]
    return where + text[0].lower() + text[1:] if where else text


def _describe(runner: Runner, batch_idx: int, data_batch: Any, outputs: dict) -> str:
    """Describe the place, loss, expert and images."""
    bad = _bad_losses(outputs)
    # the sum of all, which its parts explain
    bad = [text for text in bad if not text.startswith('loss is ')] or bad
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
    """Experts, counted from 1, with logits that are not finite."""
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
    loader = runner.train_dataloader
    samples = data_batch.get('data_samples', [])
    names = [sample.get('img_path') for sample in islice(samples, _NAMED)]
    total = len(samples)
    if not names or None in names:
        # samplers draw the same again in the same epoch
        drawn = next(islice(loader.batch_sampler, batch_idx, None), [])
        names = [_image_name(loader.dataset, i) for i in drawn[:_NAMED]]
        total = len(drawn)
    more = f' and {total - len(names)} more' if total > len(names) else ''
    return ', '.join(names) + more


def _image_name(dataset: Any, index: int) -> str:
    info = getattr(dataset, 'get_data_info', lambda index: {})(index)
    return info.get('img_path') or f'number {index} of the training set'
