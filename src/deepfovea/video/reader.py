"""Video files and folders of images as an iterator of frames."""

from __future__ import annotations

import itertools
import logging
import os
import weakref
from bisect import bisect
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import av
import numpy as np

from ..config import InputError
from .clock import frame_times, scan
from .container import (
    DEFAULT_FRAME_RATE,
    IMAGE_SUFFIXES,
    MAX_FRAME_RATE,
    MIN_FRAME_RATE,
    RADIANCE_SUFFIXES,
    checked_rate,
    fraction,
    open_media,
    refuse,
    video_stream,
)
from .decode import LOSSY_ALPHA, Decoded, Source, decode, open_source
from .folder import list_images, odd_numbering
from .hardware import checked_hwaccel
from .rgb import ToRgb, hdr_curve, unusual_colours
from .seek import TimedFrame, from_key_frame, skip_until

MAX_UNTIMED_FRAMES = 250
"""If a file begins with frames without a time, at most so many are decoded to find the first frame
with one. Our choice."""

MAX_SCAN_BYTES = 2**28
"""A file whose clock may break is searched for such breaks when it is opened, if it has at most so
many bytes. Our choice."""

_TIME_TOLERANCE_SECONDS = 1e-6
"""Times of the same frame may differ by so much, seconds, as they are rounded."""

_HIDDEN_SHARE = 0.98
"""If a video's length has room for less than this share of its frames, less one, an edit list hides
the others. Our choice, as lengths are rounded."""

_CUT_SHORT_SHARE = 0.9
"""If a video's frames end before this share of its length, a warning says so. Our choice."""

_STEP_SECONDS = 0.001
"""Interval between two frames to which the file gives the same time, or falling ones. Our choice:
the smallest interval that all containers can store."""

MAX_CONSTANT_RATE = Fraction(60)
"""Upper limit of ``constant_rate``, frames per second, for a video of variable rate whose mean is
lower. Our choice."""

TONE_MAPPED = (
    "SDR; tone-map it first: ffmpeg -i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,"
    "zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p OUT"
)
"""The end of the message about HDR. We cannot do it here, as FFmpeg's tonemap needs zscale, which
PyAV's wheels lack."""

_log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """One frame: ``image`` is uint8 [H, W, 3] RGB or [H, W, 4] RGBA, ``pts_seconds`` its time.

    ``number`` counts the frames of the source from 0, including images that are left out.
    """

    image: np.ndarray
    pts_seconds: float
    number: int


def read_clip(path: str | Path, count: int, *, skip_unreadable: bool = False) -> np.ndarray:
    """Read the first ``count`` frames, or all if there are fewer: uint8 [T, H, W, 3], no alpha."""
    with VideoReader(path, skip_unreadable=skip_unreadable) as reader:
        return np.stack([frame.image[..., :3] for frame in itertools.islice(reader, count)])


