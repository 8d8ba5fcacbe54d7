"""Motion vectors of a renderer: where they hold, and what they uncover.

A renderer's vectors are exact for the surface that is seen, but do not say what was in front of it
one frame ago. Vectors of a wrong sign or unit look like any others. Both are found from the vectors
and the samples alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...flow import backward_warp
from ...resample import bilinear_sample, pixel_grid
from .flow_candidates import NOISE_FLOOR, sample_error

KEEP_RATIO, DISCARD_RATIO = 1.15, 1.6
"""How many times worse than the motion that was found the given vectors explain the samples: up to
the first value they are used wholly, from the second on not at all. All constants of this file were
chosen with benchmarks/renderer.py: wrong vectors cost at most 0.5 dB, right ones are used."""
ERROR_WINDOW = 5
"""Cells (8×8 low-resolution pixels) on a side of the square in which the two are compared."""
TRUST_EXPONENT = 0.2
"""Power of the learned trust where given vectors fit. The trust was learned with estimated motion.
With exact motion, a difference from the samples is more often aliasing than an error."""
SAME_MOTION = 0.5
"""Low-resolution pixels per frame by which motions must differ to be those of two surfaces."""
HIDDEN_RATIO = 2.0
"""How many times better the surface in front must continue its motion than the pixel itself."""
REWEIGHTINGS = 2
"""Times that pixels are weighted anew by how well the common change of motion fits them."""


@torch.no_grad()
def fit_of_given(
    given: Tensor,
    found: Tensor,
    samples: Tensor,
    mask: Tensor,
    reference: Tensor,
    offset: Tensor | None,
) -> Tensor:
    """1 where given vectors explain the samples about as well as the motion that was found.

    Args:
        given, found: [B, 2, h, w], low-resolution pixels; h and w multiples of 8.
        samples: [B, 3, h, w], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, 2h, 2w], the frame before, as well as it is known, on the canvas.
        offset: [B, 2, 1, 1], the jitter, low-resolution pixels; None: no jitter.

    Returns:
        [B, 1, h/8, w/8] in [0, 1].
    """
    target, previous = samples.mean(1, keepdim=True), reference.mean(1, keepdim=True)
    places = pixel_grid(given, *given.shape[-2:])
    if offset is not None:
        places = places + offset

    def error_of(flow: Tensor) -> Tensor:
        moved = bilinear_sample(2.0 * (flow + places), previous)
        return sample_error(moved, target, mask, ERROR_WINDOW) + NOISE_FLOOR

    ratio = error_of(given) / error_of(found)
    return ((DISCARD_RATIO - ratio) / (DISCARD_RATIO - KEEP_RATIO)).clamp(0.0, 1.0)


@torch.no_grad()
def newly_seen(flow: Tensor, prev_flow: Tensor) -> Tensor:
    """1 where what is seen now was behind another surface, or outside the frame, one frame ago.

    The flow leads a hidden pixel to a place q where another surface was in front. This surface has
    continued its motion prev_flow(q), or has changed its speed as most of the frame has. So it is
    now near q − prev_flow(q) and moves accordingly, while the hidden pixel itself does not.

    Args:
        flow: [B, 2, h, w] from this frame back to the one before, low-resolution pixels.
        prev_flow: the same of the frame before.

    Returns:
        [B, 1, h, w], 0 or 1.
    """
    height, width = flow.shape[-2:]
    there = flow + pixel_grid(flow, height, width)  # q
    moved_there = backward_warp(prev_flow, flow)
    change = flow - moved_there
    common = change.mean((2, 3), keepdim=True)
    for _ in range(REWEIGHTINGS):
        weight = SAME_MOTION / (_length(change - common) + SAME_MOTION)
        common = (weight * change).mean((2, 3), keepdim=True) / weight.mean((2, 3), keepdim=True)

    def misses(change: Tensor) -> Tensor:
        return torch.minimum(_length(change), _length(change - common))

    in_front = bilinear_sample(there - moved_there, flow) - moved_there
    hidden = (misses(change) > SAME_MOTION) & (HIDDEN_RATIO * misses(in_front) < misses(change))
    x, y = torch.split(there, 1, 1)
    outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
    return (hidden | outside).to(flow)


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(1, keepdim=True).sqrt()
