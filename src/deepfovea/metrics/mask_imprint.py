"""Mask imprint: whether the pixels that were sampled in a frame stand out from the others.

The mask does not depend on the picture, so in the original the sampled pixels have as much fine
detail as the others. A reconstruction that puts new samples on a smooth background shows them as
dots.

A *cell* is a pixel of the grid of half the high resolution: cell (i, j) is the mean of the output
pixels 2i+1, 2i+2 × 2j+1, 2j+2, so that the low-resolution pixel (i, j) is cell (2i, 2j). Only these
cells are compared, as an upsampled picture may be smoother in between, whatever was sampled.
Legend: h, w low resolution; H, W high resolution, H = 4h.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..losses.imprint import detail
from .base import Metric, Reference

FIRST_FRAME = 9
"""The first frame, from 0, that gets a value: a video's start has other artefacts. Our choice."""


def at_samples(cells: Tensor, jitter: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Read the cells of the low-resolution pixels.

    Args:
        cells: [2h, 2w].
        jitter: [2], offset (x, y) of the sampling grid, low-resolution pixels; the cell nearest to
            a pixel's position is taken.

    Returns:
        The values [h, w], and bool [h, w], False for pixels that the jitter moves out of the frame.
    """
    height, width = cells.shape
    dx, dy = (0, 0) if jitter is None else (2.0 * jitter).round().long().tolist()
    y = torch.arange(0, height, 2)[:, None] + dy
    x = torch.arange(0, width, 2) + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return cells[y.clamp(0, height - 1), x.clamp(0, width - 1)], inside


def mask_imprint(prediction: Tensor, reference: Reference) -> float:
    """Mean |Laplacian| at the pixels sampled in this frame, divided by the mean at the others.

    Only the periphery counts, from the density's outer radius on: farther in, most pixels are
    sampled.

    Args:
        prediction: [1, 3, H, W]; clamped to [0, 1] first.
        reference: the true frame, with its mask, jitter and eccentricity.

    Returns:
        About 1 for the original, and for a reconstruction that does not show its mask; at 1.5 dots
        are visible. nan before frame :data:`FIRST_FRAME`, and if there is nothing to compare or no
        detail.
    """
    if reference.frame_number < FIRST_FRAME:
        return math.nan
    cells = detail(prediction.clamp(0.0, 1.0)[None])[0, 0, 0].double()
    jitter = None if reference.jitter is None else reference.jitter[0]
    values, inside = at_samples(cells, jitter)
    sampled = reference.mask[0, 0] > 0
    counted = inside & (reference.eccentricity[0] >= reference.density.outer)
    others = float(values[counted & ~sampled].mean())  # nan if all are sampled
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
