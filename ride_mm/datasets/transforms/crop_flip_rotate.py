"""CIFAR's augmentation, drawn per image and computed per batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from ride_mm.utils.errors import UserError


class View(NamedTuple):
    """A crop of an image that is then flipped and rotated.

    Args:
        size (int): Height and width of the crop.
        top (int): First row of the crop; pixels outside the image are black.
        left (int): First column of the crop.
        flip (bool): Whether to mirror it horizontally.
        angle (float): Rotation in degrees, counter-clockwise about the centre.
    """

    size: int
    top: int
    left: int
    flip: bool
    angle: float


@TRANSFORMS.register_module()
class DrawCropFlipRotate(BaseTransform):
    """Draw a crop, flip and rotation for :func:`.collate_batch` to compute.

    With ``collate_fn=dict(type='collate_batch')`` in the data loader, images
    are bit-identical to those of torchvision's ``RandomCrop(size, padding)``,
    ``RandomHorizontalFlip`` and ``RandomRotation(degrees)`` with the same
    seeds, and several times faster.

    **Required Keys:** img

    **Added Keys:** view (:class:`View`), view_of (the image, moved from
    ``img`` so that it is not trained on as it is)

    Args:
        size (int): Height and width of the crop.
        padding (int): Black pixels around the image. Defaults to 4.
        degrees (float): Angles are drawn from [-degrees, degrees].
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
        # In the order of torchvision, and with as many random numbers.
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
                f'DrawCropFlipRotate: size={self.size} is larger than an image of '
                f'{height} x {width} pixels with padding={self.padding}'
            )
        if margins == [0, 0]:
            return -self.padding, -self.padding
        top, left = (int(torch.randint(0, margin + 1, (1,))) - self.padding for margin in margins)
        return top, left

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, '
            f'padding={self.padding}, degrees={self.degrees})'
        )


def crop_flip_rotate(images: np.ndarray, views: Sequence[View]) -> np.ndarray:
    """Compute one view of each image, with nearest-neighbour interpolation.

    Args:
        images (np.ndarray): Images, (N, H, W, C), uint8.
        views (Sequence[View]): N views of the same size S.

    Returns:
        np.ndarray: Views, (N, S, S, C), uint8; pixels outside the image are black.
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
    """Get the source row and column, (N, S, S), of the pixels of rotated squares.

    Angles are in degrees, (N, 1, 1). Uses the 16.16 fixed-point arithmetic of
    Pillow's ``Image.rotate``, to round ties alike.
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
    # As an unsigned integer, a negative index is larger than any length.
    return index.astype(np.uint32) < length
