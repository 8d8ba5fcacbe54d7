"""Converts the times of a gaze file to times of the video: units, frame numbers, other clocks.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config import InputError
from ..wording import pluralize
from .table import TIME_UNITS, Column, Table, read_table
from .track import Floats, refusal

# fmt: off
_TIME = (
    "time", "t", "timestamp", "timestamps", "seconds", "time stamp", "video time",
    "video timestamp", "pts time", "media time", "media timestamp", "recording timestamp",
    "recording time", "elapsed time", "time elapsed", "gaze time", "sample time", "dt in",
    "timestamp sec", "relative time", "time since start", "elapsed", "pts",
    "sec", "secs", "s", "ms", "msec", "milliseconds", "us", "microseconds", "ns", "nanoseconds",
)
# fmt: on
# fmt: off
_OTHER_CLOCK = (
    "gaze timestamp", "tracking timestamp", "device time stamp", "device timestamp",
    "system time stamp", "system timestamp", "computer timestamp", "eyetracker timestamp",
    "eye tracker timestamp", "unix time", "unix timestamp", "utc", "utc time", "lsl time",
    "lsl timestamp", "datetime", "date time", "pupil timestamp", "eye data timestamp",
    "eye timestamp",
)
# fmt: on
"""Clocks of recorders and computers (docs.pupil-labs.com/core/terminology, Timing; Tobii Pro Lab
user manual, Data export; projectaria_tools, MPS eye gaze: device time). Their zero is arbitrary."""

_SCENE_FRAME = ("world index", "world frame idx", "world frame index", "scene frame")
# fmt: off
_FRAME = (
    "frame", "frame index", "frame idx", "frame number", "frame no", "frame nr", "frame num",
    "frame id", "video frame", "video frame index", "video frame number", "index",
)
# fmt: on

_UNIX_SECONDS = (9e8, 4.2e9)
"""Seconds since 1970 that count as a date: the years 1998 to 2103. Our choice."""
_LONGEST_SECONDS = _UNIX_SECONDS[0] / 10
"""If the video's length is unknown, a track that begins later than this, in seconds, has the times
of another clock. Our choice."""
_FASTEST_STEP, _SLOWEST_STEP = 0.0004, 1.5
"""Likely times between samples, from the shortest to the longest, seconds. The fastest trackers
give 2000 samples a second; a track made by hand has one."""
_STEP_COST = 3.0
"""Cost of an unlikely step for each factor of ten, if a length that differs from the video's by
that factor costs 1. Our choice: a track may cover a part of a video, but its step is known better.
"""
_UNIX_COST = 4.0
"""If a unit turns the times into dates, it is accepted at once up to this cost. Our choice."""
_CLEARLY_BETTER = 0.3
"""A unit must cost less than the usual one by this much: a factor of two. Our choice."""
_ENOUGH_TIMES = 20
"""With at least this many times, the steps alone decide, without the video's length. Our choice."""
_RATE_TOLERANCE = 0.1
"""Relative difference from the video's rate up to which numbers count its frames. Our choice."""
_FAR_LONGER, _SPARE = 1.5, 1
"""A track whose numbers or seconds exceed the video's length times the first value plus the second
one belongs to something else. Our choice."""
_COUNT_TOLERANCE = 0.02
"""Share of the frames, at least two, by which a file of their times may differ from the video.
Our choice: players leave out a frame now and then."""


@dataclass
class Video:
    """The known facts about the video that a track belongs to, and the warnings so far."""

    frame_rate: float | None
    frame_count: int | None
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Its length, None if not known."""
        if self.frame_rate is None or self.frame_count is None:
            return None
        return self.frame_count / self.frame_rate


def video_times(
    table: Table, video: Video, time_unit: str, offset: float
) -> tuple[Floats, float | None]:
    """Return the time [N] of every row in seconds, and the frame rate if the rows count frames.

    ``time_unit`` is the usual one of a time whose header states none, "" if not known. ``offset``
    in seconds is added. Raises InputError if no column gives times.
    """
    column, other_clock = _time_column(table)
    frames = _frame_numbers(table, video, column, time_unit)
    if column is not None:
        beside = _by_world_timestamps(table, video, column, time_unit, frames is not None)
        if beside is not None:
            time, rate = beside
            return time + offset, rate
    if frames is not None and video.frame_rate is not None:
        return frames / video.frame_rate + offset, video.frame_rate
    if column is None:
        names = ", ".join(c.name for c in table.columns)
        expected = "time [s] beside the positions, or frame (from 0) and the frame rate"
        raise refusal(table.path, f"the columns {names!r:.200}, none of them a time", expected)
    time = _seconds(table, video, column, time_unit, warn=True)
    return _from_other_clock(time, video, column, offset, other_clock), None


def _time_column(table: Table) -> tuple[Column | None, bool]:
    """The column with the times, and whether its clock certainly differs from the video's."""
    found = [
        (column, name in _OTHER_CLOCK)
        for name in (*_TIME, *_OTHER_CLOCK)
        if (column := table.find(name)) is not None
        # without a unit, pts are ticks of a time base that the file does not state
        and (name != "pts" or column.unit in TIME_UNITS)
    ]
    for column, other_clock in found:
        if np.isfinite(table.numbers(column)).any():
            return column, other_clock
    return found[0] if found else (None, False)


