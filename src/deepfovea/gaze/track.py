"""A gaze track: samples over time, and the position for every frame.

A *normalised* position is 0 to 1 across the frame, edge to edge, x right, y down. Tracks are
stored normalised, and so fit every resolution. Gaze in *px* is in pixels of a frame, x right, y
down, origin at the centre of the top-left pixel: px = norm * width - 0.5. Time 0 is that of the
first frame.

Legend: N samples of a track; T frames; h, w low resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..config import InputError

Floats = NDArray[np.float64]
Size = tuple[int, int]  # height, width

UNITS = ("px", "norm", "ndc", "norm_up")
"""Units of positions in files and on the command line: pixels of the video file; normalised;
-1 to 1 edge to edge with y *up* (OpenXR); normalised with y *up* from the bottom (Pupil Core)."""

MIN_CONFIDENCE = 0.6
"""Confidence, 0 to 1, below which a sample counts as lost: Pupil Player's min_data_confidence."""
HOLD_SECONDS = 0.100
"""Age of the last valid sample up to which the gaze stays at it. Our choice: a blink lasts 0.1 to
0.4 s, and the gaze should not move during a short one."""
HOLD_STEPS = 1.5
"""The same in median steps, for a track with longer steps. Our choice: one and a half steps."""
RETURN_SECONDS = 0.150
"""Time in which the gaze then moves to the centre. Our choice."""
CLOCK_SLACK_SECONDS = 0.001
"""A sample may be later than its frame by this many seconds, as containers and trackers round their
times to milliseconds."""


def to_pixels(position: ArrayLike, height: int, width: int) -> Floats:
    """Turn normalised positions [..., 2] into pixels [..., 2] of a height x width frame."""
    return np.asarray(position, dtype=np.float64) * (width, height) - 0.5


def from_pixels(pixels: ArrayLike, height: int, width: int) -> Floats:
    """Turn pixels [..., 2] of a height x width frame into normalised positions [..., 2]."""
    return (np.asarray(pixels, dtype=np.float64) + 0.5) / (width, height)


