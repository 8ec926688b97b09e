"""CIFAR's augmentation, drawn image by image, done a batch at a time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from ride_mm.utils.errors import UserError


class View(NamedTuple):
    """What is made of an image: cropped, then flipped, then rotated.

    Args:
        size (int): Rows and columns of the crop.
        top (int): First row of the crop; outside the image is black.
        left (int): First column of the crop.
        flip (bool): Whether to mirror it, left to right.
        angle (float): Degrees, counter-clockwise about its centre.
    """

    size: int
    top: int
    left: int
    flip: bool
    angle: float


@TRANSFORMS.register_module()
class DrawCropFlipRotate(BaseTransform):
    """Draws a crop, flip and rotation and leaves them to the collate function.

    With ``collate_fn=dict(type='collate_batch')`` in the data loader this
    gives bit-identical images, from the same seeds, to those of torchvision's
    ``RandomCrop(size, padding)``, ``RandomHorizontalFlip`` and
    ``RandomRotation(degrees)``, several times as fast.

    **Required Keys:** img

    **Added Keys:** view (:class:`View`), view_of (the image, no longer under
    ``img``: nobody is to train on it as it is)

    Args:
        size (int): Rows and columns of the crop.
        padding (int): Black pixels around the image. Defaults to 4.
        degrees (float): Angles are from ``-degrees`` to ``degrees``.
            Defaults to 15.

    Raises:
        UserError: If an image with its padding is smaller than the crop.
    """

    def __init__(self, size: int, padding: int = 4, degrees: float = 15) -> None:
        self.size = size
        self.padding = padding
        self.degrees = degrees

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by ``view`` and ``view_of``."""
        # The order, kind and number of draws are those of torchvision.
        top, left = self._draw_corner(*results['img'].shape[:2])
        flip = torch.rand(1).item() < 0.5
        angle = torch.empty(1).uniform_(-self.degrees, self.degrees).item()
        results['view_of'] = results.pop('img')
        results['view'] = View(self.size, top, left, flip, angle)
        return results

    def _draw_corner(self, height: int, width: int) -> tuple[int, int]:
        margins = [length + 2 * self.padding - self.size for length in (height, width)]
        if min(margins) < 0:
            raise UserError(
                f'DrawCropFlipRotate: size={self.size} is larger than an '
                f'image of {height} x {width} pixels with '
                f'padding={self.padding}'
            )
        if margins == [0, 0]:
            return -self.padding, -self.padding
        return tuple(torch.randint(0, margin + 1, (1,)).item() - self.padding for margin in margins)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, '
            f'padding={self.padding}, degrees={self.degrees})'
        )


def crop_flip_rotate(images: np.ndarray, views: Sequence[View]) -> np.ndarray:
    """Make one view of each image, pixel by pixel the nearest of its source.

    Args:
        images (np.ndarray): Images, (N, H, W, C), uint8.
        views (Sequence[View]): N views of the same size S.

    Returns:
        np.ndarray: Views, (N, S, S, C), uint8; black where there is no image.
    """
    num, height, width, channels = images.shape
    sizes, top, left, flip, angle = (np.array(column)[:, None, None] for column in zip(*views))
    size = int(sizes[0, 0, 0])

    # From the view back to the image: rotation, flip, crop.
    rows, columns = _rotated_grid(angle, size)
    inside = _within(rows, size) & _within(columns, size)
    columns = np.where(flip, size - 1 - columns, columns) + left
    rows = rows + top
    inside &= _within(rows, height) & _within(columns, width)

    first_row = np.arange(num)[:, None, None] * height
    black = num * height * width
    source = np.where(inside, (first_row + rows) * width + columns, black)
    pixels = np.zeros((black + 1, channels), dtype=images.dtype)
    pixels[:black] = images.reshape(black, channels)
    return pixels.take(source, axis=0)


def _rotated_grid(angle: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a rotated square come from.

    In the 16.16 fixed-point numbers of Pillow's ``Image.rotate``, which
    decide the ties.

    Args:
        angle (np.ndarray): Degrees, (N, 1, 1).
        size (int): Rows and columns S.

    Returns:
        tuple[np.ndarray, np.ndarray]: Rows and columns, (N, S, S) each, int32,
        also outside of the square.
    """
    radians = np.deg2rad(-angle)
    cos, sin = np.cos(radians), np.sin(radians)
    centre = size / 2
    # Pixels are sampled at their centres, 0.5 from their corners.
    first_row = centre + (sin - cos) * (centre - 0.5)
    first_column = centre - (sin + cos) * (centre - 0.5)
    y, x = np.ogrid[:size, :size]
    rows = (_fixed(first_row) - _fixed(sin) * x + _fixed(cos) * y) >> 16
    columns = (_fixed(first_column) + _fixed(cos) * x + _fixed(sin) * y) >> 16
    return rows, columns


def _fixed(value: np.ndarray) -> np.ndarray:
    return np.floor(value * 65536 + 0.5).astype(np.int32)


def _within(index: np.ndarray, length: int) -> np.ndarray:
    # A negative number is a huge one without its sign.
    return index.astype(np.uint32) < length
