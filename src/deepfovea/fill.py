"""Reconstruction without learning: the prior of our network and the baselines of every table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import InputError

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""(previous [B,3,h,w], current [B,3,h,w]) -> backward flow [B,2,h,w] in pixels (x, y)."""


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
        # An even side drops the padding again; asking which it is would tie an export to one size.
        # Sums, not means: a coarse pixel is fully known once it holds one known fine pixel.
        level = 4.0 * halve(F.pad(level, (0, 1, 0, 1)))
        level = level / level[:, -1:].clamp(min=1.0)
    filled = level[:, :-1] / level[:, -1:].clamp(min=1e-6)
    for level in reversed(pyramid):
        coarse = resize(filled, 2)[..., : level.shape[-2], : level.shape[-1]]
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    return filled.reshape(shape)


def upscale(frames: Tensor, scale: int = 4) -> Tensor:
    """Bicubic interpolation, clamped to [0, 1]: [..., C, h, w] -> [..., C, s·h, s·w]."""
    flat = frames.reshape(-1, *frames.shape[-3:])
    large = F.interpolate(flat, scale_factor=scale, mode="bicubic", align_corners=False)
    return large.reshape(*frames.shape[:-2], *large.shape[-2:]).clamp(0.0, 1.0)


def backward_warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch for every pixel p the value of ``image`` at p + flow(p), bilinear, border repeated.

    Args:
        image: [B, C, h, w].
        flow: [B, 2, h, w] in pixels, (x, y).
    """
    return sample_at(flow + pixels(flow, *flow.shape[-2:]), image)


_by_grid: ContextVar[bool] = ContextVar("by_grid", default=False)


@contextmanager
def resampled_by_grid() -> Iterator[None]:
    """Within it :func:`resize` and :func:`halve` sample a grid where there are few channels.

    The result is the same up to rounding. OpenVINO takes a quarter of the time for it; PyTorch
    and ONNX Runtime would take longer.
    """
    token = _by_grid.set(True)
    try:
        yield
    finally:
        _by_grid.reset(token)


def resize(x: Tensor, factor: int) -> Tensor:
    """Bilinear (``align_corners=False``): [B, C, h, w] to [B, C, factor·h, factor·w]."""
    if not _grid_is_faster(x):
        return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    height, width = x.shape[-2:]
    return sample_at((pixels(x, factor * height, factor * width) + 0.5) / factor - 0.5, x)


def halve(x: Tensor, shift: int = 0) -> Tensor:
    """Means of 2×2 pixels, [B, C, h, w] to [B, C, h/2, w/2], a last odd row or column left out.

    With ``shift`` 1, for even sides, of the pixels 2i+1 and 2i+2, the last ones repeated.
    """
    if not _grid_is_faster(x):
        # Padding is not counted: the last mean is that of the last pixel alone.
        means = F.avg_pool2d(x, 2, padding=shift, count_include_pad=False)
        return means[..., shift:, shift:]
    height, width = x.shape[-2:]
    # The bilinear value in the middle of the four.
    return sample_at(2.0 * pixels(x, height // 2, width // 2) + (0.5 + shift), x)


def eighth(x: Tensor) -> Tensor:
    """Means of 8×8 pixels: [B, C, h, w] to [B, C, h/8, w/8]."""
    return halve(halve(halve(x)))


def _grid_is_faster(x: Tensor) -> bool:
    return _by_grid.get() and x.shape[1] < 16


def pixels(like: Tensor, height: int, width: int) -> Tensor:
    """The place (x, y) of every pixel of an image h×w: [B, 2, h, w], float32, B as in ``like``."""
    y = torch.arange(height, device=like.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack([x + 0.0 * y, y + 0.0 * x]).expand(like.shape[0], -1, -1, -1)


def sample_at(positions: Tensor, image: Tensor) -> Tensor:
    """The image [B, C, h, w] at the pixels (x, y) [B, 2, H, W], bilinear, border repeated."""
    # In half precision a position is a sixteenth of a pixel off at 256, and the CPU's sampling
    # goes wrong in large frames.
    height, width = image.shape[-2:]
    x, y = torch.split(2.0 * positions.float() + 1.0, 1, 1)
    grid = torch.cat([x / width, y / height], 1) - 1.0
    sampled = F.grid_sample(
        image.float(),
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return sampled.to(image.dtype)


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
    window: int = 9,
    tolerance: float = 0.15,
) -> tuple[Tensor, Canvas]:
    """Carry samples from frame to frame, along the better of standing still and ``flow``.

    Confidence falls where the new samples disagree with what was carried; the holes that are
    left are filled by :func:`pull_push`.

    Args:
        samples: [B, T, 3, h, w], 0 where not sampled.
        mask: [B, T, 1, h, w].
        canvas: what the frames before left; None starts a video.
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
        # Guesses of the canvas are no evidence against its samples.
        weight = known * carried[:, 3:]
        error = (carried[:, :3] - color).square().mean(1, keepdim=True) * weight
        return local_mean(error) / local_mean(weight).clamp(min=1e-3)

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


def dis_flow(previous: Tensor, current: Tensor) -> Tensor:
    """Backward optical flow by dense inverse search (Kroeger et al. 2016), from OpenCV.

    Args:
        previous: [B, 3, h, w] in [0, 1].
        current: [B, 3, h, w] in [0, 1].

    Returns:
        [B, 2, h, w] pixels: ``previous`` at p + flow(p) shows what ``current`` shows at p.

    Raises:
        InputError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError(
            "DIS optical flow needs OpenCV, which is missing: pip install 'deepfovea[eval]'"
        ) from None
    if max(current.shape[-2:]) < 12:  # OpenCV's smallest
        return torch.zeros_like(current[:, :2])
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    weights = np.array([0.299, 0.587, 0.114], np.float32)

    def gray(image: Tensor) -> np.ndarray:
        pixels = image.detach().permute(1, 2, 0).float().cpu().numpy() @ weights
        return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    flows = [solver.calc(gray(c), gray(p), None) for p, c in zip(previous, current, strict=True)]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(previous)
