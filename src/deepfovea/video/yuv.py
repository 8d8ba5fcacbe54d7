"""Frames as video encoders need them: luma, and chroma at half the resolution."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .container import BT601, BT709

LUMA_SHARES = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}
"""The shares of red and of blue in luma, by matrix (ITU-R BT.601-7 and BT.709-6)."""
LUMA_BLACK, LUMA_STEPS = 16, 219
CHROMA_ZERO, CHROMA_STEPS = 128, 224
"""Levels of 8 bits in limited range: luma of black, and the number of levels from black to white;
chroma without colour, and the number of levels from one extreme to the other (ITU-R BT.601-7 and
BT.709-6)."""


class YUV420(NamedTuple):
    """Frames in YCbCr 4:2:0, limited range, eight bits.

    luma [..., 1, H, W] and chroma [..., 2, H/2, W/2], Cb and Cr, uint8; H and W even.
    """

    luma: Tensor
    chroma: Tensor


def to_yuv420(frames: Tensor, matrix: int) -> YUV420:
    """Convert RGB frames; each chroma sample is the mean of its 2 × 2 pixels.

    It consists of tensor operations, so that an engine compiles it together with the network, and
    on a GPU only an eighth of the bytes has to be copied back.

    Args:
        frames: [..., 3, H, W] in [0, 1], other values are clamped; H and W even.
        matrix: a key of :data:`LUMA_SHARES`.
    """
    red, blue = LUMA_SHARES[matrix]
    luma = torch.tensor([red, 1.0 - red - blue, blue])
    # Scaled so that each colour difference lies in −½ to ½ (BT.709-6).
    cb = (torch.tensor([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - blue))
    cr = (torch.tensor([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - red))
    to_luma = (float(LUMA_STEPS) * luma)[None, :, None, None].to(frames)
    to_chroma = (float(CHROMA_STEPS) * torch.stack([cb, cr]))[:, :, None, None].to(frames)
    flat = frames.reshape(-1, *frames.shape[-3:]).clamp(0.0, 1.0)
    # Half a level more than the offsets, as the conversion to uint8 truncates
    y = F.conv2d(flat, to_luma, flat.new_full((1,), LUMA_BLACK + 0.5))
    zero = flat.new_full((2,), CHROMA_ZERO + 0.5)
    c = F.conv2d(flat, to_chroma.expand(2, 3, 2, 2) / 4.0, zero, stride=2)
    sides = frames.shape[:-3]
    return YUV420(*(x.to(torch.uint8).reshape(*sides, *x.shape[-3:]) for x in (y, c)))
