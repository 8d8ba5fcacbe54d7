"""Numbers that are compared with other people's: each in one function, range and direction."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per frame, dB, higher is better; RGB, peak 1.0.

    Args:
        prediction: [..., C, H, W]; clamped to [0, 1] first, as it would be shown.
        truth: [..., C, H, W] in [0, 1].

    Returns:
        [...]; at most 100, which stands for equal frames too, so that means stay finite.
    """
    error = (prediction.clamp(0.0, 1.0) - truth).square().mean((-3, -2, -1))
    return -10.0 * torch.log10(error.clamp(min=1e-10))
