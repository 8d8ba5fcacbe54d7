"""Density, mask and sampling. Training, inference and the viewer all use this definition.

A mask depends only on density, seed and frame number: it is the same on every device, in any order
of frames, for any length of the clip. NumPy computes it on the CPU: it is small, and PyTorch's
threads would wait for processors that a generator uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from .config import JITTERS, PUBLISHED_DENSITY, Density, InputError
from .gaze import DisplayGeometry

QUAD = ((0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.5))
"""The phases (x, y) of ``quad``, low-resolution pixels: half a pixel apart, which are two output
pixels at a scale of four. Opposite phases follow each other, so that two frames form a quincunx."""

HALTON_LENGTH = 16
"""Number of frames after which ``halton`` repeats: that of the output pixels of a low-resolution
pixel."""

BUDGET_TOLERANCE = 1e-5
"""A budget may be missed by this share of the pixels: at most two pixels of 192×256. Our choice."""
NEWTON_STEPS = 30
"""Largest number of Newton's steps: twice as many as the slowest of 1080 profiles needed whose
budget could be reached."""
MIN_PROBABILITY, MIN_SLOPE, MAX_EXPONENT = 1e-6, 1e-12, 1e4
"""Bounds that keep logarithms, steps and powers finite; useful profiles never reach them."""


def density_map(
    gaze_px: Tensor,
    height: int,
    width: int,
    density: Density = PUBLISHED_DENSITY,
    geometry: DisplayGeometry | None = None,
) -> Tensor:
    """Probability of each low-resolution pixel to be sampled.

    Args:
        gaze_px: [..., 2], low-resolution pixels (x right, y down); may lie outside the frame.
        height: h, pixels.
        width: w, pixels.
        density: the radial profile. With a ``budget``, the radii stay and the profile is raised to
            the power whose mean over the frame is the budget: the fovea stays dense, and the
            periphery becomes sparser.
        geometry: the display; needed if the radii are in degrees.

    Returns:
        [..., 1, h, w] in [0, 1]; it has no gradient with respect to the gaze.

    Raises:
        InputError: the radii are in degrees and there is no geometry, or the budget cannot be
            reached.
    """
    distance = eccentricity_map(gaze_px, height, width, density, geometry).detach().cpu().numpy()
    ramp = ((density.outer - distance) / (density.outer - density.inner)).clip(0.0, 1.0)
    probability = density.periphery + (density.center - density.periphery) * ramp
    if density.budget is not None:
        probability = _to_budget(probability, density.budget)
    return torch.from_numpy(probability).to(gaze_px.device).unsqueeze(-3)


def eccentricity_map(
    gaze_px: Tensor,
    height: int,
    width: int,
    density: Density = PUBLISHED_DENSITY,
    geometry: DisplayGeometry | None = None,
) -> Tensor:
    """Distance of each low-resolution pixel from the gaze, in the unit of the density's radii.

    Args:
        gaze_px: see :func:`density_map`, as for the others.

    Returns:
        [..., h, w], low-resolution pixels or degrees.

    Raises:
        InputError: radii in degrees without a geometry.
    """
    if density.unit == "deg":
        if geometry is None:
            raise InputError(
                "density: received radii in degrees without a display; "
                "give its horizontal field of view"
            )
        return geometry.eccentricity_deg(gaze_px, height, width)
    gaze = gaze_px.detach().to("cpu", torch.float32).numpy()[..., None, None, :]
    x = np.arange(width, dtype=np.float32) - gaze[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] - gaze[..., 1]
    with np.errstate(over="ignore"):  # the gaze may be very far away
        return torch.from_numpy(np.sqrt(x * x + y * y)).to(gaze_px.device)


def _to_budget(probability: np.ndarray, budget: float) -> np.ndarray:
    # mean(p ** g) is convex and falls from 1 at g = 0, so Newton's steps from there never pass the
    # root. In float64, so that exp and log of other libraries give the same float32.
    log_p = np.log(probability.astype(np.float64).clip(MIN_PROBABILITY))
    exponent = np.zeros_like(log_p[..., :1, :1])
    for _ in range(NEWTON_STEPS):
        power: np.ndarray = np.exp(exponent * log_p)
        excess = power.mean((-2, -1), keepdims=True) - budget
        slope = (power * log_p).mean((-2, -1), keepdims=True)
        found = np.abs(excess) < BUDGET_TOLERANCE  # these stay unchanged
        if found.all():
            break
        newton = (exponent - excess / slope.clip(max=-MIN_SLOPE)).clip(max=MAX_EXPONENT)
        exponent = np.where(found, exponent, newton)
    else:
        raise InputError(
            f"density: a budget of {100 * budget:g} % is out of reach for this profile; "
            "lower the density of the centre or its radius"
        )
    return power.astype(probability.dtype)


def draw_mask(
    probability: Tensor,
    seed: int | Sequence[int] = 0,
    first_frame: int = 0,
    blue_noise: bool = False,
) -> Tensor:
    """Draw which pixels are sampled, independently for every frame.

    Args:
        probability: [B, T, 1, h, w] in [0, 1].
        seed: one for all videos of the batch, or one for each.
        first_frame: number in its video of the first of the T frames.
        blue_noise: False: independent draws, as published. True: the pixels of lowest rank in
            :func:`blue_noise_ranks`, so that samples are spread evenly over the frame, and over
            a few frames too. After each cycle, the tile moves to another place.

    Returns:
        [B, T, 1, h, w], 1.0 where sampled, 0.0 elsewhere.
    """
    batch, time, _, height, width = probability.shape
    seeds = list(seed) if isinstance(seed, Sequence) else [int(seed)] * batch
    if len(seeds) != batch:
        raise ValueError(f"received {len(seeds)} seeds, expected one or {batch}")
    key = np.array([s & 0xFFFFFFFF for s in seeds], np.uint32)[:, None, None, None]
    frame = np.arange(first_frame, first_frame + time)[:, None, None]
    y = np.arange(height, dtype=np.uint32)[:, None]
    x = np.arange(width, dtype=np.uint32)
    if blue_noise:
        ranks = blue_noise_ranks()
        cycle, number = np.divmod(frame, len(ranks))
        shift = _hash32(_hash32(key) + (cycle & 0xFFFFFFFF).astype(np.uint32))
        rows, columns = (y + shift) % ranks.shape[1], (x + (shift >> 8)) % ranks.shape[2]
        threshold = (ranks[number, rows, columns] + 0.5) / ranks[0].size
    else:
        of_frame = _hash32(_hash32(key) + (frame & 0xFFFFFFFF).astype(np.uint32))
        threshold = _hash32(of_frame + (y << 16) + x) / 2.0**32
    limit = probability[:, :, 0].detach().cpu()
    limit = limit if limit.dtype == torch.float64 else limit.float()  # NumPy has no bfloat16
    mask = (threshold < limit.numpy()).astype(np.float32)
    return torch.from_numpy(mask).to(probability).unsqueeze(2)


def _hash32(bits: np.ndarray) -> np.ndarray:
    """Hash uint32, which wrap around (the function "lowbias32" of C. Wellons)."""
    bits = bits ^ (bits >> 16)
    bits *= np.uint32(0x7FEB352D)
    bits ^= bits >> 15
    bits *= np.uint32(0x846CA68B)
    bits ^= bits >> 16
    return bits


@lru_cache(maxsize=1)
def blue_noise_ranks() -> np.ndarray:
    """Ranks of spatiotemporal blue noise: uint16 [16, 64, 64], in each frame 0 … 4095 once each.

    For every k, the k pixels of lowest rank are spread evenly over a frame, and those of a few
    consecutive frames together are, too. ``research/blue_noise.py`` made the ranks and explains
    how.
    """
    with resources.files(__package__).joinpath("blue_noise.npy").open("rb") as file:
        ranks: np.ndarray = np.load(file)
    return ranks


def sample(
    frames: Tensor,
    gaze_px: Tensor,
    density: Density = PUBLISHED_DENSITY,
    *,
    seed: int | Sequence[int] = 0,
    first_frame: int = 0,
    blue_noise: bool = False,
    geometry: DisplayGeometry | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample frames with a mask that is drawn around the gaze.

    Args:
        frames: [B, T, 3, h, w] low-resolution frames in [0, 1].
        gaze_px: [B, T, 2] low-resolution pixels.
        density: see :func:`density_map`, as for ``geometry``.
        seed: see :func:`draw_mask`, as for ``first_frame`` and ``blue_noise``.

    Returns:
        samples [B, T, 3, h, w] (0 where not sampled) and mask [B, T, 1, h, w].
    """
    height, width = frames.shape[-2:]
    probability = density_map(gaze_px, height, width, density, geometry)
    mask = draw_mask(probability, seed, first_frame, blue_noise).to(frames)
    if frames.device.type != "cpu" or frames.dtype != torch.float32 or frames.requires_grad:
        return frames * mask, mask
    return torch.from_numpy(frames.numpy() * mask.numpy()), mask


