"""Filling holes without learning: pull-push and accumulation along a flow."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import FlowEstimator, backward_warp
from .resample import downsample_2x, upsample_bilinear

MIN_WEIGHT = 1e-6
"""Least weight, 0 to 1, that a colour is divided by in :func:`pull_push`. The weight is that of one
pixel, which is all that the coarsest level has."""
WINDOW, TOLERANCE = 9, 0.15
"""Pixels, and colour difference in [0, 1], see :func:`accumulate`. Experiment 3 of
docs/research/log.md chose both."""
MIN_EVIDENCE = 1e-3
"""Least mean weight of a window that :func:`accumulate` judges by."""


def pull_push(samples: Tensor, weight: Tensor) -> Tensor:
    """Fill holes from ever coarser averages (Gortler et al. 1996, "The Lumigraph").

    Differentiable in both arguments; a few milliseconds at 192×256.

    Args:
        samples: [..., C, h, w], any values where ``weight`` is 0.
        weight: [..., 1, h, w] in [0, 1], the confidence of each pixel.

    Returns:
        [..., C, h, w]: ``samples`` where the weight is 1, smooth in the holes; 0 everywhere
        when nothing has a weight.
    """
    shape = samples.shape
    channels, height, width = shape[-3:]
    color = torch.where(weight > 0, samples * weight, 0.0).reshape(-1, channels, height, width)
    total = weight.expand(*shape[:-3], 1, height, width).reshape(-1, 1, height, width)
    level = torch.cat([color, total], 1)
    pyramid = []
    while max(level.shape[-2:]) > 1:
        pyramid.append(level)
        # For an even side the padding is dropped again. A branch would tie an export to one size.
        # Sums, not means: a coarse pixel is fully known once it holds one known fine pixel.
        level = 4.0 * downsample_2x(F.pad(level, (0, 1, 0, 1)))
        level = level / level[:, -1:].clamp(min=1.0)
    filled = level[:, :-1] / level[:, -1:].clamp(min=MIN_WEIGHT)
    for level in reversed(pyramid):
        coarse = upsample_bilinear(filled, 2)[..., : level.shape[-2], : level.shape[-1]]
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    return filled.reshape(shape)


class Canvas(NamedTuple):
    """What the samples so far show.

    color [B,3,h,w] as sampled, filled where nothing was; confidence [B,1,h,w] in [0, 1]: how
    far it is a sample.
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
    """Carry samples from frame to frame, along the better of standing still and ``flow``.

    Confidence falls where the new samples disagree with what was carried; the holes that are
    left are filled by :func:`pull_push`.

    Args:
        samples: [B, T, 3, h, w], 0 where not sampled.
        mask: [B, T, 1, h, w].
        canvas: as returned for the frames before; None starts a video.
        flow: estimates the motion between two filled frames; None: standing still only.
        window: side in pixels of the square in which agreement is judged.
        tolerance: root-mean-square disagreement in [0, 1] at which confidence has fallen to
            1 / e.

    Returns:
        frames [B, T, 3, h, w] and the canvas for the next call.
    """
    frames = []
    for t in range(samples.shape[1]):
        color, known = samples[:, t], mask[:, t]
        alone = pull_push(color, known)
        if canvas is None:
            canvas = Canvas(alone, known)
            frames.append(alone)
        else:
            frame, canvas = _advance(canvas, color, known, alone, flow, window, tolerance)
            frames.append(frame)
    if canvas is None or not frames:
        raise ValueError("received no frame, expected at least one")
    return torch.stack(frames, 1), canvas


def _advance(
    canvas: Canvas,
    color: Tensor,
    known: Tensor,
    alone: Tensor,
    flow: FlowEstimator | None,
    window: int,
    tolerance: float,
) -> tuple[Tensor, Canvas]:
    def local_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)

    def disagreement(carried: Tensor) -> Tensor:
        # What the canvas only guesses is not taken as evidence against its samples.
        weight = known * carried[:, 3:]
        error = (carried[:, :3] - color).square().mean(1, keepdim=True) * weight
        return local_mean(error) / local_mean(weight).clamp(min=MIN_EVIDENCE)

    carried = torch.cat(canvas, 1)
    error = disagreement(carried)
    if flow is not None:
        shown = pull_push(canvas.color, canvas.confidence)
        moved = backward_warp(carried, flow(shown, alone))
        moved_error = disagreement(moved)
        moves = moved_error < error
        carried = torch.where(moves, moved, carried)
        error = torch.where(moves, moved_error, error)
    confidence = carried[:, 3:] * torch.exp(-error / tolerance**2)
    confidence = torch.where(known > 0, known, confidence)
    color = torch.where(known > 0, color, carried[:, :3])
    frame = pull_push(color, confidence)
    return frame, Canvas(torch.where(confidence > 0, color, frame), confidence)
