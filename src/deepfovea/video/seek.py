"""Seeking: decoding begins at the last key frame before a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av

from ..config import InputError
from .clock import demux_video

SEEK_BACK_SECONDS = (0.0, 1.0, 4.0, 16.0)
"""Seconds before the time at which to look: some containers find a place behind the key frame."""


class TimedFrame(NamedTuple):
    """A decoded frame, the file it is in, its place among those decoded, its time in seconds."""

    file: Path
    place: int
    frame: Any
    seconds: float


def from_key_frame(
    container: Any, stream: Any, seconds: float
) -> tuple[Iterator[Any], float] | None:
    """Packets from a key frame on that is shown at a time or before it, and when it is shown.

    Frames that are shown before that key frame and stored behind it may need what lies in front
    of it: they are to be left out.

    Args:
        container: freshly opened.
        stream: of the container.
        seconds: in the file's own time.

    Returns:
        None where the file does not tell: it has no times, or the container cannot seek.
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
    """From the frame shown at a time on, or the last; from where ``wanted`` says no, if earlier.

    Raises:
        InputError: as ``frames`` does, but not before the last frame that there is.
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