class VideoReader:
    """The frames of a video file, of a folder of images, or of one image, in the order shown.

    Iterating decodes lazily, in constant memory. Every iteration starts at the first frame.
    ``with`` (or :meth:`close`) ends the iterations that are still open.

    Times are those of the file, also at a variable frame rate, but shifted so that the first frame
    is at 0; :attr:`start_seconds` is that shift. They increase strictly. If a time is missing, it
    is one mean frame interval after the time before, or at the beginning before the first known
    one. A time that does not increase is moved to 1 ms after the one before. If the clock of a file
    starts again, as in joined transport streams, the times continue. Images are ``1 / frame_rate``
    apart (24 per second unless given), as are the pages of a TIFF. A video takes a ``frame_rate``
    only if it has no times (a raw stream).

    Colours follow the matrix and the range that the file states. Without a matrix, BT.709 is
    assumed from a width of 1280 pixels or above a height of 576 pixels, else BT.601. Other
    primaries (BT.2020, P3, BT.601, an ICC profile) are converted to those of BT.709. More than 8
    bits are rounded to 8. HDR (PQ, HLG) is refused. Interlaced frames are deinterlaced. The
    container's crop, rotation and mirroring are applied, also those of Exif. All frames must have
    the size of the first. The first frame also decides whether the video has alpha: GIF, WebP, JPEG
    and palettes have it only if that frame uses it. A later frame that differs in this is an error.

    With ``hwaccel`` ``cuda``, an NVIDIA GPU decodes a video file if it can, and a warning says why
    if it cannot.

    With ``skip_unreadable``, frames that cannot be read, have another size or differ in alpha are
    left out, and so is everything after the damage in a video file; warnings say so.

    Attributes: ``path``, ``name``, ``width`` and ``height`` in pixels, ``frame_rate`` (mean, in
    1/s, a Fraction), ``constant_rate`` (a constant rate that has a place for every frame, in 1/s,
    for containers without variable rates), ``frame_count`` (an estimate, or None), ``has_alpha``,
    ``lossy_alpha`` (whether the alpha is compressed with loss), ``has_audio``, ``pixel_aspect``
    (width / height of a pixel, a Fraction), ``start_seconds``.

    Raises InputError at once if the file cannot be opened or no frame of it can be decoded; if a
    file is damaged, after the last frame that can be decoded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        frame_rate: float | Fraction | None = None,
        skip_unreadable: bool = False,
        hwaccel: str = "none",
    ) -> None:
        self.path = Path(path)
        self.skip_unreadable = skip_unreadable
        self.hwaccel = checked_hwaccel(hwaccel)
        self.name = self.path.name or str(self.path)
        self._iterations: weakref.WeakSet[Generator[Frame, None, None]] = weakref.WeakSet()
        self._said: set[str] = set()
        self._images = [self.path] if self.path.suffix.lower() in IMAGE_SUFFIXES else []
        if self._images or self.path.is_dir():
            self.hwaccel = "none"
        self._number_of: dict[Path, int] = {}
        if self.path.is_dir():
            self._images = list_images(path)
            if not self._images:
                _refuse_without_images(self.path)
            self._number_of = {image: number for number, image in enumerate(self._images)}
            if skip_unreadable:
                self._images = list(itertools.dropwhile(_unreadable, self._images))
                if not self._images:
                    refuse(path, "a folder of which no image can be read", "undamaged images")
        self._breaks: bool | None = None
        self._times: list[float] | None = None
        file = self._images[0] if self._images else self.path
        with open_source(file, self.hwaccel) as source:
            self._describe(file, source, frame_rate)

    def _describe(self, file: Path, source: Source, rate: float | Fraction | None) -> None:
        first, seconds, _ = next(source.frames)
        if curve := hdr_curve(first):
            refuse(file, f"HDR ({curve})", TONE_MAPPED)
        if not source.still and not self.path.is_dir():
            self._images = []  # one file with several pictures is a video
        self._crop, self._leading = source.crop, 0
        aspect, own_rate, length = Fraction(1), Fraction(0), 0.0
        self._cut_gif = source.codec == "gif" and not _ends_as_gif(file)
        self.has_audio, self.frame_count = False, len(self._images) or source.frame_count
        finest = Fraction(0)
        if source.stream is not None:
            stream, container = source.stream, source.container
            aspect = fraction(stream.sample_aspect_ratio) or Fraction(1)
            finest = fraction(stream.guessed_rate)
            rates = (fraction(stream.average_rate), finest)  # a raw DV file says 60000 and 30
            own_rate = next((r for r in rates if MIN_FRAME_RATE <= r <= MAX_FRAME_RATE), own_rate)
            self.has_audio = not self._images and bool(container.streams.audio)
            if stream.duration:
                length = float(stream.duration * fraction(stream.time_base))
            else:  # the length of the file, without the time before the first frame
                end = (container.start_time or 0) + (container.duration or 0)
                length = max(0.0, end / av.time_base - (seconds or 0.0))
            shown = round(length * own_rate)
            hidden_below = _HIDDEN_SHARE * (self.frame_count or 0) - 1
            if not self._images and 0 < shown < hidden_below:
                self.frame_count = shown  # an edit list of MP4 hides the others
        if not self._images and seconds is None and not source.untimed:
            for _, seconds, _ in itertools.islice(source.frames, MAX_UNTIMED_FRAMES):
                self._leading += 1
                if seconds is not None:
                    break
        has_times = not self._images and seconds is not None
        if has_times and rate is not None:
            refuse(
                self.path,
                f"a frame rate ({rate}) for a video that has its own",
                "none; leave it out",
            )
        if rate is None:
            rate = DEFAULT_FRAME_RATE if self._images else own_rate or DEFAULT_FRAME_RATE
        self.frame_rate = checked_rate(self.path, rate)
        self.constant_rate = self.frame_rate
        if has_times and self.frame_rate < finest <= max(MAX_CONSTANT_RATE, self.frame_rate):
            self.constant_rate = checked_rate(self.path, finest)
        elif has_times and finest > self.frame_rate:
            self.constant_rate = max(MAX_CONSTANT_RATE, self.frame_rate)
        self.start_seconds = 0.0
        if has_times:
            self.start_seconds = (seconds or 0.0) - float(self._leading / self.frame_rate)
        if source.may_break and self.path.stat().st_size <= MAX_SCAN_BYTES:
            count, self._breaks = self._scanned()
            if self._breaks:
                length, self.frame_count = float(count / self.frame_rate), count
        self.frame_count = self.frame_count or round(length * self.frame_rate) or None
        self._length = 0.0 if self._images else length

        to_rgb = ToRgb(file, self._crop)
        to_rgb.follow(file, first)
        turned = abs(to_rgb.matrix[1]) > abs(to_rgb.matrix[0])
        self.pixel_aspect = 1 / aspect if turned else aspect
        self.has_alpha = _has_alpha(first)
        if first.format.has_palette or source.codec in ("gif", "webp", "mjpeg"):
            self.has_alpha = bool((to_rgb(first, True)[..., 3] < 255).any())
        self.lossy_alpha = self.has_alpha and source.codec in LOSSY_ALPHA
        self.height, self.width = to_rgb(first, False).shape[:2]

    def frame_number(self, pts_seconds: float) -> int:
        """The number, from 0, of the frame that is shown at a time.

        It is counted from the times in the file without decoding, or computed by the mean rate if
        the file has no times. The first call reads the whole file. ``pts_seconds`` is a time as in
        :class:`Frame`.
        """
        if self._images:
            return int(pts_seconds * self.frame_rate + Fraction(1, 2))
        if self._times is None:
            with open_media(self.path) as container:
                self._times = frame_times(container, video_stream(container))
        time = self.start_seconds + pts_seconds + _TIME_TOLERANCE_SECONDS
        first = (
            self.start_seconds + float(self._leading / self.frame_rate) - _TIME_TOLERANCE_SECONDS
        )
        if not self._times or time < first:
            return round(pts_seconds * self.frame_rate)
        return self._leading + bisect(self._times, time) - bisect(self._times, first) - 1

    def _scanned(self) -> tuple[int, bool]:
        with open_media(self.path) as container:
            count, breaks = scan(container, video_stream(container))
            return count, breaks > 0

    def _warn_once(self, file: Path, message: str) -> None:
        """Log a warning when frames are read for the first time, but not again."""
        if message and message not in self._said:
            self._said.add(message)
            _log.warning("%s: %s", file, message)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iterations that are still open and release their files."""
        for iteration in list(self._iterations):
            iteration.close()

    def __iter__(self) -> Iterator[Frame]:
        return self.seek(0.0)

    def seek(
        self, pts_seconds: float, wanted: Callable[[], bool] = lambda: True
    ) -> Generator[Frame, None, None]:
        """Iterate from the frame that is shown at a time on, or from the last frame.

        The frames and their times are the same as in an iteration from the beginning. Decoding
        begins at the last key frame before the time, or at the beginning of the file if that key
        frame cannot be found.

        Args:
            pts_seconds: a time as in :class:`Frame`.
            wanted: called for every frame that is skipped; once it returns False, the iteration
                begins at that frame.
        """
        iteration = self._frames(pts_seconds, wanted)
        self._iterations.add(iteration)
        return iteration

    def _frames(self, start: float, wanted: Callable[[], bool]) -> Generator[Frame, None, None]:
        last, damaged = 0.0, False
        to_rgb: ToRgb | None = None
        frames = self._timed(start)
        if self.path.is_dir():
            for message in odd_numbering(self._images):
                self._warn_once(self.path, message)
        if self._breaks:
            self._warn_once(
                self.path, "its clock breaks, as in joined streams; its time goes on there"
            )
        if start > 0.0:
            frames = skip_until(frames, start, wanted)
        for file, count, frame, time in frames:
            if to_rgb is None:
                to_rgb = ToRgb(file, self._crop)
                to_rgb.follow(file, frame)
                self._warn_once(self.path, unusual_colours(frame))
            elif self._images:
                to_rgb.follow(file, frame)
            image = to_rgb(frame, self.has_alpha)
            trouble = self._misfit(frame, image, to_rgb)
            if trouble:
                received, expected = f"frame {count} {trouble[0]}", trouble[1]
                if not self.skip_unreadable:
                    refuse(file, received, expected)
                _log.warning("%s: received %s; left out", file, received)
                continue
            if frame.is_corrupt and not damaged:
                damaged = True
                _log.warning("%s: frame %d is damaged and was patched up", file, count)
            last = time
            yield Frame(image, time, self._number_of.get(file, count))
        if self._cut_gif:
            _log.warning("%s: ends without its end mark; its last frames may be damaged", self.path)
        if last + 1 / self.frame_rate < _CUT_SHORT_SHARE * self._length:
            _log.warning("%s: ends at %.3f s of %.3f s", self.path, last, self._length)

    def _misfit(self, frame: Any, image: np.ndarray, to_rgb: ToRgb) -> tuple[str, str] | None:
        """How a frame differs from the first, and what was expected; None if it fits."""
        height, width = image.shape[:2]
        if (height, width) != (self.height, self.width):
            expected = f"{self.width}x{self.height} as the first; rescale to one"
            return f"of {width}x{height} pixels", expected
        expected = "alpha in all frames or in none"
        may_have = _has_alpha(frame) or frame.format.has_palette
        if self.has_alpha and not may_have:
            return "without alpha after others with it", expected
        if not self.has_alpha and may_have and (to_rgb(frame, True)[..., 3] < 255).any():
            return "with alpha after others without it", expected
        return None

    def _timed(self, start: float) -> Iterator[TimedFrame]:
        """Frames and their times, from ``start`` on or from an earlier frame on."""
        first = 0
        if self._images and not self.skip_unreadable:
            first = max(0, int(min(start * self.frame_rate, len(self._images))) - 1)
        last: float | None = None
        for count, (file, frame, seconds) in enumerate(self._decoded(start, first), first):
            if self._images:
                time = float(count / self.frame_rate)
            elif seconds is None:
                time = 0.0 if last is None else last + float(1 / self.frame_rate)
            else:
                time = seconds - self.start_seconds
                time = time if last is None or time > last else last + _STEP_SECONDS
            last = time
            yield TimedFrame(file, count, frame, time)

    def _decoded(self, start: float, first: int) -> Iterator[tuple[Path, Any, float | None]]:
        """Frames with the times in the file; ``first`` is the number of the first image to read."""
        if start > 0.0 and not self._images and not self.skip_unreadable:
            with open_source(self.path, self.hwaccel) as source:
                frames = self._from_key_frame(source, start)
                if frames is not None:
                    yield from ((self.path, frame, seconds) for frame, seconds, _ in frames)
                    return
        for file in self._images[first:] or [self.path]:
            try:
                with open_source(file, self.hwaccel) as source:
                    if source.on_cpu:
                        self._warn_once(file, f"is decoded on the CPU: {source.on_cpu}")
                    if self.path.is_dir() and not source.still:
                        self._warn_once(file, "has several pictures; the first is the frame")
                    for frame, seconds, deinterlaced in source.frames:
                        if deinterlaced:
                            self._warn_once(self.path, "is interlaced: its frames are deinterlaced")
                        yield file, frame, seconds
                        if self._images:
                            break
            except InputError as error:
                if not self.skip_unreadable:
                    raise
                _log.warning("%s; left out", error)

    def _from_key_frame(self, source: Source, start: float) -> Iterator[Decoded] | None:
        """Frames from the last key frame before a time on; None if decoding cannot begin there."""
        container, stream = source.container, source.stream
        if self._breaks is None and source.may_break:
            self._breaks = self._scanned()[1]
        if stream is None or self._breaks:
            return None
        until = self.start_seconds + start
        # A deinterlaced frame needs the frame before it, which is missing at a key frame.
        for earlier in (0.0, float(2 / self.frame_rate)):
            found = from_key_frame(container, stream, until - earlier)
            if found is None:
                return None
            packets, shown = found
            frames = _from(shown, decode(self.path, container, stream, packets))
            try:
                key = next(frames, None)
                # A decoder that cannot begin there skips frames, so that a later one comes first.
                if key is None or key.seconds != shown or key.frame.is_corrupt:
                    return None
                if not key.deinterlaced:
                    return itertools.chain([key], frames)
                second = next(frames, None)
            except InputError:
                return None
            if earlier and second is not None and (second.seconds or 0.0) <= until:
                return itertools.chain([second], frames)
        return None


