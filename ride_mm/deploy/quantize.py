"""Convolutions of a bundle's graphs in 8-bit integers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

_BATCH = 64


class _Batches(CalibrationDataReader):
    """Inputs of a graph, batch by batch."""

    def __init__(self, inputs: dict[str, np.ndarray]) -> None:
        self.batches = _split(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def _split(inputs: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    number = len(next(iter(inputs.values())))
    for start in range(0, number, _BATCH):
        yield {name: values[start : start + _BATCH] for name, values in inputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice to do what was just done."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)


def quantize(folder: Path, files: list[str], images: np.ndarray) -> None:
    """Replace the graphs of a bundle by quantized ones.

    Weights are 8-bit integers per output channel, activations 8-bit integers
    with the range that they have on the images given.

    Args:
        folder (Path): The bundle.
        files (list[str]): Names of the graphs, in the order of the experts.
        images (np.ndarray): Inputs of the first graph, (N, 3, H, W), of the
            training set.
    """
    inputs = dict(images=images)
    for file in files:
        path = folder / file
        outputs = _run(path, inputs)
        prepared = path.with_suffix('.prepared')
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        with _quiet():
            quantize_static(
                str(prepared),
                str(path),
                _Batches(inputs),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=['Conv'],
            )
        prepared.unlink()
        known = {**inputs, **outputs}
        inputs = dict(trunk=known['trunk'], total=known.get('new_total', known['total']))


def _run(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a graph, by name."""
    session = InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    batches = [session.run(None, batch) for batch in _split(inputs)]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*batches))}
