"""The position in one video: the frame that is shown and the one that comes next."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

from ..config import InputError
from ..video import Frame, VideoReader

MAX_PIXELS = 4096 * 2304
SEEK_BY_DECODING_SECONDS = 1.0  # shorter seeks forward decode on instead of jumping


class Player:
    """Steps through a video in constant memory: two frames, whatever its length.

    Attributes: ``reader``; ``frame``, the one shown; ``next_frame``, the one after it, None at
    the end.

    Raises InputError for what is no video, has alpha or is larger than 4096 x 2304.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            self.reader = VideoReader(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None
        if self.reader.has_alpha:
            raise InputError(f"{name}: received a video with alpha; expected one without")
        if self.reader.width * self.reader.height > MAX_PIXELS:
            raise InputError(
                f"{name}: received {self.reader.width}x{self.reader.height}; "
                "expected at most the pixels of 4096x2304: scale it down"
            )
        self._frames: Generator[Frame, None, None] | None = None
        self._number: int | None = None  # of the frame shown; None if nobody has counted
        self.rewind()

    def rewind(self) -> None:
        """Go to the first frame."""
        self._start(self.reader.seek(0.0), 0)

    def _start(self, frames: Generator[Frame, None, None], number: int | None) -> None:
        first = next(frames)  # what cannot be shown leaves everything as it was
        if self._frames:
            self._frames.close()
        self.frame, self._frames, self._number = first, frames, number
        self.next_frame = self._read()

    def advance(self) -> bool:
        """Go to the next frame; False at the end."""
        if self.next_frame is None:
            return False
        self.frame, self.next_frame = self.next_frame, self._read()
        if self._number is not None:
            self._number += 1
        return True

    def catch_up(self, seconds: float, timeout_seconds: float) -> None:
        """Skip the frames that are already over at a time of the video.

        Skipping stops after ``timeout_seconds``, where the decoder is slower than that.
        """
        until = time.perf_counter() + timeout_seconds
        while self.next_frame is not None and self.next_frame.pts_seconds <= seconds:
            self.advance()
            if time.perf_counter() > until:
                break

    def seek(self, seconds: float, wanted: Callable[[], bool]) -> None:
        """Go to the frame shown at a time, or to the last; give up when no longer wanted."""
        if not 0.0 <= seconds - self.frame.pts_seconds <= SEEK_BY_DECODING_SECONDS:
            self._start(self.reader.seek(seconds, wanted), None)
        while self.next_frame is not None and self.next_frame.pts_seconds <= seconds and wanted():
            self.advance()

    @property
    def frame_number(self) -> int:
        """The shown frame's number from 0; after a seek at a variable rate, by the mean rate."""
        if self._number is not None:
            return self._number
        return round(self.frame.pts_seconds * self.reader.frame_rate)

    def counted_frame_number(self) -> int:
        """The shown frame's number from 0, counted; the first time after a seek reads the file."""
        if self._number is None:
            self._number = self.reader.frame_number(self.frame.pts_seconds)
        return self._number

    @property
    def duration(self) -> float | None:
        """Seconds, where the file says how many frames it has."""
        count = self.reader.frame_count
        return None if count is None else float(count / self.reader.frame_rate)

    @property
    def interval(self) -> float:
        """Mean seconds from frame to frame."""
        return float(1 / self.reader.frame_rate)

    def close(self) -> None:
        """Release the file."""
        self.reader.close()

    def _read(self) -> Frame | None:
        assert self._frames is not None
        try:
            return next(self._frames, None)
        except InputError:  # damaged from here on: what could be decoded is the video
            return None
