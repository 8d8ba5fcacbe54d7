"""Candidates for the motion, compared at the samples themselves.

:mod:`.motion` matches frames whose holes were filled, at half the low resolution. Here each sample
is compared with the canvas at the place where a motion says it was. Each further candidate costs
one resampling; a step of Lucas–Kanade on the samples alone is the last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...resample import avg_pool_8, bilinear_sample, pixel_grid, upsample_bilinear
from .motion import RIGIDITY, TOLERANCE, gauss_newton, gradient

IMPROVEMENT_RATIO = 1.08
"""The motion that was found is kept if it explains the samples this many times better than a
candidate: a ratio of mean differences. Experiment 39 of docs/research/log.md chose 8 %."""
ACCEPT_MARGIN = 0.04
"""A candidate that is better by this part of the least mean difference so far is taken wholly; one
that is better by less is taken in part, so that rounding decides nothing. No experiment varies
it."""
NOISE_FLOOR = 0.002
"""Mean difference of colours in [0, 1] below which one motion explains the samples as well as
another: half of a level of 8 bits. No experiment varies it."""
ERROR_WINDOW = 3
"""Cells (8×8 low-resolution pixels) on a side of the square in which a motion is judged by the
samples. No experiment varies it."""
MOVERS_WINDOWS = (7, 3)
"""Cells on a side of the wide and of the narrow neighbourhood. Experiment 42 chose both, and the
fourth power of the gain as weight."""
STEP_WINDOW = 3
"""Cells on a side of the square that shares a step of Lucas–Kanade. No experiment varies it."""
MIN_WEIGHT = 1e-4
"""Added to the weight of a square without samples, which is 0 to 1, before it is divided by."""

Candidate = Callable[[Tensor, Tensor], Tensor]
"""(flow [B,2,h,w], what it misses [B,1,h/8,w/8]) -> another flow."""


def select_flow(
    flow: Tensor,
    samples: Tensor,
    mask: Tensor,
    reference: Tensor,
    prev_flow: Tensor,
    offset: Tensor | None = None,
) -> Tensor:
    """The flow, replaced wherever another candidate explains the samples around better.

    The candidates are compared one after the other: no motion, the mean flow of the frame (a camera
    that turns), the flow of the frame before, the flow of the cells in a wide and in a narrow
    neighbourhood that gain most by moving, and a step of Lucas–Kanade. No motion, mean and
    neighbours need only be about as good as the flow that was found: few samples give a noisy
    comparison, and each resampling along a wrong flow blurs what is carried.

    The gradient treats the choice of the candidate, and the step, as constants.

    Args:
        flow: [B, 2, h, w], low-resolution pixels; h and w multiples of 8.
        samples: [B, 3, h, w], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, 2h, 2w], the frame before, as well as it is known, on the canvas.
        prev_flow: [B, 2, h, w], the flow of the frame before.
        offset: [B, 2, 1, 1], the jitter: how far from their pixels the samples were taken,
            low-resolution pixels; None: not at all.
    """
    target, previous = samples.mean(1, keepdim=True), reference.mean(1, keepdim=True)
    grid = pixel_grid(flow, *flow.shape[-2:])
    if offset is not None:
        grid = grid + offset

    def warped(flow: Tensor) -> Tensor:
        return bilinear_sample(2.0 * (flow + grid), previous)  # [B,1,h,w]

    @torch.no_grad()
    def error_of(flow: Tensor) -> Tensor:
        return sample_error(warped(flow), target, mask, ERROR_WINDOW)

    zero_flow = 0.0 * flow
    error_at_rest = error_of(zero_flow) + NOISE_FLOOR

    def flow_of_movers(flow: Tensor, least: Tensor, window: int) -> Tensor:
        weight = (error_at_rest / (least + NOISE_FLOOR)).square().square()
        return upsample_bilinear(
            _window_mean(weight * avg_pool_8(flow), window) / _window_mean(weight, window), 8
        )

    def step(flow: Tensor, least: Tensor) -> Tensor:
        with torch.no_grad():
            more = _step(warped(flow), target, mask)
        return flow + upsample_bilinear(more, 8)

    candidates: tuple[Candidate, ...] = (
        lambda flow, least: zero_flow,
        lambda flow, least: zero_flow + flow.mean((2, 3), keepdim=True),
        lambda flow, least: prev_flow,
        lambda flow, least: flow_of_movers(flow, least, MOVERS_WINDOWS[0]),
        lambda flow, least: flow_of_movers(flow, least, MOVERS_WINDOWS[1]),
        step,
    )
    least = IMPROVEMENT_RATIO * error_of(flow)
    for candidate in candidates:
        other = candidate(flow, least)
        cost = error_of(other)
        # The transition is gradual, so that rounding cannot decide.
        better = ((least - cost) / (ACCEPT_MARGIN * (least + NOISE_FLOOR))).clamp(0.0, 1.0)
        flow = flow + upsample_bilinear(better, 8) * (other - flow)
        least = torch.minimum(least, cost)
    return flow


def _step(moved: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """One Gauss–Newton step from the samples alone: [B, 1, h, w] each to [B, 2, h/8, w/8] pixels.

    Robust as :func:`.motion.lucas_kanade_step`.
    """
    difference = moved - target
    dx, dy = gradient(moved)
    weight = mask * TOLERANCE / (difference.abs() + TOLERANCE)
    one = torch.ones_like(weight)
    products = [dx * dx, dx * dy, dy * dy, dx * difference, dy * difference, one]
    sums = _window_mean(avg_pool_8(torch.cat(products, 1) * weight), STEP_WINDOW)
    xx, xy, yy, x, y = torch.split(sums[:, :5] / (sums[:, 5:] + MIN_WEIGHT), 1, 1)
    return gauss_newton(xx + RIGIDITY, xy, yy + RIGIDITY, -x, -y)


def sample_error(moved: Tensor, target: Tensor, mask: Tensor, window: int) -> Tensor:
    """Mean difference at the samples around: [B, 1, h, w] each to [B, 1, h/8, w/8]."""
    return _window_mean(avg_pool_8((moved - target).abs() * mask), window)


def _window_mean(cells: Tensor, window: int) -> Tensor:
    """Mean over a square window of cells, zeros beyond the border."""
    # Padded before: some engines know no pooling that counts its own padding.
    return F.avg_pool2d(F.pad(cells, (window // 2,) * 4), window, 1)
