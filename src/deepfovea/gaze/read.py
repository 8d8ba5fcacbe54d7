"""Reads a gaze file as a track, and checks it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from .clock import Video, check_overlap, video_times
from .formats import positions, refuse_mixture, samples_only, validity
from .table import Table, read_table
from .track import MIN_CONFIDENCE, UNITS, Floats, GazeTrack, Size, refusal, to_normalised, to_pixels

_log = logging.getLogger(__name__)

_FEW_INSIDE, _MOST_INSIDE = 0.1, 0.5
"""Limits for the share of valid samples that lie inside the frame: a track with less than the first
is refused, and one with less than the second causes a warning. Our choice."""
_ENOUGH_ROWS = 20
"""With at least this many times, the track is searched for times that go back. Our choice."""
_RESTART, _FEW_FALLS = 0.3, 0.1
"""Another recording begins where times go back by at least the first value, as a share of the whole
time. If times go back at more rows than the second value, as a share of all rows, the rows are only
out of order. Our choice."""
_SHAPE_TOLERANCE = 0.01
"""Two screens have the same shape if width / height differs by at most this share. Our choice:
1366×768 counts as 16:9."""


def read_track(
    path: str | Path,
    *,
    units: str | None = None,
    frame_size: Size,
    frame_rate: float | None = None,
    frame_count: int | None = None,
    time_offset_seconds: float = 0.0,
    min_confidence: float = MIN_CONFIDENCE,
) -> GazeTrack:
    """Read a recorded track from a text file; ``docs/formats.md`` lists what is understood.

    Our own schema is CSV with ``time`` (seconds from the first frame) or ``frame`` (from 0), ``x``
    and ``y``, and optionally ``confidence``, ``blink``, ``valid``. Exports of Pupil Labs, Tobii,
    EyeLink, SMI and Gazepoint are known by their columns.

    Args:
        path: UTF-8, UTF-16 or Windows-1252; cells between commas, semicolons, tabs, bars or spaces.
        units: one of :data:`UNITS` where the columns do not state them; px unless given.
        frame_size: (height, width) of the video as displayed.
        frame_rate: its mean frames/second; a track by frame number needs it.
        frame_count: the number of its frames; with the rate, times are compared with the video.
        time_offset_seconds: added to every time.
        min_confidence: a confidence below it makes a sample invalid.

    Rows are sorted by time; of rows with equal times, the last valid one counts. A row without a
    time is skipped, and one without a position is invalid. Positions outside the frame are kept.
    Assumptions are logged as warnings.

    Raises:
        InputError: the file cannot be read, has no valid sample, contains several recordings, has
            nearly all positions outside the frame, or has no sample for any frame of the video.
    """
    table = samples_only(read_table(path))
    path, video = table.path, Video(frame_rate, frame_count)
    if frame_rate is not None and not frame_rate > 0:
        video.frame_rate = None
    xy, valid, stated, time_unit, of_media = positions(table)
    valid = valid & validity(table, min_confidence)
    time, counted_rate = video_times(table, video, time_unit, time_offset_seconds)
    valid &= np.isfinite(time)
    refuse_mixture(table, valid)
    _refuse_restart(table, time)

    if not valid.any():
        expected = "one at least; look at its columns of validity and confidence"
        raise refusal(path, "no valid sample", expected)
    chosen = stated or units or ""
    position = _position(table, video, xy, chosen, frame_size, of_media)
    _check_inside(path, video, position[valid], chosen, frame_size)
    if counted_rate is not None and video.frame_rate is not None:
        video.frame_rate = counted_rate
    check_overlap(path, time[valid], video, counted_rate is not None)
    for warning in video.warnings:
        _log.warning("%s: %s", path, warning)

    order = np.lexsort((valid, time))  # rows with equal times: valid ones last
    order = order[np.isfinite(time[order])]
    order = order[np.diff(time[order], append=np.inf) > 0]
    return GazeTrack(time[order], position[order], valid[order], counted_rate)


def _refuse_restart(table: Table, time: Floats) -> None:
    """Refuse a file in which the times start again, but allow a few rows out of order."""
    known = np.flatnonzero(np.isfinite(time))
    if known.size < _ENOUGH_ROWS:
        return
    back = np.diff(time[known])
    falls = np.flatnonzero(back < -_RESTART * np.ptp(time[known]))
    few = _FEW_FALLS * known.size
    if 0 < falls.size <= few and (back < 0).sum() <= few:
        at = int(known[falls[0] + 1])
        received = (
            f"times that go back from {time[known[falls[0]]]:.3f} to {time[at]:.3f} s in row "
            f"{table.rows[at][0]}"
        )
        raise refusal(table.path, received, "one recording: keep the rows of one")


def _position(
    table: Table, video: Video, xy: Floats, units: str, frame_size: Size, of_media: bool
) -> Floats:
    """Normalised positions [N, 2]; the screen that a file states counts as filled by the video.

    Raises InputError if the screen has another shape than the frame.
    """
    screen = None if units not in ("", "px") or of_media else _screen(table)
    if screen is None or screen == frame_size:
        return to_normalised(xy, units or "px", frame_size)
    names = [f"{width}x{height}" for height, width in (screen, frame_size)]
    if abs(screen[0] * frame_size[1] / (screen[1] * frame_size[0]) - 1) > _SHAPE_TOLERANCE:
        received = f"pixels of a screen of {names[0]} for a video of {names[1]}"
        expected = "positions in the video, of which nobody knows where on the screen it lay"
        raise refusal(table.path, received, f"{expected}: convert them, and name them x [norm]")
    video.warnings.append(
        f"pixels of a screen of {names[0]}; the video of {names[1]} is taken to have filled it"
    )
    return to_normalised(xy, "px", screen)


def _screen(table: Table) -> Size | None:
    """The size of the screen, from the file's header or from Tobii's columns."""
    sides = [table.find(f"recording resolution {side}") for side in ("height", "width")]
    if table.screen is None and sides[0] is not None and sides[1] is not None:
        height, width = (np.nanmax(table.numbers(c), initial=0) for c in sides if c is not None)
        return (int(height), int(width)) if height > 0 and width > 0 else None
    return table.screen


def _check_inside(path: Path, video: Video, seen: Floats, units: str, frame_size: Size) -> None:
    """Compare the valid positions [N, 2] with the frame."""
    inside = np.all((seen >= 0) & (seen <= 1), axis=1)
    choice = f"{units or 'px'}; the units are probably wrong: state one of {', '.join(UNITS)}"
    size = f"{frame_size[1]}x{frame_size[0]}"
    pixels = to_pixels(seen, *frame_size)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    reach = f"they reach from {low[0]:.0f},{low[1]:.0f} to {high[0]:.0f},{high[1]:.0f} px"
    if not inside.any():
        received = f"no position inside the frame of {size} ({reach})"
        raise refusal(path, received, f"some in {choice}, or scale those of another screen")
    if inside.mean() < _FEW_INSIDE:
        received = f"{100 * inside.mean():.0f} % of the positions inside the frame of {size}"
        expected = f"most in {choice}, or scale those of another screen"
        raise refusal(path, f"{received} ({reach})", expected)
    if not units and np.abs(pixels).max() <= 1:
        raise refusal(path, "only positions from -1 to 1", f"some others in {choice}")
    if inside.mean() < _MOST_INSIDE:
        video.warnings.append(
            f"only {100 * inside.mean():.0f} % of the positions are inside the frame of {size} "
            f"({reach}); are they of this video, in these units?"
        )
