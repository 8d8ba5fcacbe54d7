"""Mask imprint: whether the pixels that were sampled just now stand out from the others.

The mask does not depend on the picture, so the original has as much fine detail where it happens
to be sampled as where it is not. A reconstruction that lays fresh samples over a smooth filling
shows them as dots.

A *cell* is a pixel of the grid of half the high resolution: cell (i, j) is the mean of the output
pixels 2i+1, 2i+2 × 2j+1, 2j+2, so that the low-resolution pixel (i, j) is cell (2i, 2j). Only
cells of low-resolution pixels are compared: between them an enlargement may well be smoother,
whatever was sampled. Legend: h, w low resolution; H, W high resolution, H = 4h.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..losses.imprint import detail
from .base import Metric, Reference

FIRST_FRAME = 9
"""Frames before this one, from 0, are not judged: the start of a video has other faults. Chosen."""


def at_samples(cells: Tensor, jitter: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The cells of the low-resolution pixels.

    Args:
        cells: [2h, 2w].
        jitter: [2], offset (x, y) of the sampling grid, low-resolution pixels; a pixel is the
            cell nearest to its place.

    Returns:
        Their values [h, w], and where there is such a cell, bool [h, w]: the jitter may carry
        pixels at the border out of the frame.
    """
    height, width = cells.shape
    dx, dy = (0, 0) if jitter is None else (2.0 * jitter).round().long().tolist()
    y = torch.arange(0, height, 2)[:, None] + dy
    x = torch.arange(0, width, 2) + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return cells[y.clamp(0, height - 1), x.clamp(0, width - 1)], inside


def mask_imprint(prediction: Tensor, reference: Reference) -> float:
    """Mean |Laplacian| at the pixels sampled in this frame over that at the others.

    Only pixels from the density's outer radius on count: farther in, most are sampled.

    Args:
        prediction: [1, 3, H, W]; clamped to [0, 1] first.
        reference: the true frame, its mask, jitter and eccentricity.

    Returns:
        About 1 for the original, whatever it shows, and for what does not show its mask; 1.5 is
        seen as dots. nan before frame :data:`FIRST_FRAME`, and where there is nothing to
        compare or no detail at all.
    """
    if reference.frame_number < FIRST_FRAME:
        return math.nan
    cells = detail(prediction.clamp(0.0, 1.0)[None])[0, 0, 0].double()
    jitter = None if reference.jitter is None else reference.jitter[0]
    values, inside = at_samples(cells, jitter)
    sampled = reference.mask[0, 0] > 0
    counted = inside & (reference.eccentricity[0] >= reference.density.outer)
    others = float(values[counted & ~sampled].mean())  # nan, as of nothing, where all are sampled
    return float(values[counted & sampled].mean()) / others if others else math.nan


MASK_IMPRINT = Metric(
    name="mask_imprint",
    label="mask imprint",
    better="lower",
    digits=3,
    definition="|Laplacian| on cells of 2x2 pixels where this frame was sampled over that where it "
    "was not, periphery, frames 9 on; the original has 1",
    scope="frame",
    function=mask_imprint,
    group="mask-imprint",
)
