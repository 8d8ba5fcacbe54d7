"""Distance of textures: it compares local statistics of pictures instead of their pixels.

In the periphery the eye sees the statistics of a neighbourhood rather than the place of each
detail: pictures with equal statistics look the same (Freeman and Simoncelli 2011, "Metamers of the
ventral stream"), and Walton et al. 2021 ("Beyond Blur") render the periphery from them. The
statistics here are local autocorrelations of band-pass responses, the core of the texture model of
Portilla and Simoncelli 2000. At lag zero they are contrasts, which blur lowers. At other lags they
describe the pattern: a network could gain contrast by painting a lattice, but its autocorrelations
differ from those of natural texture.

Legend: N frames, C channels, H, W size, K lags, h, w windows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..resample import downsample_2x, upsample_bilinear

LAGS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0))
"""Lags (rows, columns) in pixels of a level. Our choice, as the others of this file; no experiment
of docs/research/log.md varies them."""
LEVELS = 3
"""Number of bands: at the full, half and quarter resolution."""
WINDOW = 16
"""Side, in pixels of a level, of the squares whose statistics are compared; they overlap by
half."""
CONTRAST_EPS = 0.01
"""Contrast in [0, 1] that is added to the denominator, so that flat regions count little."""


def autocorrelations(frames: Tensor) -> list[Tensor]:
    """Local means of products of band-pass responses, level by level.

    Args:
        frames: [N, C, H, W], any values; the mean of the channels is used. Frames with a side of
            less than 80 pixels have fewer than three levels.

    Returns:
        [N, K, h, w] for each level, K in the order of :data:`LAGS`; the first is a variance.
    """
    max_lag = max(max(lag) for lag in LAGS)
    gray, levels = frames.mean(1, keepdim=True), list[Tensor]()
    while len(levels) < LEVELS and min(gray.shape[-2:]) >= WINDOW + max_lag:
        height, width = (side // 2 * 2 for side in gray.shape[-2:])
        gray = gray[..., :height, :width]
        coarse = downsample_2x(gray)
        band = gray - upsample_bilinear(coarse, 2)
        height, width = height - max_lag, width - max_lag
        here = band[..., :height, :width]
        products = [here * band[..., y : y + height, x : x + width] for y, x in LAGS]
        levels.append(F.avg_pool2d(torch.cat(products, 1), WINDOW, WINDOW // 2))
        gray = coarse
    return levels


def texture_distance(output: Tensor, target: Tensor) -> Tensor:
    """The mean difference of local textures.

    It compares the textures of the frames and those of the differences between consecutive frames,
    so that texture neither flickers nor sticks to the screen.

    Args:
        output: [B, T, C, H, W], about [0, 1].
        target: the same shape.

    Returns:
        A scalar in the unit of contrasts, 0 for equal frames.
    """
    pairs = [(output.flatten(0, 1), target.flatten(0, 1))]
    if output.shape[1] > 1:
        pairs.append((output.diff(dim=1).flatten(0, 1), target.diff(dim=1).flatten(0, 1)))
    distances = []
    for ours, theirs in pairs:
        for made, wanted in zip(autocorrelations(ours), autocorrelations(theirs), strict=True):
            contrast = wanted[:, :1].clamp(min=0.0).sqrt()
            distances.append(((made - wanted).abs() / (contrast + CONTRAST_EPS)).mean())
    return torch.stack(distances).mean() if distances else 0.0 * output.sum()
