"""One video and the current position in it: the frame that is shown and the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

from ..config import InputError
from ..video import Frame, VideoReader

MAX_PIXELS = 4096 * 2304  # of a frame; our choice
SEEK_BY_DECODING_SECONDS = 1.0  # shorter seeks forward decode the frames between; our choice


class Player:
    """Steps through a video in constant memory: two frames, whatever its length.

    Attributes: ``reader``; ``frame``, the frame that is shown; ``next_frame``, the one after it,
    None at the end.

    Raises InputError if the file is not a video, has alpha or is larger than 4096 x 2304.
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
        self._number: int | None = None  # of the shown frame; None if it was not counted
        self.rewind()

    def rewind(self) -> None:
        """Go to the first frame."""
        self._start(self.reader.seek(0.0), 0)

    def _start(self, frames: Generator[Frame, None, None], number: int | None) -> None:
        first = next(frames)  # first of all, so that an error leaves everything unchanged
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
        """Skip the frames that end before a time of the video.

        If the decoder is too slow for that, skipping stops after ``timeout_seconds``.
        """
        until = time.perf_counter() + timeout_seconds
        while self.next_frame is not None and self.next_frame.pts_seconds <= seconds:
            self.advance()
            if time.perf_counter() > until:
                break

    def seek(self, seconds: float, wanted: Callable[[], bool]) -> None:
        """Go to the frame that is shown at a time, or to the last one; stop if ``wanted`` returns
        False."""
        if not 0.0 <= seconds - self.frame.pts_seconds <= SEEK_BY_DECODING_SECONDS:
            self._start(self.reader.seek(seconds, wanted), None)
        while self.next_frame is not None and self.next_frame.pts_seconds <= seconds and wanted():
            self.advance()

    @property
    def frame_number(self) -> int:
        """The shown frame's number from 0; after a seek, computed by the mean rate."""
        if self._number is not None:
            return self._number
        return round(self.frame.pts_seconds * self.reader.frame_rate)

    def counted_frame_number(self) -> int:
        """The shown frame's exact number from 0; the first call after a seek reads the file."""
        if self._number is None:
            self._number = self.reader.frame_number(self.frame.pts_seconds)
        return self._number

    @property
    def duration(self) -> float | None:
        """Seconds; None if the file does not state its number of frames."""
        count = self.reader.frame_count
        return None if count is None else float(count / self.reader.frame_rate)

    @property
    def interval(self) -> float:
        """Mean interval between frames, seconds."""
        return float(1 / self.reader.frame_rate)

    def close(self) -> None:
        """Release the file."""
        self.reader.close()

    def _read(self) -> Frame | None:
        assert self._frames is not None
        try:
            return next(self._frames, None)
        except InputError:  # damaged from here on, so the video ends here
            return None
