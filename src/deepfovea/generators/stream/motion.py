"""Estimation of motion from sparse samples: Lucas–Kanade with learned corrections.

The estimator works from coarse to fine, at 1/8, 1/4 and 1/2 of the low resolution. Each level takes
a few steps of Lucas–Kanade and then adds a correction, which convolutions compute from the result
and its errors. The corrections start at zero, so the untrained estimator is a Lucas–Kanade tracker:
it finds sub-pixel motion from the first step of training on, at the cost of a few products per
pixel.

Legend: B batch, h, w the size of a level; flows in pixels of their level, (x, y), from the
present frame back to the reference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flow import backward_warp
from ...resample import downsample_2x, upsample_bilinear
from .layers import ERROR_GAIN, act, conv, zero_init

# Experiment 13 of docs/research/log.md introduced the Lucas-Kanade steps with these values. Where a
# constant names no other experiment, none varies it.
STEPS = (3, 2, 1)
"""Steps of Lucas–Kanade at 1/8, 1/4 and 1/2. Experiment 44 chose the last; it was 2 before."""
TOLERANCE = 0.03
"""Colour difference in [0, 1] at which the weight of a pixel has fallen to a half."""
RIGIDITY = 3e-4
"""Initial value of the learned rigidity, in the unit of squared gradients (colour per pixel)².
Experiment 40 tried four times the learned value, which was worse."""
TENT_RADIUS = 7
"""Half width, in pixels of a level, of the tent-shaped window of Lucas–Kanade."""
FILLED_WEIGHT = 0.2
"""Weight of a pixel that was filled instead of sampled, relative to a sampled one."""
MAX_STEP = 2.0
"""Largest step of Lucas–Kanade per axis, pixels of a level."""
MAX_SPEED = 8.0
"""Largest speed that the corrections receive, pixels of a level; beyond, it is clamped."""
MIN_SQUARED_SPEED = 1e-6
"""Added to squared speeds, (pixels of a level)², so that the root has a gradient at 0."""
PRIOR_TENT_RADIUS = 3
"""Half width, in pixels at 1/8, of the tent over which the previous frame's motion is compared."""
PRIOR_SLOPE = 200.0
"""Slope of the logistic choice between the motion of the frame before and no motion, per unit of
colour difference in [0, 1]: one level of 8 bits gives the better one a weight of two thirds."""
MASK_GAIN = {8: 2.0, 4: 16.0, 2: 4.0}
"""Factor from the share of sampled pixels in a cell to how far it is known, at 1/8, 1/4 and 1/2: at
1/4 and 1/2 one sample is enough, at 1/8 half of the cell must be sampled."""
FLOW_SCALE_RANGE, MAX_FLOW_SCALE = 5.5, 12.0 / 11.0
"""The last level scales the flow by 1 + c / FLOW_SCALE_RANGE, with a learned correction c, clamped
to [0, MAX_FLOW_SCALE], which is reached at c = 0.5."""


