"""Resizing and sampling of images on regular grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample_bicubic(frames: Tensor, scale: int = 4) -> Tensor:
    """Bicubic interpolation, clamped to [0, 1]: [..., C, h, w] -> [..., C, s·h, s·w]."""
    flat = frames.reshape(-1, *frames.shape[-3:])
    large = F.interpolate(flat, scale_factor=scale, mode="bicubic", align_corners=False)
    return large.reshape(*frames.shape[:-2], *large.shape[-2:]).clamp(0.0, 1.0)


def upsample_bilinear(x: Tensor, factor: int) -> Tensor:
    """Bilinear (``align_corners=False``): [B, C, h, w] to [B, C, factor·h, factor·w]."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def downsample_2x(x: Tensor, shift: int = 0) -> Tensor:
    """Means of 2×2 pixels: [B, C, h, w] to [B, C, h/2, w/2]; a last odd row or column is dropped.

    With ``shift`` 1, which needs even sides, output pixel i is the mean of the input pixels 2i+1
    and 2i+2 along each axis, and the last input pixels are repeated.
    """
    # Padding does not count in a mean: the last mean is that of the last pixel alone.
    means = F.avg_pool2d(x, 2, padding=shift, count_include_pad=False)
    return means[..., shift:, shift:]


def avg_pool_8(x: Tensor) -> Tensor:
    """Means of 8×8 pixels: [B, C, h, w] to [B, C, h/8, w/8]."""
    return downsample_2x(downsample_2x(downsample_2x(x)))


def pixel_grid(like: Tensor, height: int, width: int) -> Tensor:
    """The coordinates (x, y) of all pixels of an image: [B, 2, h, w], float32, B as ``like``."""
    y = torch.arange(height, device=like.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack([x + 0.0 * y, y + 0.0 * x]).expand(like.shape[0], -1, -1, -1)


def sampling_grid(positions: Tensor, height: int, width: int) -> Tensor:
    """Convert pixel positions (x, y) to a grid for ``grid_sample(align_corners=False)``.

    Args:
        positions: [B, 2, H, W], pixels.
        height: height of the image that is sampled.
        width: its width.

    Returns:
        [B, H, W, 2].
    """
    # In float32, as half precision is a sixteenth of a pixel off at pixel 256, and sampling in half
    # precision on the CPU fails in large frames.
    x, y = torch.split(2.0 * positions.float() + 1.0, 1, 1)
    grid = torch.cat([x / width, y / height], 1) - 1.0
    return grid.permute(0, 2, 3, 1)


def bilinear_sample(positions: Tensor, image: Tensor) -> Tensor:
    """Read an image [B, C, h, w] at positions (x, y) [B, 2, H, W], bilinear, border repeated."""
    grid = sampling_grid(positions, *image.shape[-2:])
    sampled = F.grid_sample(
        image.float(),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return sampled.to(image.dtype)
