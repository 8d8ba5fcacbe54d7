"""Mask imprint: whether the pixels that were sampled just now stand out from their neighbours.

The mask does not depend on the picture, so in a natural video fine detail is the same at pixels
that happen to be sampled and at those that are not. A reconstruction that lays fresh samples over a
smooth filling shows them as dots.

Legend: B batch, T time, h, w low resolution, H, W high resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 32
"""Side, in cells of half the high resolution, of the squares in which the loss compares."""
CONTRAST_EPS = 0.01
"""Mean Laplacian in [0, 1] below which a difference is not seen."""
FRESH_RANGE = (0.005, 0.15)
"""Share of fresh cells in a square between which it counts. In the fovea a quarter of the cells is
fresh, and the rest was so a moment ago; with hardly any, the mean is noise."""
MIN_SHARE = 1e-6
"""Added to the share of cells that a mean is divided by, so that it is never 0."""


def fresh_cells(mask: Tensor, jitter: Tensor | None) -> Tensor:
    """The cells of half the high resolution that were sampled: [B,T,1,h,w] to [B,T,1,2h,2w].

    jitter: [B, T, 2], low-resolution pixels; a sample is in the cell nearest to its place.
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


def imprint_loss(output: Tensor, target: Tensor, fresh: Tensor) -> Tensor:
    """How much more detail fresh cells have than the others around, beyond what the truth has.

    Args:
        output: [B, T, 3, H, W], about [0, 1].
        target: the same shape.
        fresh: [B, T, 1, H/2, W/2], see :func:`fresh_cells`.

    Returns:
        A scalar; 0 where nothing stands out.
    """

    def pooled(x: Tensor) -> Tensor:
        size = min(WINDOW, *x.shape[-2:])
        return F.avg_pool2d(x.flatten(0, 1), size, max(size // 2, 1))

    made, true = detail(output), detail(target)
    new = pooled(fresh)
    old = 1.0 - new

    def fresh_over_old(x: Tensor) -> Tensor:
        of_old = pooled(x * (1.0 - fresh)) / (old + MIN_SHARE)
        return pooled(x * fresh) / (new + MIN_SHARE) - of_old

    excess = fresh_over_old(made)
    wanted = fresh_over_old(true)
    weight = ((new > FRESH_RANGE[0]) & (new < FRESH_RANGE[1])).to(new)
    distance = (excess - wanted).abs() / (pooled(true) + CONTRAST_EPS)
    of_clip = (len(output), -1)
    sums = (weight * distance).reshape(of_clip).sum(1) / (weight.reshape(of_clip).sum(1) + 1.0)
    return sums.mean()