class MotionEstimator(nn.Module):
    """Backward optical flow from a sparsely sampled frame to the frame before it.

    Args:
        channels: channels of the corrections at 1/8, 1/4 and 1/2 of the low resolution.
    """

    def __init__(self, channels: tuple[int, int, int] = (48, 32, 24)) -> None:
        super().__init__()
        eighth, quarter, half = channels
        self.at_eighth = PyramidLevel(eighth, 0, outputs=2, steps=STEPS[0])
        self.at_quarter = PyramidLevel(quarter, eighth, outputs=2, steps=STEPS[1])
        self.at_half = PyramidLevel(half, quarter, outputs=3, steps=STEPS[2])

    def forward(
        self, frame: Tensor, mask: Tensor, reference: Tensor, confidence: Tensor, prev_flow: Tensor
    ) -> Tensor:
        """Estimate the flow.

        Args:
            frame: [B, 3, h, w], the present frame with its holes filled; h and w multiples of 8.
            mask: [B, 1, h, w], 1 where it was sampled.
            reference: [B, 3, h, w], the best estimate of the frame before.
            confidence: [B, 1, h, w] in [0, 1], how far ``reference`` was sampled, not guessed.
            prev_flow: [B, 2, h, w], the flow of the frame before, used as a first guess.

        Returns:
            [B, 2, h, w] in low-resolution pixels, exactly zero where nothing moves.
        """
        return self.levels(frame, mask, reference, confidence, prev_flow)[-1]

    def levels(
        self, frame: Tensor, mask: Tensor, reference: Tensor, confidence: Tensor, prev_flow: Tensor
    ) -> list[Tensor]:
        """The flow after each of the three levels, and the final one, in low-resolution pixels.

        Returns:
            [B, 2, h/8, w/8], [B, 2, h/4, w/4], [B, 2, h/2, w/2] and [B, 2, h, w].
        """

        def inputs(level: Tensor, factor: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
            target, reference, part, confidence, prior = torch.split(level, [3, 3, 1, 1, 2], 1)
            return (
                target,
                reference,
                (MASK_GAIN[factor] * part).clamp(max=1.0),
                confidence,
                prior / factor,
            )

        whole = torch.cat([frame, reference, mask, confidence, prev_flow], 1)
        half = downsample_2x(whole)
        quarter = downsample_2x(half)
        eighth = downsample_2x(quarter)
        target, reference, known, confidence, prior = inputs(eighth, 8)
        # The first guess is the motion of the frame before, where it explains this frame better
        # than no motion does.
        zero_flow_error = _tent_mean(
            (reference - target).abs().mean(1, keepdim=True), 1, PRIOR_TENT_RADIUS
        )
        prior_error = _tent_mean(
            (backward_warp(reference, prior) - target).abs().mean(1, keepdim=True),
            1,
            PRIOR_TENT_RADIUS,
        )
        flow = prior * torch.sigmoid(PRIOR_SLOPE * (zero_flow_error - prior_error))
        flow, more, features = self.at_eighth(
            target, reference, known, confidence, flow, prior, None
        )
        flow = flow + more
        found = [8.0 * flow]

        flow, more, features = self.at_quarter(*_finer(inputs(quarter, 4), flow, features))
        flow = flow + more
        found.append(4.0 * flow)

        flow, more, _ = self.at_half(*_finer(inputs(half, 2), flow, features))
        flow = flow + more[:, :2]
        found.append(2.0 * flow)
        # Clamped, so that it can become exactly 0: resampling along a tiny flow would blur.
        moves = (1.0 + more[:, 2:] / FLOW_SCALE_RANGE).clamp(0.0, MAX_FLOW_SCALE)
        return [*found, 2.0 * upsample_bilinear(flow * moves, 2)]


def _finer(
    inputs: tuple[Tensor, ...], flow: Tensor, features: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    target, reference, known, confidence, prior = inputs
    return (
        target,
        reference,
        known,
        confidence,
        2.0 * upsample_bilinear(flow, 2),
        prior,
        upsample_bilinear(features, 2),
    )


class PyramidLevel(nn.Module):
    """One level: some steps of Lucas–Kanade, then the learned correction."""

    def __init__(self, channels: int, coarser: int, outputs: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.rigidity = nn.Parameter(torch.tensor(math.log(RIGIDITY)))
        self.conv_in = conv(14 + coarser, channels)
        self.conv_mid = conv(channels, channels)
        self.conv_out = zero_init(conv(channels, outputs))

    def forward(
        self,
        target: Tensor,  # [B,3,h,w]
        reference: Tensor,  # [B,3,h,w]
        known: Tensor,  # [B,1,h,w]
        confidence: Tensor,  # [B,1,h,w]
        flow: Tensor,  # [B,2,h,w]
        prior: Tensor,  # [B,2,h,w]
        coarser: Tensor | None,  # [B,C,h,w]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The flow of Lucas–Kanade [B,2,h,w], corrections [B,N,h,w] and features [B,C,h,w]."""
        weight = FILLED_WEIGHT + (1.0 - FILLED_WEIGHT) * known
        speed = speed_of(flow)
        for _ in range(self.steps):
            step, tensor, error = lucas_kanade_step(
                target, reference, weight, flow, self.rigidity.exp()
            )
            flow = flow + step
        warped = backward_warp(torch.cat([reference, confidence], 1), flow)
        evidence = [
            flow,
            step,
            tensor / (tensor[:, :1] + tensor[:, 2:] + 2.0 * RIGIDITY),
            ERROR_GAIN * error,
            ERROR_GAIN * (warped[:, :3] - target).abs().mean(1, keepdim=True),
            known,
            warped[:, 3:],
            prior - flow,
            speed,
        ]
        x = torch.cat(evidence if coarser is None else [*evidence, coarser], 1)
        x = act(self.conv_in(x))
        x = act(x + self.conv_mid(x))
        return flow, self.conv_out(x), x


def lucas_kanade_step(
    target: Tensor, reference: Tensor, weight: Tensor, flow: Tensor, rigidity: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One robust Gauss–Newton step of the flow, pulled towards the flow of its neighbourhood.

    It minimises, over a tent-shaped window, weight · |reference(p + flow + step) − target(p)|²,
    where a pixel's weight falls as its difference grows (Lucas and Kanade 1981; reweighted as in
    Black and Anandan 1996), plus rigidity · |flow + step − mean flow|², which decides where there
    is no texture (Bruhn, Weickert and Schnörr 2005).

    Args:
        target: [B, 3, h, w] in [0, 1].
        reference: [B, 3, h, w].
        weight: [B, 1, h, w], 0 or more.
        flow: [B, 2, h, w], pixels.
        rigidity: a scalar above 0, in the unit of squared gradients (colour per pixel)².

    Returns:
        The step [B, 2, h, w], at most 2 pixels per axis; the structure tensor (xx, xy, yy)
        [B, 3, h, w]; the mean weighted difference [B, 1, h, w].
    """
    warped = backward_warp(reference, flow)
    difference = warped - target
    dx, dy = gradient(0.5 * (warped + target))
    size = difference.abs()
    # All products at once, as a GPU and small images need a fixed time for each operation.
    left = torch.stack([dx, dx, dy, dx, dy], 1)  # [B,5,3,h,w]
    right = torch.stack([dx, dy, dy, difference, difference], 1)
    weight = weight * TOLERANCE / (size.mean(1, keepdim=True) + TOLERANCE)
    products = torch.cat([left * right, size[:, None]], 1).mean(2) * weight  # [B,6,h,w]
    sums = _tent_mean(torch.cat([products, flow], 1), 8, TENT_RADIUS)
    xx, xy, yy = sums[:, :1] + rigidity, sums[:, 1:2], sums[:, 2:3] + rigidity
    x, y = torch.split(rigidity * (sums[:, 6:] - flow) - sums[:, 3:5], 1, 1)
    return gauss_newton(xx, xy, yy, x, y), sums[:, :3], sums[:, 5:6]


def gauss_newton(xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The step that solves [[xx, xy], [xy, yy]] · step = [x, y] in each pixel.

    [B, 1, h, w] each to [B, 2, h, w]; at most 2 pixels per axis.
    """
    step = torch.cat([yy * x - xy * y, xx * y - xy * x], 1) / (xx * yy - xy * xy)
    return step.clamp(-MAX_STEP, MAX_STEP)


def speed_of(flow: Tensor) -> Tensor:
    """Length of flow vectors, [B, 2, h, w] to [B, 1, h, w], in pixels, clamped to MAX_SPEED."""
    return (flow.square().sum(1, keepdim=True) + MIN_SQUARED_SPEED).sqrt().clamp(max=MAX_SPEED)


def gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, the border repeated: [B, C, h, w] each."""
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    horizontal = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2.0
    return horizontal, (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2.0


def _tent_mean(x: Tensor, channels: int, radius: int) -> Tensor:
    """Mean weighed by a tent of 2·radius − 1 pixels per side, zeros beyond the border."""
    # The channels are an argument, not read from x, so that the kernel is constant in a trace.
    tent = [(radius - abs(i)) / radius**2 for i in range(1 - radius, radius)]
    row = torch.tensor(tent, device=x.device, dtype=x.dtype).expand(channels, 1, 1, len(tent))
    x = F.conv2d(x, row, padding=(0, radius - 1), groups=channels)
    return F.conv2d(x, row.transpose(2, 3), padding=(radius - 1, 0), groups=channels)
