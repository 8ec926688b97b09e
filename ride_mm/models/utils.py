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


def compile_options(compile: bool | dict) -> dict:
    """Arguments of ``torch.compile`` for the option ``compile``."""
    options = dict(dynamic=False)
    options.update({} if compile is True else compile)
    if not {'backend', 'mode', 'options'} & options.keys():
        # Inductor bakes the thread count into CPU code but not into its cache
        # key; reusing code across thread counts was 3 to 4 times slower.
        options['options'] = {'cpp.threads': torch.get_num_threads()}
    return options
