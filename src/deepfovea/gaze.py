"""Where the eye looks: fixed points, recorded tracks, synthetic saccades, display geometry.

A *normalised* position is 0 to 1 across the frame, edge to edge, x right, y down. Tracks are
kept so, and fit every resolution. Gaze in *px* is in pixels of a frame, x right, y down, origin
at the centre of the top-left pixel: px = norm * width - 0.5. Time 0 is the first frame.
Legend: N samples of a track; T frames; h, w low resolution.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .config import InputError

Floats = NDArray[np.float64]
Size = tuple[int, int]  # height, width

UNITS = ("px", "norm", "ndc", "norm_up")
"""Units of positions in files and on the command line: pixels of the video file; normalised;
-1 to 1 edge to edge with y *up* (OpenXR); normalised with y *up* from the bottom (Pupil Core)."""

HOLD_SECONDS = 0.100
RETURN_SECONDS = 0.150
CLOCK_SLACK_SECONDS = 0.001  # containers and trackers round their times to milliseconds


def to_pixels(position: ArrayLike, height: int, width: int) -> Floats:
    """Turn normalised positions [..., 2] into pixels [..., 2] of a height x width frame."""
    return np.asarray(position, dtype=np.float64) * (width, height) - 0.5


def from_pixels(pixels: ArrayLike, height: int, width: int) -> Floats:
    """Turn pixels [..., 2] of a height x width frame into normalised positions [..., 2]."""
    return (np.asarray(pixels, dtype=np.float64) + 0.5) / (width, height)


@dataclass(frozen=True, eq=False)
class GazeTrack:
    """Where one eye looked: samples over time, as a value, whatever the resolution.

    A track of one sample is a constant. Raises InputError if the arrays do not fit together.
    """

    time_seconds: Floats  # [N], increasing
    position: Floats  # [N, 2] normalised, perhaps outside the frame; anything where not valid
    valid: NDArray[np.bool_]  # [N]; False for a blink, low confidence, a lost tracker

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

    def at(self, time_seconds: ArrayLike) -> Floats:
        """Return the normalised position [T, 2] at the times [T] in seconds.

        Causal, as a live system is: the latest valid sample at or before the frame (within
        1 ms), never a mixture with a later one. On loss that sample is held until it is 100 ms
        old, then the gaze moves back to the centre in a straight line within 150 ms and stays
        there until a valid sample comes. Before the first valid sample it is at the centre.
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
        """Per sample [N]: the latest valid sample, -1 if none yet; until when that is held."""
        to_next = np.diff(self.time_seconds)
        to_loss = np.append(np.where(self.valid[1:], np.inf, to_next), np.inf)
        hold = np.maximum(HOLD_SECONDS, np.minimum(1.5 * np.median(to_next), to_loss))
        latest = np.maximum.accumulate(np.where(self.valid, np.arange(self.valid.size), -1))
        return latest, (self.time_seconds + hold)[latest]


def fixed(x_norm: float, y_norm: float) -> GazeTrack:
    """Look at one normalised position for ever."""
    return GazeTrack(np.zeros(1), np.array([[x_norm, y_norm]]), np.ones(1, dtype=np.bool_))


def center() -> GazeTrack:
    """Look at the centre of the frame for ever."""
    return fixed(0.5, 0.5)


def random_point(seed: int | Sequence[int], height: int = 180, width: int = 320) -> GazeTrack:
    """Look at one random point for the whole video, as published (Reich, Memmel, Grebe 2020).

    Uniform in [50, width - 50] x [50, height - 50] px of the low-resolution frame. A side
    shorter than the published 180 px has its margin reduced in proportion.
    """
    side = np.array([width, height], dtype=np.float64)
    margin = np.minimum(50.0, side * 50.0 / 180.0)
    pixels = np.random.default_rng(seed).uniform(margin, side - margin)
    return fixed(*from_pixels(pixels, height, width))