def _seconds(table: Table, video: Video, column: Column, time_unit: str, *, warn: bool) -> Floats:
    time = table.numbers(column)
    unit, usual = column.unit or column.name, time_unit or "s"
    if unit not in TIME_UNITS:
        unit = _likely_unit(time, usual, video.seconds)
        if warn and unit != usual and not _is_unix(np.nanmedian(time) * TIME_UNITS[unit]):
            step = np.median(np.diff(np.unique(time[np.isfinite(time)])))
            video.warnings.append(
                f"the column {column.name} names no unit; steps of {step:g} were taken for {unit} "
                "(a header such as 'time [s]' states one)"
            )
    return time * TIME_UNITS[unit]


def _likely_unit(time: Floats, usual: str, video_seconds: float | None) -> str:
    """The unit with which the steps fit a tracker, and the length of the track fits the video.

    This is the usual unit, unless another one is clearly better.
    """
    known = np.unique(time[np.isfinite(time)])
    if known.size == 0:
        return usual
    steps = np.diff(known)
    step = float(np.median(steps)) if steps.size else 0.0
    cost = {}
    for unit in ("s", "ms", "us", "ns"):
        scale = TIME_UNITS[unit]
        cost[unit] = 0.0
        if steps.size:
            too_slow = np.log10(step * scale / _SLOWEST_STEP)
            too_fast = np.log10(_FASTEST_STEP / (step * scale))
            cost[unit] += _STEP_COST * max(0.0, too_slow, too_fast)
            if video_seconds:
                cost[unit] += abs(np.log10((known[-1] - known[0]) * scale / video_seconds))
        if _is_unix(np.median(known) * scale) and cost[unit] < _UNIX_COST:
            return unit
    best = min(cost, key=lambda unit: cost[unit])
    enough = video_seconds is not None or known.size >= _ENOUGH_TIMES
    return best if enough and cost[best] < cost[usual] - _CLEARLY_BETTER else usual


def _is_unix(seconds: float) -> bool:
    return _UNIX_SECONDS[0] <= seconds <= _UNIX_SECONDS[1]


def _frame_numbers(
    table: Table, video: Video, time_column: Column | None, time_unit: str
) -> Floats | None:
    """The number of the frame [N] that each row belongs to, from 0; None if no column says it."""
    count = video.frame_count
    for name in (*_SCENE_FRAME, *_FRAME):
        column = table.find(name)
        if column is None:
            continue
        try:
            frames = table.numbers(column)
        except InputError:  # a time code, a name
            continue
        known = frames[np.isfinite(frames)]
        if not known.size:
            continue
        if time_column is not None and name not in _SCENE_FRAME:
            time = _seconds(table, video, time_column, time_unit, warn=False)
            if not _counts_frames(name, frames, time, video):
                continue
        if count is not None and known.min() == 1 and known.max() == count:
            frames = frames - 1
            video.warnings.append(
                f"the column {name} counts from 1 to {count}, the frames of the video; it was "
                "taken to begin with 1"
            )
        return frames
    return None


def _counts_frames(name: str, frames: Floats, time: Floats, video: Video) -> bool:
    """Whether numbers in a table with times count frames, not rows or frames of an eye camera.

    They do if they repeat, have gaps or do not begin at 0 or 1, or if they grow as fast as frames.
    """
    known = np.isfinite(frames) & np.isfinite(time)
    if video.frame_rate is None or known.sum() < 2:
        return name != "index"
    number, seconds = frames[known], time[known]
    if number.size == video.frame_count:
        return True
    counts_rows = np.array_equal(number, np.arange(number.size) + number[0])
    length = float(np.ptp(seconds))
    rate = float(np.ptp(number)) / length if length else np.inf
    as_fast = abs(rate / video.frame_rate - 1) < _RATE_TOLERANCE
    count = video.frame_count
    beyond = count is not None and number.max() >= _FAR_LONGER * count + _SPARE
    if name == "index":
        return as_fast or not counts_rows
    return as_fast or not (counts_rows and beyond)


