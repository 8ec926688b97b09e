"""Swin networks that are exported take any number of images."""

import torch
from mmpretrain.models.utils.attention import ShiftWindowMSA


def _window_reverse(windows: torch.Tensor, H: int, W: int, window_size: int) -> torch.Tensor:
    """Images, (N, H, W, C), of their windows, (N * windows, size, size,
    C)."""
    x = windows.view(
        -1, H // window_size, W // window_size, window_size, window_size, windows.shape[-1]
    )
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, H, W, windows.shape[-1])


def install_swin_windows() -> None:
    """Let MMPretrain's Swin leave N to PyTorch: computed by a division of
    floats, it stays that of the example."""
    ShiftWindowMSA.window_reverse = staticmethod(_window_reverse)
