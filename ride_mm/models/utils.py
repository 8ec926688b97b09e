from collections.abc import Callable
from typing import Any

import torch


def full_precision(x: torch.Tensor) -> torch.autocast:
    """Context in which autocast is off on the device of ``x``.

    Cosines and softmax cannot separate some classes in 8 bits of mantissa.
    """
    return torch.autocast(x.device.type, enabled=False)


def counting_augments(model: torch.nn.Module) -> list:
    """Batch augmentations of a classifier that follow the class counts."""
    chosen = getattr(getattr(model, 'data_preprocessor', None), 'batch_augments', None)
    return [
        augment
        for augment in getattr(chosen, 'augments', ())
        if hasattr(augment, 'set_class_counts')
    ]


class CompiledStep:
    """The tensor part of a training step, compiled if asked for.

    Args:
        function (Callable): ``function(model, inputs, *args)`` with images
            (N, C, H, W).
        compile (bool | dict): Whether to compile it, or the options of
            ``torch.compile``.
    """

    def __init__(self, function: Callable, compile: bool | dict) -> None:
        self.function = function
        self.compiled = torch.compile(function, **compile_options(compile)) if compile else None
        self.batch_sizes: dict[str, int] = {}

    def __call__(self, model: Any, inputs: torch.Tensor, *args) -> Any:
        # The last, smaller batch of an epoch is not worth a second graph.
        usual = self.batch_sizes.setdefault(model.stage, len(inputs))
        if self.compiled is not None and len(inputs) == usual:
            return self.compiled(model, inputs.contiguous(), *args)
        channels_last = inputs.contiguous(memory_format=torch.channels_last)
        return self.function(model, channels_last, *args)


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
