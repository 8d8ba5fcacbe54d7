"""Gaze that nobody recorded: a random point as published, and a simulated eye that explores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..config import InputError
from .geometry import DEFAULT_DISPLAY, DisplayGeometry
from .track import GazeTrack, fixed, from_pixels


def random_point(seed: int | Sequence[int], height: int = 180, width: int = 320) -> GazeTrack:
    """Look at one random point for the whole video, as published (Reich, Memmel, Grebe 2020).

    Uniform in [50, width - 50] x [50, height - 50] px of the low-resolution frame. A side
    shorter than the published 180 px has its margin reduced in proportion.
    """
    side = np.array([width, height], dtype=np.float64)
    margin = np.minimum(50.0, side * 50.0 / 180.0)
    pixels = np.random.default_rng(seed).uniform(margin, side - margin)
    return fixed(*from_pixels(pixels, height, width))


def synthetic(
    seed: int | Sequence[int],
    duration_seconds: float,
    *,
    display: DisplayGeometry = DEFAULT_DISPLAY,
    rate_hz: float = 250.0,
) -> GazeTrack:
    """Simulate an eye that explores: fixations with drift, joined by saccades.

    Fixations last 100 ms and more, most of them 200 to 600 ms. Saccades have gamma-distributed
    amplitudes of about 5 degrees, last 21 ms + 2.2 ms per degree (Carpenter 1988), and
    follow the minimum-jerk profile (Flash & Hogan 1985). The drift is a random walk of a few
    minutes of arc per fixation. The distributions are plausible, not fitted to data.

    Degrees are those at the centre of ``display``. Every sample is valid and in the frame. The
    same seed gives the same track. Raises InputError unless duration and rate are positive.
    """
    if not (0 < duration_seconds < math.inf and 0 < rate_hz < math.inf):
        received = f"{duration_seconds:g} s at {rate_hz:g} Hz"
        raise InputError(f"synthetic gaze: received {received}; expected both positive and finite")
    rng = np.random.default_rng(seed)
    frame_deg = np.array([display.width_px, display.height_px]) / display.pixels_per_degree
    reach_deg = 0.45 * frame_deg  # positions below are degrees from the centre of the frame
    targets, starts, lengths = [rng.uniform(-reach_deg, reach_deg)], [0.0], [1.0]
    fixation = 0.0  # seconds; the "saccade" that led here led nowhere
    while fixation < duration_seconds:
        angle, amplitude = rng.uniform(0.0, 2 * math.pi, 32), rng.gamma(2.0, 2.5, 32)
        landing = targets[-1] + (amplitude * [np.cos(angle), np.sin(angle)]).T
        landing = landing[(np.abs(landing) <= reach_deg).all(axis=1)]
        targets.append(landing[0] if len(landing) else rng.uniform(-reach_deg, reach_deg))
        starts.append(fixation + 0.1 + rng.gamma(4.0, 0.06))
        lengths.append(0.021 + 0.0022 * float(np.hypot(*(targets[-1] - targets[-2]))))
        fixation = starts[-1] + lengths[-1]
    start, length, arrival = np.array(starts), np.array(lengths), np.array(targets)

    time = np.arange(math.ceil(duration_seconds * rate_hz) + 1) / rate_hz
    walk = np.cumsum(rng.normal(0.0, 0.1 / math.sqrt(rate_hz), (time.size, 2)), axis=0)
    walk_before = walk[np.minimum(np.searchsorted(time, start), time.size - 1)]
    # a saccade leaves from where the drift has led and lands on its target
    departure = np.concatenate([arrival[:1], arrival[:-1] + np.diff(walk_before, axis=0)])
    now = np.searchsorted(start, time, side="right") - 1
    phase = np.clip((time - start[now]) / length[now], 0.0, 1.0)[:, None]
    blend = phase**3 * (10 - 15 * phase + 6 * phase**2)
    position_deg = departure[now] + (arrival - departure)[now] * blend + walk - walk_before[now]
    position = np.clip(0.5 + position_deg / frame_deg, 0.0, 1.0)
    return GazeTrack(time, position, np.ones(time.size, dtype=np.bool_))