def downsample(frames: Tensor, scale: int = 4, jitter: Tensor | None = None) -> Tensor:
    """Downsample frames as published: bilinear without antialiasing.

    Args:
        frames: [..., 3, H, W]; H and W divisible by ``scale``.
        jitter: [..., 2], the offset (x, y) of the sampling grid of each frame in low-resolution
            pixels, the border repeated; None: no jitter, as published.

    Returns:
        [..., 3, H / scale, W / scale]. For a scale of four, each pixel is the mean of the 2 × 2
        pixels in the middle of its 4 × 4 block, or with jitter of those around its moved centre.
    """
    height, width = frames.shape[-2:]
    flat = frames.reshape(-1, *frames.shape[-3:])
    if jitter is not None:
        small = _shifted(flat, scale, jitter.reshape(-1, 2).to(flat.device))
        return small.reshape(*frames.shape[:-2], *small.shape[-2:])
    if scale == 4:
        # The same as interpolate, whose rounding depends on the size and on the number of threads.
        top, bottom = frames[..., 1::4, :], frames[..., 2::4, :]
        pairs = (top[..., 1::4] + top[..., 2::4]) + (bottom[..., 1::4] + bottom[..., 2::4])
        return 0.25 * pairs
    small = torch.nn.functional.interpolate(
        flat, size=(height // scale, width // scale), mode="bilinear", align_corners=False
    )
    return small.reshape(*frames.shape[:-2], *small.shape[-2:])


def _shifted(frames: Tensor, scale: int, jitter: Tensor) -> Tensor:
    """Bilinear values of frames [N,C,H,W] on the low-resolution grid shifted by jitter [N,2]."""

    def along(x: Tensor, dim: int, offset: Tensor) -> Tensor:
        side = x.shape[dim]
        middle = (scale - 1) / 2
        place = scale * (torch.arange(side // scale, device=x.device) + offset[:, None]) + middle
        place = place.clamp(0, side - 1)  # [N,side/scale], high-resolution pixels
        first = place.floor()
        share = (place - first).to(x.dtype)
        shape = [len(x), 1, 1, 1]
        shape[dim] = -1
        expanded = [*x.shape]
        expanded[dim] = side // scale
        low = first.long().view(shape)
        high = (low + 1).clamp(max=side - 1)
        share = share.view(shape)
        a = x.gather(dim, low.expand(expanded))
        return a + share * (x.gather(dim, high.expand(expanded)) - a)

    jitter = jitter.double()  # so that positions are exact in frames of thousands of pixels
    return along(along(frames, 2, jitter[:, 1]), 3, jitter[:, 0])


def jitter_sequence(kind: str, first_frame: int, frames: int) -> Tensor | None:
    """The offsets (x, y) of the sampling grid, frame by frame.

    Args:
        kind: ``none`` (published), ``quad`` (four phases half a pixel apart) or ``halton`` (bases 2
            and 3, in [-0.5, 0.5), as temporal upscalers use it).
        first_frame: number of the first frame in its video.
        frames: T.

    Returns:
        [T, 2] low-resolution pixels; None for ``none``.

    Raises:
        InputError: an unknown name.
    """
    if kind not in JITTERS:
        raise InputError(f"jitter: received {kind!r:.100}; expected one of {', '.join(JITTERS)}")
    if kind == "none":
        return None
    if kind == "quad":
        return torch.tensor([QUAD[(first_frame + t) % 4] for t in range(frames)])
    numbers = [1 + (first_frame + t) % HALTON_LENGTH for t in range(frames)]
    return torch.tensor([[_radical_inverse(n, b) - 0.5 for b in (2, 3)] for n in numbers])


def _radical_inverse(number: int, base: int) -> float:
    value, share = 0.0, 1.0
    while number:
        share /= base
        number, digit = divmod(number, base)
        value += share * digit
    return value