@dataclass(frozen=True, eq=False)
class GazeTrack:
    """Where one eye looked: samples over time, for any resolution.

    A track of one sample is a constant. Raises InputError if the arrays do not fit together.

    The times are those of the video, or the track counts its frames: then ``frame_rate`` is set,
    time_seconds is frame number / frame_rate, and frames get their samples by number, not by time.
    """

    time_seconds: Floats  # [N], increasing
    position: Floats  # [N, 2] normalised, perhaps outside the frame; anything where not valid
    valid: NDArray[np.bool_]  # [N]; False for a blink, low confidence, a lost tracker
    frame_rate: float | None = None  # frames/second, if the track counts frames

    def __post_init__(self) -> None:
        for name, dtype in (("time_seconds", float), ("position", float), ("valid", bool)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        time, position, valid = self.time_seconds, self.position, self.valid
        shapes, n = (time.shape, position.shape, valid.shape), time.size
        if n == 0 or shapes != ((n,), (n, 2), (n,)):
            raise InputError(f"gaze track: received shapes {shapes}; expected [N], [N, 2], [N]")
        if not (np.isfinite(time).all() and (np.diff(time) > 0).all()):
            raise InputError("gaze track: received times out of order; expected increasing seconds")
        if not np.isfinite(position[valid]).all():
            raise InputError("gaze track: received a valid sample at nan or inf; expected numbers")
        if self.frame_rate is not None and not 0 < self.frame_rate < np.inf:
            received = f"gaze track: received {self.frame_rate} frames/s"
            raise InputError(f"{received}; expected a positive rate")

    def frame_times(self, frame_index: ArrayLike, pts_seconds: ArrayLike) -> Floats:
        """Return the times [T] with which to query this track for frames of the video.

        ``frame_index`` [T] counts the frames from 0, ``pts_seconds`` [T] are their times.
        """
        if self.frame_rate is None:
            return np.asarray(pts_seconds, dtype=np.float64)
        return np.asarray(frame_index, dtype=np.float64) / self.frame_rate

    def at(self, time_seconds: ArrayLike) -> Floats:
        """Return the normalised position [T, 2] at the times [T], see :meth:`frame_times`.

        This is causal, as a live system is: the latest valid sample at or before the frame (within
        1 ms) counts, without interpolation towards a later one. On a loss that sample is held until
        it is 100 ms old; then the gaze moves to the centre in a straight line within 150 ms and
        stays there until the next valid sample. Before the first valid sample it is at the centre.
        In slow tracks a sample is held for 1.5 times the median step, or until an invalid one.
        """
        frame_time = np.array(time_seconds, dtype=np.float64, ndmin=1)
        if self.time_seconds.size == 1:
            return np.tile(self.position if self.valid[0] else [[0.5, 0.5]], (frame_time.size, 1))
        by_then = frame_time + CLOCK_SLACK_SECONDS
        latest = np.searchsorted(self.time_seconds, by_then, side="right") - 1
        held, held_until = (of_sample[latest] for of_sample in self._held)
        back = np.clip((frame_time - held_until) / RETURN_SECONDS, 0.0, 1.0)[:, None]
        position: Floats = self.position[held] * (1 - back) + 0.5 * back
        position[(latest < 0) | (held < 0)] = 0.5
        return position

    def pixels(self, time_seconds: ArrayLike, height: int, width: int) -> Tensor:
        """Return the gaze, float32 [T, 2] in px of a height x width frame, at the times [T]."""
        return torch.from_numpy(to_pixels(self.at(time_seconds), height, width)).float()

    @cached_property
    def _held(self) -> tuple[NDArray[np.int_], Floats]:
        """For each sample [N], the latest valid one (-1: none yet), and until when it is held."""
        to_next = np.diff(self.time_seconds)
        to_loss = np.append(np.where(self.valid[1:], np.inf, to_next), np.inf)
        hold = np.maximum(HOLD_SECONDS, np.minimum(HOLD_STEPS * np.median(to_next), to_loss))
        latest = np.maximum.accumulate(np.where(self.valid, np.arange(self.valid.size), -1))
        return latest, (self.time_seconds + hold)[latest]


def fixed(x_norm: float, y_norm: float) -> GazeTrack:
    """Look at one normalised position all the time."""
    return GazeTrack(np.zeros(1), np.array([[x_norm, y_norm]]), np.ones(1, dtype=np.bool_))


def center() -> GazeTrack:
    """Look at the centre of the frame all the time."""
    return fixed(0.5, 0.5)


def parse_point(text: str, units: str = "px", *, frame_size: Size | None = None) -> GazeTrack:
    """Read a fixed gaze "X,Y", as on the command line, in one of :data:`UNITS`.

    ``frame_size`` is (height, width) of the video file; px needs it. Raises InputError for
    anything but two numbers, and for a point outside the frame.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise refusal("gaze", f"{text!r:.200}", "X,Y such as 320,240") from None
    position = to_normalised(np.array([x, y]), units, frame_size)
    if not ((position >= 0) & (position <= 1)).all():
        raise refusal("gaze outside the frame", f"{text!r:.200} in {units}", "a point in it")
    return fixed(*position)


def to_normalised(xy: Floats, units: str, frame_size: Size | None) -> Floats:
    """Turn positions [..., 2] in one of :data:`UNITS` into normalised ones.

    ``frame_size`` is (height, width); px needs it. Raises InputError for other units.
    """
    if units == "px" and frame_size is not None:
        return from_pixels(xy, *frame_size)
    factor_offset = {"norm": (1, 1, 0, 0), "norm_up": (1, -1, 0, 1), "ndc": (0.5, -0.5, 0.5, 0.5)}
    if units not in factor_offset:
        expected = f"one of {', '.join(UNITS)}; the frame size with px"
        raise refusal("gaze", f"the units {units!r:.200}", expected)
    return np.asarray(xy * factor_offset[units][:2] + factor_offset[units][2:])


def refusal(what: str | Path, received: str, expected: str) -> InputError:
    """Return an error that says what was received and what is expected."""
    return InputError(f"{what}: received {received}; expected {expected}")
