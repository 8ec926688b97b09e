"""Exported Swin networks accept any batch size.

In mmpretrain 1.2.0 and onedl-mmpretrain 1.3.6,
``ShiftWindowMSA.window_reverse`` computes the batch size with ``int()`` and a
division of floats, so that a trace or an export has the batch size of its
example. Microsoft's original code has the same defect (open `pull request 257
<https://github.com/microsoft/Swin-Transformer/pull/257>`_). Delete this file
once MMPretrain leaves the batch size to ``view(-1, ...)``.
"""

import torch
from mmpretrain.models.utils.attention import ShiftWindowMSA


def _window_reverse(windows: torch.Tensor, H: int, W: int, window_size: int) -> torch.Tensor:
    """Join windows, (N * windows, size, size, C), to images, (N, H, W, C)."""
    x = windows.view(
        -1, H // window_size, W // window_size, window_size, window_size, windows.shape[-1]
    )
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, H, W, windows.shape[-1])


def install_swin_windows() -> None:
    """Replace ``window_reverse`` of MMPretrain's Swin networks."""
    ShiftWindowMSA.window_reverse = staticmethod(_window_reverse)