@dataclass(frozen=True)
class DisplayGeometry:
    """A flat display with square pixels, before an eye on its central axis.

    Video of any resolution fills the display. Raises InputError for values out of range.
    """

    horizontal_fov_deg: float  # the angle that the width subtends, between 0 and 180
    width_px: int  # the display's own pixels
    height_px: int

    def __post_init__(self) -> None:
        if not (0 < self.horizontal_fov_deg < 180 and self.width_px > 0 and self.height_px > 0):
            raise InputError(f"received {self}; expected 0 to 180 degrees and positive sizes")

    @property
    def pixels_per_degree(self) -> float:
        """Display pixels per degree at the centre of the display; more towards the edges."""
        distance_px = self.width_px / 2 / math.tan(math.radians(self.horizontal_fov_deg) / 2)
        return distance_px * math.radians(1)

    def eccentricity_deg(self, gaze_px: Tensor, height: int, width: int) -> Tensor:
        """Return the angle [..., h, w] between the gaze and every pixel, in degrees.

        gaze_px is [..., 2] in px of the h x w frame, which fills the display. The angle is that
        between the two view directions, not pixels / pixels_per_degree.
        """
        half_x = math.tan(math.radians(self.horizontal_fov_deg) / 2)
        half_y = half_x * self.height_px / self.width_px

        def direction(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (x, y, 1), not unit length
            return half_x * ((2 * x + 1) / width - 1), half_y * ((2 * y + 1) / height - 1)

        gaze = gaze_px if gaze_px.is_floating_point() else gaze_px.float()
        x, y = direction(torch.arange(width).to(gaze), torch.arange(height).to(gaze)[:, None])
        gaze_x, gaze_y = direction(gaze[..., 0, None, None], gaze[..., 1, None, None])
        # arctan(|a x b|, a . b) keeps its precision at small angles, where arccos has none
        cross = ((gaze_x - x) ** 2 + (gaze_y - y) ** 2 + (gaze_x * y - gaze_y * x) ** 2).sqrt()
        return torch.rad2deg(torch.atan2(cross, 1 + gaze_x * x + gaze_y * y))


DEFAULT_DISPLAY = DisplayGeometry(horizontal_fov_deg=40.0, width_px=1024, height_px=768)
"""The published output size as a window on a desk: about 25 pixels per degree."""


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


def parse_point(text: str, units: str = "px", *, frame_size: Size | None = None) -> GazeTrack:
    """Read a fixed gaze "X,Y", as on the command line, in one of :data:`UNITS`.

    ``frame_size`` is (height, width) of the video file; px needs it. Raises InputError for
    anything but two numbers, and for a point outside the frame.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise _refusal("gaze", f"{text!r:.200}", "X,Y such as 320,240") from None
    position = _normalised(np.array([x, y]), units, frame_size)
    if not ((position >= 0) & (position <= 1)).all():
        raise _refusal("gaze outside the frame", f"{text!r:.200} in {units}", "a point in it")
    return fixed(*position)


def read_track(
    path: str | Path,
    *,
    units: str | None = None,
    frame_size: Size,
    frame_rate: float | None = None,
    time_offset_seconds: float = 0.0,
    min_confidence: float = 0.6,
) -> GazeTrack:
    """Read a recorded track from a CSV file (UTF-8; comma, semicolon or tab; decimal point).

    ``frame_size`` is (height, width) of the video as displayed, ``frame_rate`` its frames/second;
    ``time_offset_seconds`` is added to every time. Column names, free in case and brackets:

    * Own schema: ``time`` in seconds from the first frame (or ``t``, ``timestamp``,
      ``time_seconds``), or ``frame`` from 0, which needs ``frame_rate``; ``x`` and ``y``;
      optionally ``confidence`` (below ``min_confidence`` is invalid), ``blink`` (true is
      invalid), ``valid`` (false is invalid). Units, one of :data:`UNITS`, are stated by the
      columns (``x [norm]``, ``x_px``), else by ``units``; stated nowhere they are px.
    * Pupil Labs ``gaze.csv`` (Neon, Invisible; px; a ``blink id`` or ``worn`` = 0 is invalid) and
      ``gaze_positions.csv`` (Core; from the bottom left); time 0 is then the earliest row.

    Rows are sorted by time; of equal times the last row counts. A row without a time is skipped,
    one without a position is invalid. Positions outside the frame are kept. Raises InputError
    if the file cannot be read so, or has no valid sample inside the frame.
    """
    columns = _read_columns(path)
    seconds = _SECONDS | _OWN_CLOCK | ({"frame": 1 / float(frame_rate)} if frame_rate else {})
    time_name = next((name for name in seconds if name in columns), "")
    known = (names for names in _POSITION if {*names[:2]} <= columns.keys())
    x_name, y_name, stated = next(known, ("", "", ""))
    if not time_name or not x_name:
        expected = "time (or frame, and the frame rate given), x and y in the first line"
        raise _refusal(path, f"the columns {', '.join(columns)!r:.200}", expected)
    time = _numbers(path, columns, time_name) * seconds[time_name]
    if time_name in _OWN_CLOCK:
        time -= np.min(time, where=np.isfinite(time), initial=np.inf)
    time += time_offset_seconds
    stated = stated or units or ""
    xy = np.stack([_numbers(path, columns, name) for name in (x_name, y_name)], axis=1)
    position = _normalised(xy, stated or "px", frame_size)
    valid = np.array(np.isfinite(position).all(axis=1))
    if "confidence" in columns:
        valid &= _numbers(path, columns, "confidence") >= min_confidence
    for name, unless in (("blink_id", ("",)), ("blink", ("", *_FALSE))):
        valid &= np.isin(columns.get(name, ""), unless)
    for name in ("worn", "valid"):
        valid &= ~np.isin(columns.get(name, ""), _FALSE)

    order = np.argsort(time, kind="stable")
    order = order[np.isfinite(time[order])]
    order = order[np.diff(time[order], append=np.inf) > 0]
    seen = position[order[valid[order]]]
    choice = f"{stated or 'px'}; the units are probably wrong: state one of {', '.join(UNITS)}"
    if not seen.size:
        raise _refusal(path, "no valid sample", "one at least")
    if time[order[0]] > 1e6:
        raise _refusal(path, f"times from {time[order[0]]:.0f} s on", "0 at the first frame")
    if not ((seen >= 0) & (seen <= 1)).all(axis=1).any():
        raise _refusal(path, "no position inside the frame", f"some in {choice}")
    if not stated and np.abs(to_pixels(seen, *frame_size)).max() <= 1:
        raise _refusal(path, "only positions from -1 to 1", f"some others in {choice}")
    return GazeTrack(time[order], position[order], valid[order])


_SECONDS = dict.fromkeys(("time", "t", "time_seconds", "timestamp"), 1.0)
_OWN_CLOCK = {"gaze_timestamp": 1.0, "timestamp_ns": 1e-9}  # of the recorder, not of the video
_POSITION = [("norm_pos_x", "norm_pos_y", "norm_up"), ("gaze_x_px", "gaze_y_px", "px")]
_POSITION += [("x", "y", ""), *((f"x_{units}", f"y_{units}", units) for units in UNITS)]
_FALSE = ("0", "0.0", "false", "no")


def _read_columns(path: str | Path) -> dict[str, list[str]]:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        header, first, *rest = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except OSError as error:
        raise _refusal(path, f"an error ({error.strerror})", "a readable CSV file") from None
    except (ValueError, csv.Error):
        raise _refusal(path, "no rows, or no text", "CSV in UTF-8: names, then rows") from None
    rows = [[cell.strip().lower() for cell in row] for row in (first, *rest)]
    columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(len(header))]
    names = (re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in header)
    return dict(zip(names, columns, strict=True))


def _numbers(path: str | Path, columns: dict[str, list[str]], name: str) -> Floats:
    values = np.full(len(columns[name]), np.nan)
    for i, cell in enumerate(columns[name]):
        try:
            values[i] = float(cell or "nan")
        except ValueError:
            found = f"{cell!r:.200} as {name} in row {i + 2}"
            raise _refusal(path, found, "a number with a decimal point, or nothing") from None
    values[np.abs(values) > 1e30] = np.nan  # as good as infinite, and sums would overflow
    return values


def _normalised(xy: Floats, units: str, frame_size: Size | None) -> Floats:
    if units == "px" and frame_size is not None:
        return from_pixels(xy, *frame_size)
    factor_offset = {"norm": (1, 1, 0, 0), "norm_up": (1, -1, 0, 1), "ndc": (0.5, -0.5, 0.5, 0.5)}
    if units not in factor_offset:
        expected = f"one of {', '.join(UNITS)}; the frame size with px"
        raise _refusal("gaze", f"the units {units!r:.200}", expected)
    return np.asarray(xy * factor_offset[units][:2] + factor_offset[units][2:])


def _refusal(what: str | Path, received: str, expected: str) -> InputError:
    return InputError(f"{what}: received {received}; expected {expected}")
