"""Seeking: decoding starts at the last key frame before a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av

from ..config import InputError
from .clock import demux_video

SEEK_BACK_SECONDS = (0.0, 1.0, 4.0, 16.0)
"""Seconds to go back before the time: some containers otherwise find a place after its key frame.
Our choice."""


class TimedFrame(NamedTuple):
    """A decoded frame, its file, its number among the decoded frames, and its time in seconds."""

    file: Path
    number: int
    frame: Any
    seconds: float


def from_key_frame(
    container: Any, stream: Any, seconds: float
) -> tuple[Iterator[Any], float] | None:
    """Packets from the last key frame on that is shown at or before a time, and its own time.

    The caller has to leave out frames that are shown before this key frame although they are stored
    after it, as they may depend on frames before it.

    Args:
        container: the container, just opened.
        stream: a stream of the container.
        seconds: the time, by the file's own clock.

    Returns:
        None if the file has no times or the container cannot seek.
    """
    for earlier in SEEK_BACK_SECONDS:
        try:
            container.seek(int((seconds - earlier) / stream.time_base), stream=stream)
            packets = demux_video(container, stream)
            key = next((packet for packet in packets if packet.is_keyframe), None)
        except (av.FFmpegError, OverflowError):
            return None
        if key is None:
            continue
        if key.pts is None:
            return None
        shown = float(key.pts * stream.time_base)
        if shown <= seconds:
            return chain([key], packets), shown
    return None


def skip_until(
    frames: Iterator[TimedFrame], seconds: float, wanted: Callable[[], bool]
) -> Iterator[TimedFrame]:
    """Skip frames until the one that is shown at a time, or the last one.

    Skipping ends earlier if ``wanted`` returns False.

    Raises:
        InputError: ``frames`` raises it; the last frame before that is still returned.
    """
    before: TimedFrame | None = None
    try:
        for here in frames:
            if before is not None and (here.seconds > seconds or not wanted()):
                yield before
                before = None
                yield here
                break
            before = here
    except InputError:
        if before is not None:
            yield before
        raise
    if before is not None:
        yield before
    yield from frames
