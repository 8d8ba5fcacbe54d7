"""Methods without training that fill the holes between samples: pull-push, and accumulation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import FlowEstimator, backward_warp
from .resample import downsample_2x, upsample_bilinear

MIN_WEIGHT = 1e-6
"""Lower bound of a weight in [0, 1] when it divides a colour at the coarsest level of
:func:`pull_push`, which has one pixel."""
WINDOW, TOLERANCE = 9, 0.15
"""Defaults of :func:`accumulate`: pixels, and colour difference in [0, 1]. Experiment 3 of
docs/research/log.md chose both."""
MIN_EVIDENCE = 1e-3
"""Lower bound of the mean weight of a window, 0 to 1, when it divides an error."""


def pull_push(samples: Tensor, weight: Tensor) -> Tensor:
    """Fill holes from ever coarser averages (Gortler et al. 1996, "The Lumigraph").

    Differentiable in both arguments; a few milliseconds at 192×256.

    Args:
        samples: [..., C, h, w], any values where ``weight`` is 0.
        weight: [..., 1, h, w] in [0, 1], the confidence of each pixel.

    Returns:
        [..., C, h, w]: equal to ``samples`` where the weight is 1, smooth in the holes; 0
        everywhere if all weights are 0.
    """
    shape = samples.shape
    channels, height, width = shape[-3:]
    color = torch.where(weight > 0, samples * weight, 0.0).reshape(-1, channels, height, width)
    total = weight.expand(*shape[:-3], 1, height, width).reshape(-1, 1, height, width)
    level = torch.cat([color, total], 1)
    pyramid = []
    while max(level.shape[-2:]) > 1:
        pyramid.append(level)
        # Even sides are padded too, and lose the padding again: an exported graph has no branches.
        # Sums, not means: a coarse pixel is fully known if it contains one known fine pixel.
        level = 4.0 * downsample_2x(F.pad(level, (0, 1, 0, 1)))
        level = level / level[:, -1:].clamp(min=1.0)
    filled = level[:, :-1] / level[:, -1:].clamp(min=MIN_WEIGHT)
    for level in reversed(pyramid):
        coarse = upsample_bilinear(filled, 2)[..., : level.shape[-2], : level.shape[-1]]
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    return filled.reshape(shape)


class Canvas(NamedTuple):
    """The picture that the samples so far give.

    color [B,3,h,w]: samples, and filled colours in the holes; confidence [B,1,h,w] in [0, 1]: 1
    for a sample of this frame, less for older ones, 0 for a hole.
    """

    color: Tensor
    confidence: Tensor


def accumulate(
    samples: Tensor,
    mask: Tensor,
    canvas: Canvas | None = None,
    *,
    flow: FlowEstimator | None = None,
    window: int = WINDOW,
    tolerance: float = TOLERANCE,
) -> tuple[Tensor, Canvas]:
    """Accumulate samples over frames on a canvas, which is warped to each new frame.

    Each pixel of the canvas either stays or moves along ``flow``, whichever agrees better with the
    new samples around it. Where even that disagrees, its confidence falls. :func:`pull_push` fills
    the remaining holes.

    Args:
        samples: [B, T, 3, h, w], 0 where not sampled.
        mask: [B, T, 1, h, w].
        canvas: the canvas that the last call returned; None starts a video.
        flow: estimates the motion between two filled frames; None: the canvas never moves.
        window: side in pixels of the square over which the disagreement is averaged.
        tolerance: root-mean-square disagreement in [0, 1] at which confidence has fallen to
            1 / e.

    Returns:
        frames [B, T, 3, h, w] and the canvas for the next call.
    """
    frames = []
    for t in range(samples.shape[1]):
        color, known = samples[:, t], mask[:, t]
        filled = pull_push(color, known)
        if canvas is None:
            canvas = Canvas(filled, known)
            frames.append(filled)
        else:
            frame, canvas = _advance(canvas, color, known, filled, flow, window, tolerance)
            frames.append(frame)
    if canvas is None or not frames:
        raise ValueError("received no frame, expected at least one")
    return torch.stack(frames, 1), canvas


def _advance(
    canvas: Canvas,
    color: Tensor,
    known: Tensor,
    filled: Tensor,
    flow: FlowEstimator | None,
    window: int,
    tolerance: float,
) -> tuple[Tensor, Canvas]:
    """The next frame and canvas; ``filled`` is the new frame alone, with its holes filled."""

    def local_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)

    def disagreement(canvas: Tensor) -> Tensor:
        # Errors are weighted by confidence, as a wrong guess is no evidence against the samples.
        weight = known * canvas[:, 3:]
        error = (canvas[:, :3] - color).square().mean(1, keepdim=True) * weight
        return local_mean(error) / local_mean(weight).clamp(min=MIN_EVIDENCE)

    previous = torch.cat(canvas, 1)
    error = disagreement(previous)
    if flow is not None:
        reference = pull_push(canvas.color, canvas.confidence)
        warped = backward_warp(previous, flow(reference, filled))
        warped_error = disagreement(warped)
        moves = warped_error < error
        previous = torch.where(moves, warped, previous)
        error = torch.where(moves, warped_error, error)
    confidence = previous[:, 3:] * torch.exp(-error / tolerance**2)
    confidence = torch.where(known > 0, known, confidence)
    color = torch.where(known > 0, color, previous[:, :3])
    frame = pull_push(color, confidence)
    return frame, Canvas(torch.where(confidence > 0, color, frame), confidence)
