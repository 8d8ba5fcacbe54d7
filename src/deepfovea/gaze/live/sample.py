"""One gaze sample from the tracker: as received, and on our clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..track import Size, refusal, to_normalised


class Reading(NamedTuple):
    """A position that a source has received, perhaps with the tracker's time."""

    x: float  # normalised to the tracker's screen or camera; nan: no position
    y: float
    valid: bool
    received_seconds: float  # time of arrival by time.perf_counter
    tracker_seconds: float | None = None  # by the tracker's clock
    own_seconds: float | None = None  # the same by our clock, if the protocol states it


class LiveSample(NamedTuple):
    """A position of the eye with the times of both clocks.

    ``position`` is normalised to the video: 0 to 1 from edge to edge, x right, y down.
    ``measured`` is the same before the calibration. Times are in seconds; ``own_seconds`` and
    ``received_seconds`` are by ``time.perf_counter``.
    """

    position: tuple[float, float]
    measured: tuple[float, float]
    valid: bool  # False for a blink, a lost eye, a low confidence
    own_seconds: float
    received_seconds: float
    tracker_seconds: float | None


class GazeEstimate(NamedTuple):
    """Where to sample a frame: the result of :meth:`LiveGaze.look`."""

    position: tuple[float, float]  # normalised to the video
    seconds: float  # time of the call, by time.perf_counter
    sample: LiveSample | None  # the newest one at that time
    predicted: bool = False  # whether it is the landing point of a saccade under way


Deliver = Callable[[Reading], None]
Malformed = Callable[[str], None]
Axes = Callable[[float, float], tuple[float, float]]


def axes(units: str, screen: Size | None) -> Axes:
    """Return the function from positions in one of :data:`UNITS` to normalised ones.

    ``screen`` is (height, width) in the tracker's pixels; px needs it. Raises InputError for
    other units.
    """
    if units == "px" and screen is None:
        expected = "its size (--gaze-screen HxW), or another unit"
        raise refusal("gaze units", "px of an unknown screen", expected)
    offset, one = to_normalised(np.array([[0.0, 0.0], [1.0, 1.0]]), units, screen).tolist()
    scale = one[0] - offset[0], one[1] - offset[1]
    return lambda x, y: (x * scale[0] + offset[0], y * scale[1] + offset[1])
