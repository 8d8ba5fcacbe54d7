"""Baseline ``taau-all``: temporal upscaling of all low-resolution pixels on a jittered grid.

Renderers contain such methods without a network (Unreal's TAAU, AMD's FSR 2). This one follows the
survey of Yang, Liu and Salvi 2020, "A survey of temporal antialiasing techniques". The history has
the output resolution. It is warped along the motion, clipped to the colours around each pixel of
the new frame (variance clipping, Salvi 2016, "An excursion in temporal supersampling"), and blended
with the new frame by the distance between the new samples and the output pixel.

Renderers know the motion. For a video without given motion, it is the better of zero motion and DIS
flow, as in ``accumulate``.

Legend: h, w low resolution; H, W high resolution, H = 4h. Places are (x, y).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import SCALE
from ..flow import backward_warp, dis_flow
from ..resample import bilinear_sample, pixel_grid, sampling_grid, upsample_bilinear

# Where a constant names no source, it is our choice.
CLIP_SIGMAS = 1.25
"""γ of the variance clipping; Salvi 2016 recommends 0.75 to 1.25."""
FALLOFF = 1.0
"""A sample at a distance of d output pixels has the weight exp(-FALLOFF d²). Karis 2014,
"High-quality temporal supersampling", has 2.29; here a sample is the mean of 2 × 2 output pixels
and so extends farther."""
MIN_WEIGHT = 0.02
"""Smallest weight of the new frame, for pixels with neither a near sample nor a history."""
MAX_HISTORY = 0.3
"""Largest weight of the history. A new frame has 0.2 in the mean, and motion is never exact."""
WINDOW = 9
"""Side of the square in which the errors of the two motions are compared, low-resolution pixels."""
MAX_ERROR_SHARE = 0.5
"""Flow is used where its error is below this share of that of zero motion. A shifted grid alone
makes the frames of a still scene differ, and flow would compensate some of that."""

YCOCG = ((0.25, 0.5, 0.25), (0.5, 0.0, -0.5), (-0.25, 0.5, -0.25))
"""RGB to luma and two chroma values, orange and green (Malvar and Sullivan 2003)."""


class History(NamedTuple):
    """color [B,3,H,W]; weight [B,1,H,W], number of samples it equals; low [B,3,h,w], the frame."""

    color: Tensor
    weight: Tensor
    low: Tensor


def taau_frames(
    samples: Tensor,
    mask: Tensor,
    state: Any = None,
    motion: Tensor | None = None,
    jitter: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """All pixels [B,T,3,h,w] (the mask is not used) -> frames [B,T,3,H,W] and the history.

    Args:
        motion: [B, T, 2, h, w], see :class:`deepfovea.generators.Generator`; None: estimated.
        jitter: [B, T, 2], likewise; None: no jitter, which gains little.
    """
    frames, history = [], state
    for t in range(samples.shape[1]):
        offset = samples.new_zeros(len(samples), 2) if jitter is None else jitter[:, t]
        given = None if motion is None else motion[:, t]
        history = _step(samples[:, t], offset, given, history)
        frames.append(history.color.clamp(0.0, 1.0))
    return torch.stack(frames, 1), history


def _step(frame: Tensor, offset: Tensor, given: Tensor | None, history: History | None) -> History:
    height, width = (SCALE * side for side in frame.shape[-2:])
    shift = offset[..., None, None].to(frame)  # [B, 2, 1, 1]
    # The position of each output pixel in the sampling grid, low-resolution pixels.
    places = (pixel_grid(frame, height, width) + 0.5) / SCALE - 0.5 - shift
    color = bicubic_sample(places, frame)
    distance = SCALE * (places - places.round())
    weight = torch.exp(-FALLOFF * distance.square().sum(1, keepdim=True)) + MIN_WEIGHT
    rest = bicubic_sample(pixel_grid(frame, *frame.shape[-2:]) - shift, frame)
    if history is None:
        return History(color, weight, rest)
    if given is None:
        large = SCALE * upsample_bilinear(_motion(history.low, rest), SCALE)
    else:  # at the places of the samples
        large = SCALE * bilinear_sample(places, given)
    source = pixel_grid(frame, height, width) + large
    size = frame.new_tensor([width, height])[:, None, None]
    inside = ((source > -0.5) & (source < size - 0.5)).all(1, keepdim=True)
    past = torch.cat([history.color, history.weight], 1)
    past = bicubic_sample(source, past)
    kept = past[:, 3:].clamp(0.0, MAX_HISTORY) * inside
    clipped = _clip(past[:, :3], frame, places)
    total = kept + weight
    return History((kept * clipped + weight * color) / total, total, rest)


def _motion(previous: Tensor, current: Tensor) -> Tensor:
    """The better of zero motion and DIS flow, [B, 2, h, w]."""
    flow = dis_flow(previous, current)

    def error(image: Tensor) -> Tensor:
        wrong = (image - current).square().mean(1, keepdim=True)
        return F.avg_pool2d(wrong, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    moves = error(backward_warp(previous, flow)) < MAX_ERROR_SHARE * error(previous)
    return flow * moves


def _clip(past: Tensor, frame: Tensor, places: Tensor) -> Tensor:
    """Clip the history [B,3,H,W] to the colours of the 3 × 3 samples around a place, in YCoCg."""
    matrix = past.new_tensor(YCOCG)
    small = torch.einsum("cd,bdhw->bchw", matrix, frame)
    around = F.pad(small, (1, 1, 1, 1), mode="replicate")
    mean = F.avg_pool2d(around, 3, 1)
    deviation = (F.avg_pool2d(around.square(), 3, 1) - mean.square()).clamp(min=0.0).sqrt()
    bounds = torch.cat([mean - CLIP_SIGMAS * deviation, mean + CLIP_SIGMAS * deviation], 1)
    low, high = _nearest(places, bounds).chunk(2, 1)
    inside = torch.einsum("cd,bdhw->bchw", matrix, past).clamp(low, high)
    return torch.einsum("cd,bdhw->bchw", torch.linalg.inv(matrix), inside)


def _nearest(places: Tensor, image: Tensor) -> Tensor:
    grid = sampling_grid(places, *image.shape[-2:])
    return F.grid_sample(image, grid, "nearest", "border", align_corners=False)


def bicubic_sample(places: Tensor, image: Tensor) -> Tensor:
    """Sample the image [B, C, h, w] at the places [B, 2, H, W]: bicubic, with repeated border."""
    grid = sampling_grid(places, *image.shape[-2:])
    return F.grid_sample(image, grid, "bicubic", "border", align_corners=False)