def _by_world_timestamps(
    table: Table, video: Video, column: Column, time_unit: str, has_frames: bool
) -> tuple[Floats, float] | None:
    """Times and frame rate from Pupil Labs' file of frame times, if it is in the same folder.

    Pupil Cloud: docs.pupil-labs.com/neon/data-collection/data-format, world_timestamps.csv;
    Pupil Player, World Video Exporter: the same name, in seconds of gaze_timestamp.
    """
    path = table.path.parent / "world_timestamps.csv"
    if column.name not in ("timestamp", "gaze timestamp") or not path.is_file():
        return None
    beside = read_table(path)
    theirs = beside.find("timestamp") or beside.find("timestamps")
    if theirs is None:
        return None
    ours_recording, their_recording = table.find("recording id"), beside.find("recording id")
    if ours_recording and their_recording and table.rows:
        ours = table.text(ours_recording)[0]
        beside = beside.keep(np.array([c == ours for c in beside.text(their_recording)]))
    frame_time = _seconds(beside, video, theirs, "", warn=False)
    frame_time = frame_time[np.isfinite(frame_time)]
    time = _seconds(table, video, column, time_unit, warn=False)
    known = time[np.isfinite(time)]
    ordered = frame_time.size > 1 and bool((np.diff(frame_time) > 0).all())
    if not ordered or not known.size:
        return None
    if known.max() < frame_time[0] or known.min() > frame_time[-1]:
        video.warnings.append(f"{path.name} beside it is of another recording or time; not used")
        return None
    count = frame_time.size
    differ = max(2, _COUNT_TOLERANCE * count)
    if video.frame_count is not None and abs(count - video.frame_count) > differ:
        if has_frames:
            return None
        video.warnings.append(
            f"{path.name} beside it has {pluralize(count, 'frame')}, the video "
            f"{video.frame_count}; the first frames are taken to be the same"
        )
    rate = float((count - 1) / (frame_time[-1] - frame_time[0]))
    number = np.interp(time, frame_time, np.arange(count))
    number = np.where(time < frame_time[0], (time - frame_time[0]) * rate, number)
    number = np.where(time > frame_time[-1], count - 1 + (time - frame_time[-1]) * rate, number)
    return number / rate, rate


def _from_other_clock(
    time: Floats, video: Video, column: Column, offset: float, other_clock: bool
) -> Floats:
    """Times in seconds of the video; times of another clock are counted from the first row."""
    known = time[np.isfinite(time)]
    if not known.size:
        return time
    length = video.seconds

    def meets(shift: float) -> bool:
        if length is None:
            return bool(abs(known.min() + shift) < _LONGEST_SECONDS)
        return bool(known.max() + shift >= 0 and known.min() + shift <= length)

    if meets(0.0) and not other_clock:
        return time + offset
    if offset and meets(offset):
        return time + offset
    video.warnings.append(
        f"{column.name} begins at {known.min():.3f} s, by another clock than the video's; times "
        "are counted from the first row (--gaze-offset SECONDS shifts them)"
    )
    return np.asarray(time - known.min() + offset)


def check_overlap(path: Path, time: Floats, video: Video, by_frame: bool) -> None:
    """Compare the times [N] of valid samples with the video.

    Raises InputError if no frame has a sample; warns if most frames have none, or if the track is
    far longer than the video.
    """
    length = video.seconds
    if length is None or video.frame_rate is None or time.size < 2:
        return
    first, last = float(time.min()), float(time.max())
    last_shown = last + float(np.median(np.diff(np.unique(time)))) if first < last else last

    def format_span(begin: float, end: float) -> str:
        if by_frame and video.frame_rate is not None:
            begin, end = (round(t * video.frame_rate) for t in (begin, end))
            return f"frames {begin} to {end}"
        return f"{begin:.3f} to {end:.3f} s"

    frames = f"{video.frame_count} frames" if by_frame else f"{length:.3f} s"
    if last_shown < 0 or first > length - 0.5 / video.frame_rate:
        expected = f"some that meets the video's {frames}; --gaze-offset SECONDS shifts it"
        raise refusal(path, f"gaze from {format_span(first, last)}", expected)
    met = max(0.0, min(last_shown, length) - max(first, 0.0))
    span = f"the gaze lasts from {format_span(first, last)}, the video {frames}"
    if met < 0.5 * length:
        video.warnings.append(
            f"{span}: {100 * met / length:.0f} % of the video have gaze; the other frames look at "
            "the centre (--gaze-offset SECONDS shifts the gaze)"
        )
    begin, end = (1 - _FAR_LONGER) * length - _SPARE, _FAR_LONGER * length + _SPARE
    if last > end or first < begin:
        video.warnings.append(
            f"{span}: what lies outside is not used; is it the track of this video, of this part?"
        )
