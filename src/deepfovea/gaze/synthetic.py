"""Synthetic gaze: a random point as published, and a simulated eye that explores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..config import InputError
from .geometry import DEFAULT_DISPLAY, DisplayGeometry
from .main_sequence import minimum_jerk, saccade_seconds
from .track import GazeTrack, fixed, from_pixels

MARGIN_PX, MARGIN_OF_PX = 50.0, 180.0
"""The distance from the border that the published code leaves free, and the shorter side of the
frames for which it does so, low-resolution pixels (Reich, Memmel, Grebe 2020)."""

# The other constants describe a plausible eye. They are our choice, not fitted to data.
REACH = 0.45
"""Saccades land within this share of the frame's side from its centre, so that a twentieth of the
frame stays free at each border."""
MIN_FIXATION_SECONDS, FIXATION_SHAPE, FIXATION_SCALE_SECONDS = 0.1, 4.0, 0.06
"""The shortest fixation, and the shape and scale of the gamma distribution that is added to it; its
mean is 0.24 s."""
AMPLITUDE_SHAPE, AMPLITUDE_SCALE_DEG = 2.0, 2.5
"""Shape and scale of the gamma distribution of amplitudes; its mean is 5 degrees."""
LANDINGS = 32
"""Number of landing points drawn for a saccade; the first one inside the reach is taken."""
DRIFT_DEG = 0.1
"""Standard deviation of the drift after one second, per axis, degrees."""


def random_point(seed: int | Sequence[int], height: int = 180, width: int = 320) -> GazeTrack:
    """Look at one random point for the whole video, as published (Reich, Memmel, Grebe 2020).

    Uniform in [50, width - 50] x [50, height - 50] px of the low-resolution frame. A side
    shorter than the published 180 px has its margin reduced in proportion.
    """
    side = np.array([width, height], dtype=np.float64)
    margin = np.minimum(MARGIN_PX, side * MARGIN_PX / MARGIN_OF_PX)
    pixels = np.random.default_rng(seed).uniform(margin, side - margin)
    return fixed(*from_pixels(pixels, height, width))


def synthetic(
    seed: int | Sequence[int],
    duration_seconds: float,
    *,
    display: DisplayGeometry = DEFAULT_DISPLAY,
    rate_hz: float = 250.0,
) -> GazeTrack:
    """Simulate an eye that explores a picture: fixations with drift, with saccades between them.

    Fixations last 100 ms and more, most of them 200 to 600 ms. Saccades have gamma-distributed
    amplitudes of about 5 degrees, last 21 ms + 2.2 ms per degree (Carpenter 1988), and
    follow the minimum-jerk profile (Flash and Hogan 1985). The drift is a random walk of a few
    minutes of arc per fixation. The distributions are plausible, not fitted to data.

    Degrees are those at the centre of ``display``. Every sample is valid and in the frame. The
    same seed gives the same track. Raises InputError if duration or rate is not positive.
    """
    if not (0 < duration_seconds < math.inf and 0 < rate_hz < math.inf):
        received = f"{duration_seconds:g} s at {rate_hz:g} Hz"
        raise InputError(f"synthetic gaze: received {received}; expected both positive and finite")
    rng = np.random.default_rng(seed)
    frame_deg = np.array([display.width_px, display.height_px]) / display.pixels_per_degree
    reach_deg = REACH * frame_deg  # positions below are degrees from the centre of the frame
    targets, starts, lengths = [rng.uniform(-reach_deg, reach_deg)], [0.0], [1.0]
    fixation = 0.0  # seconds; no saccade comes before the first fixation
    while fixation < duration_seconds:
        angle = rng.uniform(0.0, 2 * math.pi, LANDINGS)
        amplitude = rng.gamma(AMPLITUDE_SHAPE, AMPLITUDE_SCALE_DEG, LANDINGS)
        landing = targets[-1] + (amplitude * [np.cos(angle), np.sin(angle)]).T
        landing = landing[(np.abs(landing) <= reach_deg).all(axis=1)]
        targets.append(landing[0] if len(landing) else rng.uniform(-reach_deg, reach_deg))
        longer = rng.gamma(FIXATION_SHAPE, FIXATION_SCALE_SECONDS)
        starts.append(fixation + MIN_FIXATION_SECONDS + longer)
        lengths.append(float(saccade_seconds(np.hypot(*(targets[-1] - targets[-2])))))
        fixation = starts[-1] + lengths[-1]
    start, length, arrival = np.array(starts), np.array(lengths), np.array(targets)

    time = np.arange(math.ceil(duration_seconds * rate_hz) + 1) / rate_hz
    walk = np.cumsum(rng.normal(0.0, DRIFT_DEG / math.sqrt(rate_hz), (time.size, 2)), axis=0)
    walk_before = walk[np.minimum(np.searchsorted(time, start), time.size - 1)]
    # a saccade starts where the drift has ended, and lands on its target
    departure = np.concatenate([arrival[:1], arrival[:-1] + np.diff(walk_before, axis=0)])
    now = np.searchsorted(start, time, side="right") - 1
    phase = np.clip((time - start[now]) / length[now], 0.0, 1.0)[:, None]
    way = (arrival - departure)[now] * minimum_jerk(phase)
    position_deg = departure[now] + way + walk - walk_before[now]
    position = np.clip(0.5 + position_deg / frame_deg, 0.0, 1.0)
    return GazeTrack(time, position, np.ones(time.size, dtype=np.bool_))
