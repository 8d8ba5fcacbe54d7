"""Mask imprint: whether the pixels that were sampled in a frame stand out from their neighbours.

The mask does not depend on the picture, so in a natural video the sampled pixels have as much fine
detail as the others. A reconstruction that puts new samples on a smooth background shows them as
dots.

Legend: B batch, T time, h, w low resolution, H, W high resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 32
"""Side, in cells (pixels of half the high resolution), of the squares in which the loss compares.
Our choice, as the others of this file; no experiment of docs/research/log.md varies them."""
CONTRAST_EPS = 0.01
"""Added to the mean Laplacian, in [0, 1], that divides a difference, so that differences in flat
regions, which nobody sees, count little."""
SAMPLED_SHARE_RANGE = (0.005, 0.15)
"""A square counts if its share of sampled cells lies in this range. In the fovea a quarter of the
cells is sampled, and the rest was sampled just before; with hardly any, the mean is noise."""
MIN_SHARE = 1e-6
"""Added to the share of cells that divides a mean, so that it is never 0."""


def sampled_cells(mask: Tensor, jitter: Tensor | None) -> Tensor:
    """The cells that were sampled, 1, and all others, 0: mask [B,T,1,h,w] to [B,T,1,2h,2w].

    jitter: [B, T, 2], low-resolution pixels; a sample belongs to the cell nearest to it.
    """
    batch, time, _, height, width = mask.shape
    cells = mask.new_zeros(batch, time, 1, 2 * height, 2 * width)
    cells[..., ::2, ::2] = mask
    if jitter is None:
        return cells
    shifts = (2.0 * jitter).round().long().tolist()
    for b in range(batch):
        for t in range(time):
            x, y = shifts[b][t]
            cells[b, t] = torch.roll(cells[b, t], (y, x), (-2, -1))
    return cells


def detail(frames: Tensor) -> Tensor:
    """Absolute Laplacian of the grey frames at half resolution: [B,T,3,H,W] to [B,T,1,H/2,W/2].

    Cell (i, j) is the mean of the pixels 2i+1, 2i+2 by 2j+1, 2j+2, as low-resolution pixels are.
    """
    gray = frames.flatten(0, 1).mean(1, keepdim=True)
    cells = F.avg_pool2d(gray, 2, padding=1, count_include_pad=False)[..., 1:, 1:]
    x = F.pad(cells, (1, 1, 1, 1), mode="replicate")
    around = x[..., 1:-1, 2:] + x[..., 1:-1, :-2] + x[..., 2:, 1:-1] + x[..., :-2, 1:-1]
    return (around - 4.0 * cells).abs().view(*frames.shape[:2], 1, *cells.shape[-2:])


def imprint_loss(output: Tensor, target: Tensor, sampled: Tensor) -> Tensor:
    """How much more detail the sampled cells have than the others around, compared with the truth.

    Args:
        output: [B, T, 3, H, W], about [0, 1].
        target: the same shape.
        sampled: [B, T, 1, H/2, W/2], see :func:`sampled_cells`.

    Returns:
        A scalar; 0 if the difference is that of the truth everywhere.
    """

    def pooled(x: Tensor) -> Tensor:
        size = min(WINDOW, *x.shape[-2:])
        return F.avg_pool2d(x.flatten(0, 1), size, max(size // 2, 1))

    made, true = detail(output), detail(target)
    new = pooled(sampled)
    old = 1.0 - new

    def sampled_minus_other(x: Tensor) -> Tensor:
        of_others = pooled(x * (1.0 - sampled)) / (old + MIN_SHARE)
        return pooled(x * sampled) / (new + MIN_SHARE) - of_others

    excess = sampled_minus_other(made)
    wanted = sampled_minus_other(true)
    weight = ((new > SAMPLED_SHARE_RANGE[0]) & (new < SAMPLED_SHARE_RANGE[1])).to(new)
    distance = (excess - wanted).abs() / (pooled(true) + CONTRAST_EPS)
    of_clip = (len(output), -1)
    sums = (weight * distance).reshape(of_clip).sum(1) / (weight.reshape(of_clip).sum(1) + 1.0)
    return sums.mean()
