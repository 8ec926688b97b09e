from collections.abc import Callable
from typing import Any

import torch


def full_precision(x: torch.Tensor) -> torch.autocast:
    """Context without autocast on the device of ``x``.

    The 8-bit mantissa of bfloat16 is too short for cosines and softmax to
    separate similar classes.
    """
    return torch.autocast(x.device.type, enabled=False)


def counting_augments(model: torch.nn.Module) -> list:
    """The batch augmentations of a classifier that use class counts."""
    chosen = getattr(getattr(model, 'data_preprocessor', None), 'batch_augments', None)
    return [
        augment
        for augment in getattr(chosen, 'augments', ())
        if hasattr(augment, 'set_class_counts')
    ]


class CompiledStep:
    """The tensor part of a training step, optionally compiled.

    Args:
        function (Callable): ``function(model, inputs, *args)``, where inputs
            are images, (N, C, H, W), or the trunk's output for them.
        compile (bool | dict): Whether to compile it, or the options of
            ``torch.compile``.
    """

    def __init__(self, function: Callable, compile: bool | dict) -> None:
        self.function = function
        self.compiled = torch.compile(function, **compile_options(compile)) if compile else None
        self.batch_sizes: dict[str, int] = {}

    def __call__(self, model: Any, inputs: torch.Tensor, *args) -> Any:
        # A smaller last batch of the epoch is not worth compiling another graph.
        usual = self.batch_sizes.setdefault(model.stage, len(inputs))
        if self.compiled is not None and len(inputs) == usual:
            return self.compiled(model, inputs.contiguous(), *args)
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return self.function(model, inputs, *args)


def compile_options(compile: bool | dict) -> dict[str, Any]:
    """Arguments of ``torch.compile`` for the option ``compile``."""
    options: dict[str, Any] = dict(dynamic=False)
    if isinstance(compile, dict):
        options.update(compile)
    if not {'backend', 'mode', 'options'} & options.keys():
        # Inductor bakes the thread count into CPU code but not into its cache
        # key; reusing code across thread counts was 3 to 4 times slower.
        options['options'] = {'cpp.threads': torch.get_num_threads()}
    return options
