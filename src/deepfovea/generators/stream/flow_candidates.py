"""The motion estimate is compared with other candidates, by how well each explains the samples.

:mod:`.motion` matches frames whose holes were filled, at half the low resolution. This module
compares each sample with the canvas at the place where a flow says it was one frame ago. Each
candidate costs one resampling. The last candidate is a step of Lucas–Kanade on the samples alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...resample import avg_pool_8, bilinear_sample, pixel_grid, upsample_bilinear
from .motion import RIGIDITY, TOLERANCE, gauss_newton, gradient

IMPROVEMENT_RATIO = 1.08
"""The error of the estimated flow is multiplied by it before the comparison, so that the estimate
is kept only where it is more than 8 % better than every candidate. Experiment 39 of
docs/research/log.md chose 8 %."""
ACCEPT_MARGIN = 0.04
"""A candidate replaces the flow entirely if its error is lower by this share of the lowest error so
far. If it is lower by less, the two are mixed, so that rounding decides nothing. No experiment
varies it."""
NOISE_FLOOR = 0.002
"""Added to mean errors (colours in [0, 1]), so that two flows with less error than this count as
equally good: half of a level of 8 bits. No experiment varies it."""
ERROR_WINDOW = 3
"""Side, in cells of 8×8 low-resolution pixels, of the square over which the error of a flow is
averaged. No experiment varies it."""
NEIGHBOUR_WINDOWS = (7, 3)
"""Sides in cells of the wide and of the narrow neighbourhood. Experiment 42 chose both, and the
fourth power of the gain as weight."""
STEP_WINDOW = 3
"""Side in cells of the square over which a step of Lucas–Kanade is summed. No experiment varies
it."""
MIN_WEIGHT = 1e-4
"""Added to a mean weight in [0, 1] before it divides, as it is 0 in a square without samples."""

Candidate = Callable[[Tensor, Tensor], Tensor]
"""(flow [B,2,h,w], its error [B,1,h/8,w/8]) -> another flow."""


def select_flow(
    flow: Tensor,
    samples: Tensor,
    mask: Tensor,
    reference: Tensor,
    prev_flow: Tensor,
    offset: Tensor | None = None,
) -> Tensor:
    """Replace the flow wherever a candidate explains the surrounding samples better.

    The candidates are compared one after the other: no motion; the mean flow of the frame (a camera
    that turns); the flow of the frame before; the mean flow of a wide and of a narrow
    neighbourhood, in which cells that gain most by moving weigh most; and a step of Lucas–Kanade.
    Candidates need only be about as good as the estimate to replace it: with few samples the
    comparison is noisy, and each resampling along a wrong flow blurs the canvas.

    The gradient treats the choice of the candidate, and the step, as constants.

    Args:
        flow: [B, 2, h, w], low-resolution pixels; h and w multiples of 8.
        samples: [B, 3, h, w], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, 2h, 2w], the best estimate of the frame before, on the canvas.
        prev_flow: [B, 2, h, w], the flow of the frame before.
        offset: [B, 2, 1, 1], the jitter: how far from their pixels the samples were taken,
            low-resolution pixels; None: no jitter.

    Returns:
        [B, 2, h, w].
    """
    target, previous = samples.mean(1, keepdim=True), reference.mean(1, keepdim=True)
    grid = pixel_grid(flow, *flow.shape[-2:])
    if offset is not None:
        grid = grid + offset

    def warp(flow: Tensor) -> Tensor:
        return bilinear_sample(2.0 * (flow + grid), previous)  # [B,1,h,w]

    @torch.no_grad()
    def error_of(flow: Tensor) -> Tensor:
        return sample_error(warp(flow), target, mask, ERROR_WINDOW)

    zero_flow = 0.0 * flow
    zero_flow_error = error_of(zero_flow) + NOISE_FLOOR

    def neighbour_flow(flow: Tensor, min_error: Tensor, window: int) -> Tensor:
        weight = (zero_flow_error / (min_error + NOISE_FLOOR)).square().square()
        return upsample_bilinear(
            _window_mean(weight * avg_pool_8(flow), window) / _window_mean(weight, window), 8
        )

    def step(flow: Tensor, min_error: Tensor) -> Tensor:
        with torch.no_grad():
            more = _step(warp(flow), target, mask)
        return flow + upsample_bilinear(more, 8)

    candidates: tuple[Candidate, ...] = (
        lambda flow, min_error: zero_flow,
        lambda flow, min_error: zero_flow + flow.mean((2, 3), keepdim=True),
        lambda flow, min_error: prev_flow,
        lambda flow, min_error: neighbour_flow(flow, min_error, NEIGHBOUR_WINDOWS[0]),
        lambda flow, min_error: neighbour_flow(flow, min_error, NEIGHBOUR_WINDOWS[1]),
        step,
    )
    min_error = IMPROVEMENT_RATIO * error_of(flow)
    for candidate in candidates:
        other = candidate(flow, min_error)
        cost = error_of(other)
        # The transition is gradual, so that rounding alone cannot switch between candidates.
        better = ((min_error - cost) / (ACCEPT_MARGIN * (min_error + NOISE_FLOOR))).clamp(0.0, 1.0)
        flow = flow + upsample_bilinear(better, 8) * (other - flow)
        min_error = torch.minimum(min_error, cost)
    return flow


def _step(warped: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """One Gauss–Newton step from the samples alone: [B, 1, h, w] each to [B, 2, h/8, w/8] pixels.

    It is robust in the same way as :func:`.motion.lucas_kanade_step`.
    """
    difference = warped - target
    dx, dy = gradient(warped)
    weight = mask * TOLERANCE / (difference.abs() + TOLERANCE)
    one = torch.ones_like(weight)
    products = [dx * dx, dx * dy, dy * dy, dx * difference, dy * difference, one]
    sums = _window_mean(avg_pool_8(torch.cat(products, 1) * weight), STEP_WINDOW)
    xx, xy, yy, x, y = torch.split(sums[:, :5] / (sums[:, 5:] + MIN_WEIGHT), 1, 1)
    return gauss_newton(xx + RIGIDITY, xy, yy + RIGIDITY, -x, -y)


def sample_error(warped: Tensor, target: Tensor, mask: Tensor, window: int) -> Tensor:
    """Mean difference at the surrounding samples: [B, 1, h, w] each to [B, 1, h/8, w/8]."""
    return _window_mean(avg_pool_8((warped - target).abs() * mask), window)


def _window_mean(cells: Tensor, window: int) -> Tensor:
    """Mean over a square window of cells, zeros beyond the border."""
    # Padded separately, as some engines have no pooling that counts its own padding.
    return F.avg_pool2d(F.pad(cells, (window // 2,) * 4), window, 1)
