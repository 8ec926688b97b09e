import torch


def is_recorded() -> bool:
    """Whether the model is being traced or exported: by ``torch.jit.trace``,
    an ONNX exporter or ``torch.export``.

    ``torch.export`` is recognized from PyTorch 2.7 on, in non-strict mode;
    otherwise it fails on a prediction by itself.
    """
    # Within torch.compile, PyTorch 2.11 says of everything that it exports.
    return torch.jit.is_tracing() or (
        hasattr(torch.compiler, 'is_exporting')
        and not torch.compiler.is_dynamo_compiling()
        and torch.compiler.is_exporting()
    )
