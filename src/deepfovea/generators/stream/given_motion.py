"""Motion vectors of a renderer: where they can be trusted, and which pixels they disocclude.

A renderer's vectors are exact for the visible surface, but they do not say what was in front of it
one frame ago. Nor can one see in vectors that their sign or unit is wrong. This module finds out
both from the vectors and the samples alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...flow import backward_warp
from ...resample import bilinear_sample, pixel_grid
from .flow_candidates import NOISE_FLOOR, sample_error

KEEP_RATIO, DISCARD_RATIO = 1.15, 1.6
"""Error of the given vectors at the samples, divided by that of the estimated motion: up to the
first value only the given vectors are used, from the second on they are ignored. All constants of
this file were chosen with benchmarks/renderer.py: wrong vectors cost at most 0.5 dB, right ones are
used."""
ERROR_WINDOW = 5
"""Side, in cells of 8×8 low-resolution pixels, of the square over which the two are compared."""
TRUST_EXPONENT = 0.2
"""Exponent of the learned trust where given vectors fit. The trust was learned with estimated
motion. With exact motion, a difference from the samples is more often aliasing than an error."""
MIN_TRUST = 1e-20
"""Lower bound of the trust that is raised to a power below 1, whose slope at 0 is infinite. A trust
this small is still 1e-4 afterwards."""
SAME_MOTION = 0.5
"""Difference of two motions, low-resolution pixels per frame, up to which they may belong to one
surface."""
HIDDEN_RATIO = 2.0
"""A pixel counts as hidden if the motion of the surface in front is this many times steadier than
its own."""
REWEIGHTINGS = 2
"""How often the common change of motion is estimated again, with pixels weighted by their fit."""


@torch.no_grad()
def given_motion_fit(
    given: Tensor,
    found: Tensor,
    samples: Tensor,
    mask: Tensor,
    reference: Tensor,
    offset: Tensor | None,
) -> Tensor:
    """How far given vectors explain the samples as well as the estimated motion does.

    Args:
        given: [B, 2, h, w], the given vectors, low-resolution pixels; h and w multiples of 8.
        found: [B, 2, h, w], the estimated motion.
        samples: [B, 3, h, w], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, 2h, 2w], the best estimate of the frame before, on the canvas.
        offset: [B, 2, 1, 1], the jitter, low-resolution pixels; None: no jitter.

    Returns:
        [B, 1, h/8, w/8] in [0, 1]; 1 where the given vectors are to be used.
    """
    target, previous = samples.mean(1, keepdim=True), reference.mean(1, keepdim=True)
    places = pixel_grid(given, *given.shape[-2:])
    if offset is not None:
        places = places + offset

    def error_of(flow: Tensor) -> Tensor:
        warped = bilinear_sample(2.0 * (flow + places), previous)
        return sample_error(warped, target, mask, ERROR_WINDOW) + NOISE_FLOOR

    ratio = error_of(given) / error_of(found)
    return ((DISCARD_RATIO - ratio) / (DISCARD_RATIO - KEEP_RATIO)).clamp(0.0, 1.0)


@torch.no_grad()
def disoccluded(flow: Tensor, prev_flow: Tensor) -> Tensor:
    """Find pixels that were behind another surface, or outside the frame, one frame ago.

    The flow of such a pixel leads to a place q where another surface was in front. That surface has
    either continued its motion prev_flow(q) or changed it as most of the frame has. So it is now
    near q − prev_flow(q), and the flow there agrees with prev_flow(q) better than the flow of the
    hidden pixel does.

    Args:
        flow: [B, 2, h, w] from this frame back to the one before, low-resolution pixels.
        prev_flow: [B, 2, h, w], the flow of the frame before.

    Returns:
        [B, 1, h, w], 1 where the pixel was not visible one frame ago, else 0.
    """
    height, width = flow.shape[-2:]
    there = flow + pixel_grid(flow, height, width)  # q
    prev_flow_there = backward_warp(prev_flow, flow)
    change = flow - prev_flow_there
    common = change.mean((2, 3), keepdim=True)
    for _ in range(REWEIGHTINGS):
        weight = SAME_MOTION / (_length(change - common) + SAME_MOTION)
        common = (weight * change).mean((2, 3), keepdim=True) / weight.mean((2, 3), keepdim=True)

    def misses(change: Tensor) -> Tensor:
        return torch.minimum(_length(change), _length(change - common))

    in_front = bilinear_sample(there - prev_flow_there, flow) - prev_flow_there
    hidden = (misses(change) > SAME_MOTION) & (HIDDEN_RATIO * misses(in_front) < misses(change))
    x, y = torch.split(there, 1, 1)
    outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
    return (hidden | outside).to(flow)


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(1, keepdim=True).sqrt()
