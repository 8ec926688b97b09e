"""Weights and images that follow from their names alone.

The official code is not here to be run, only what it answered: whoever draws
the same weights has to get the same answers.
"""

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

FOLDER = Path(__file__).parent / 'answers'
NUM_CLASSES = 20


def draw(key: str, shape: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Draw a tensor by its key, at a scale that suits it.

    Uniform numbers, which are the same on every machine. A residual branch
    adds less than it is given, so that many of them stay finite.
    """
    if key.endswith('num_batches_tracked'):
        return torch.tensor(zlib.crc32(key.encode()) % 1000)
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()) + seed)
    numbers = torch.empty(tuple(shape)).uniform_(-1, 1, generator=generator)
    if key.endswith('running_var'):
        return 1 + numbers / 2
    if key.endswith(('running_mean', 'bias')):
        return numbers / 50
    if numbers.ndim == 1:
        return 0.7 + numbers / 5
    # What follows a ReLU is positive: filters that sum to nothing let images
    # differ after many layers.
    inputs = tuple(range(1, numbers.ndim))
    numbers -= numbers.mean(inputs, keepdim=True)
    return numbers * math.sqrt(6 / numbers[0].numel())


def is_router(key: str) -> bool:
    """Whether a key is one of the router, which has a seed of its own."""
    return 'help_pred' in key


def constant_name(key: str, shape: Sequence[int]) -> str | None:
    """Name of what a network saves though it is not learned."""
    name = key.split('.')[-1]
    if name in ('attn_mask', 'relative_position_index'):
        return f'{name}_{shape[0]}'
    return None


def draw_state(shapes: dict[str, Sequence[int]], router_seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw all weights of a network."""
    state = {}
    for key, shape in shapes.items():
        if is_router(key):
            # Decisions are clear though images are much alike.
            state[key] = 10 * draw(key, shape, router_seed)
        elif constant_name(key, shape) is None:
            state[key] = draw(key, shape)
    return state


def draw_images(number: int, size: int) -> torch.Tensor:
    """Draw images, (N, 3, H, W), of coarse patches: noise looks all alike."""
    patches = torch.stack([4 * draw(f'image {index}', (1, 3, 4, 4))[0] for index in range(number)])
    side = -(-size // 4)
    images = patches.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return images[..., :size, :size].contiguous()


class Answers(NamedTuple):
    """What the official code answered.

    Args:
        arch (dict): ``arch`` of its config.
        shapes (dict[str, list[int]]): Its keys and the shapes of its tensors.
        router_seed (int): Seed of the router's weights.
        size (int): Height and width of the images.
        drawn (int): Check sum of what was drawn.
        logits (np.ndarray): Logits of every expert, (E, N, K).
        ensemble (np.ndarray): Its answer with all experts, (N, K).
        routed (np.ndarray, optional): Its routed answer, (N, K).
        num_experts (np.ndarray, optional): Experts used, (N, ).
        constants (dict[str, np.ndarray]): What it saves though it is not
            learned, by :func:`constant_name`.
    """

    arch: dict
    shapes: dict[str, Sequence[int]]
    router_seed: int
    size: int
    drawn: int
    logits: np.ndarray
    ensemble: np.ndarray
    routed: np.ndarray | None = None
    num_experts: np.ndarray | None = None
    constants: dict[str, np.ndarray] = {}

    def save(self, name: str) -> None:
        """Write the answers to a small file."""
        arrays, facts = dict(self.constants), {}
        for field, value in self._asdict().items():
            if field == 'constants':
                continue
            if isinstance(value, np.ndarray):
                arrays[field] = value
            elif value is not None:
                facts[field] = value
        text = json.dumps(facts, separators=(',', ':')).encode()
        np.savez_compressed(FOLDER / name, facts=np.frombuffer(text, np.uint8), **arrays)

    @classmethod
    def load(cls, name: str) -> 'Answers':
        """Read the answers."""
        with np.load(FOLDER / f'{name}.npz') as file:
            arrays = dict(file)
        facts = json.loads(arrays.pop('facts').tobytes())
        fields = {field: arrays.pop(field) for field in cls._fields if field in arrays}
        return cls(constants=arrays, **facts, **fields)

    def draw(self) -> dict[str, torch.Tensor]:
        """Draw the weights, and check that they are the same again."""
        assert drawn(self.shapes, self.size) == self.drawn, (
            'torch draws other numbers here: make the answers anew'
        )
        state = draw_state(self.shapes, self.router_seed)
        for key, shape in self.shapes.items():
            name = constant_name(key, shape)
            if name is not None:
                state[key] = torch.from_numpy(self.constants[name])
        return {key: state[key] for key in self.shapes}

    def images(self) -> torch.Tensor:
        """Draw the images."""
        return draw_images(len(self.ensemble), self.size)


def drawn(shapes: dict[str, Sequence[int]], size: int) -> int:
    """Check sum of a weight and an image."""
    key = next(iter(shapes))
    numbers = torch.cat([draw(key, shapes[key]).flatten(), draw_images(1, size).flatten()])
    return zlib.crc32(numbers.numpy().tobytes())