def _from(seconds: float, frames: Iterator[Decoded]) -> Iterator[Decoded]:
    def before(decoded: Decoded) -> bool:
        return decoded.seconds is None or decoded.seconds < seconds

    return itertools.dropwhile(before, frames)


def _has_alpha(frame: Any) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _refuse_without_images(folder: Path) -> NoReturn:
    """Say what the folder has instead, and what to do with radiance."""
    received, expected = "a folder without images", f"images ({' '.join(IMAGE_SUFFIXES)})"
    found = sorted({path.suffix.lower() for path in folder.iterdir() if path.suffix})
    if found:
        received += f", with names that end in {' '.join(found[:5])}"
    if not RADIANCE_SUFFIXES.isdisjoint(found):
        expected += "; map the tones of radiance first, as docs/renderer.md says"
    refuse(folder, received, expected)


def _unreadable(image: Path) -> bool:
    """Whether the first frame of a file cannot be decoded; a warning says why."""
    try:
        with open_source(image) as source:
            next(source.frames)
    except InputError as error:
        _log.warning("%s; left out", error)
        return True
    return False


def _ends_as_gif(file: Path) -> bool:
    """Whether a file ends with the trailer of a GIF, a semicolon, which FFmpeg does not check."""
    with file.open("rb") as opened:
        opened.seek(-min(64, file.stat().st_size), os.SEEK_END)
        return opened.read().rstrip(b"\0").endswith(b";")
