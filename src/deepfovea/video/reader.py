"""Video files and folders of images as an iterator of frames."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import weakref
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ..config import InputError
from .container import (
    ACCURATE,
    IMAGE_SUFFIXES,
    LIMITED_RANGE,
    RESERVED,
    UNSPECIFIED,
    VIDEO_SUFFIXES,
    checked_rate,
    colorspace_of,
    fraction,
    open_media,
    reason_of,
    refuse,
    video_stream,
)
from .seek import Timed, demux, from_key_frame, pass_over

_READ_ONLY = (".3gp", ".flv", ".gif", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".wmv")
_PQ, _HLG = 16, 18  # ITU-T H.273, as FFmpeg has them

_log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """One frame: ``image`` uint8 [H, W, 3] RGB or [H, W, 4] RGBA, ``pts_seconds`` its time."""

    image: np.ndarray
    pts_seconds: float


def list_images(folder: str | Path) -> list[Path]:
    """Images directly in ``folder``, numbers in their names compared as numbers.

    ``frame2.png`` comes before ``frame10.png``. Hidden files and other suffixes are left out.
    Raises InputError if the folder cannot be listed; a folder without images gives ``[]``.
    """

    def natural(path: Path) -> tuple[list[str | int], str]:
        parts = re.split(r"(\d+)", path.name.casefold())
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name

    try:
        entries = list(Path(folder).iterdir())
    except OSError as error:
        refuse(folder, f"no folder that can be listed ({reason_of(error)})", "a folder of images")
    images = (p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    return sorted((p for p in images if p.is_file()), key=natural)


def find_videos(root: str | Path) -> list[Path]:
    """Video files, and folders that hold images, in ``root`` and below it, sorted by path.

    They are known by their suffixes; hidden ones are left out. Links to folders are followed, each
    folder once. Raises InputError for none.
    """
    expected = "a folder that holds videos or folders of images"
    if not Path(root).is_dir():
        refuse(root, "no such folder", expected)
    found: set[Path] = set()
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        real = os.path.realpath(folder)
        if real in seen:  # links can lead in a circle
            folders.clear()
            continue
        seen.add(real)
        for path in (Path(folder, name) for name in files if name[0] != "."):
            suffix = path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                found.add(path.parent)
            elif suffix in (*VIDEO_SUFFIXES, *_READ_ONLY):
                found.add(path)
    if not found:
        refuse(root, "neither videos nor images", expected)
    return sorted(found)


def read_clip(path: str | Path, count: int, *, skip_unreadable: bool = False) -> np.ndarray:
    """The first ``count`` frames, or all if there are fewer: uint8 [T, H, W, 3], without alpha."""
    with VideoReader(path, skip_unreadable=skip_unreadable) as reader:
        return np.stack([frame.image[..., :3] for frame in itertools.islice(reader, count)])


class VideoReader:
    """Frames of a video file, of a folder of images, or of one image, in the order shown.

    Iterating decodes lazily, in constant memory, and may be repeated: every iteration starts at
    the first frame. ``with`` (or :meth:`close`) ends the iterations that are still open.

    Times are the file's own, at a variable frame rate too, shifted so that the first frame is
    at 0; :attr:`start_seconds` is that shift. They increase strictly: a missing one is a mean
    frame interval after the one before, one that does not increase is 1 ms after it. Images
    are ``1 / frame_rate`` apart (24 per second unless given). A video takes a ``frame_rate``
    only if it has no times (a raw stream).

    Colours follow the matrix and the range of the file; without a matrix BT.709 is assumed from
    1280 pixels of width or above 576 of height, else BT.601. More than 8 bits are rounded to 8.
    HDR (PQ, HLG) is not tone-mapped: a warning is logged. Rotation and mirroring, of Exif too,
    are applied. All frames must have the size of the first. The first also decides whether
    there is alpha: GIF, WebP, JPEG and palettes have it only if that frame uses it.

    With ``skip_unreadable`` a frame that cannot be read or has another size is left out, what
    follows the damage of a video file too; a warning names each.

    Attributes: ``path``, ``name``, ``width`` and ``height`` in pixels, ``frame_rate`` (mean, in
    1/s, a Fraction), ``frame_count`` (an estimate, or None), ``has_alpha``, ``has_audio``,
    ``pixel_aspect`` (width / height of a pixel, a Fraction), ``start_seconds``.

    Raises InputError at once for what cannot be opened or has no frame that can be decoded; and
    for a damaged file after the last frame that can be decoded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        frame_rate: float | Fraction | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        self.path = Path(path)
        self.skip_unreadable = skip_unreadable
        self.name = self.path.name or str(self.path)
        self._iterations: weakref.WeakSet[Generator[Frame, None, None]] = weakref.WeakSet()
        self._images = [self.path] if self.path.suffix.lower() in IMAGE_SUFFIXES else []
        if self.path.is_dir():
            self._images = list_images(path)
            if not self._images:
                refuse(path, "a folder without images", f"images ({' '.join(IMAGE_SUFFIXES)})")
            if skip_unreadable:
                self._images = list(itertools.dropwhile(_unreadable, self._images))
                if not self._images:
                    refuse(path, "a folder of which no image can be read", "undamaged images")

        file = self._images[0] if self._images else self.path
        with open_media(file) as container:
            stream = video_stream(container)
            first, seconds = next(_decode(file, container, stream))
            codec = stream.codec_context.name
            transfer = stream.codec_context.color_trc
            aspect = fraction(stream.sample_aspect_ratio) or Fraction(1)
            own_rate = fraction(stream.average_rate) or fraction(stream.guessed_rate)
            if stream.duration:
                length = float(stream.duration * stream.time_base)
            else:  # that of the file, without what comes before the first frame
                end = (container.start_time or 0) + (container.duration or 0)
                length = max(0.0, end / av.time_base - (seconds or 0.0))
            self.has_audio = not self._images and bool(container.streams.audio)
            self.frame_count: int | None = len(self._images) or stream.frames
        if frame_rate is None:
            frame_rate = own_rate if not self._images and 0 < own_rate <= 1000 else 24
        elif not self._images and seconds is not None:
            refuse(path, f"a frame rate ({frame_rate}) for a video that has its own", "none")
        self.frame_rate = checked_rate(path, frame_rate)
        self.frame_count = self.frame_count or round(length * self.frame_rate) or None
        self._length = 0.0 if self._images else length
        self.start_seconds = 0.0 if self._images else seconds or 0.0

        matrix, convert = _display_matrix(first), VideoReformatter()
        self.pixel_aspect = 1 / aspect if abs(matrix[1]) > abs(matrix[0]) else aspect
        self.has_alpha = any(part.is_alpha for part in first.format.components)
        if first.format.has_palette or codec in ("gif", "webp", "mjpeg"):
            self.has_alpha = bool(
                (_to_array(file, first, True, matrix, convert)[..., 3] < 255).any()
            )
        self.height, self.width = _to_array(file, first, False, matrix, convert).shape[:2]
        if transfer in (_PQ, _HLG):
            _log.warning("%s is HDR: its colours are used without tone mapping", path)

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
        """Iterate from the frame shown at a time on, or from the last.

        The frames and their times are those of a whole iteration. Decoding begins at the last key
        frame before them, or with the file where that cannot be found.

        Args:
            pts_seconds: as of :class:`Frame`.
            wanted: asked for every frame on the way; at the first no, iterating begins there.
        """
        iteration = self._frames(pts_seconds, wanted)
        self._iterations.add(iteration)
        return iteration

    def _frames(self, start: float, wanted: Callable[[], bool]) -> Generator[Frame, None, None]:
        last, matrix, damaged = 0.0, None, False
        convert = VideoReformatter()  # one for all frames: setting it up takes 2 ms
        frames = self._timed(start)
        if start > 0.0:
            frames = pass_over(frames, start, wanted)
        for file, count, frame, time in frames:
            if matrix is None or self._images:
                matrix = _display_matrix(frame)
            image = _to_array(file, frame, self.has_alpha, matrix, convert)
            if image.shape[:2] != (self.height, self.width):
                received = f"frame {count} of {image.shape[1]}x{image.shape[0]} pixels"
                if self.skip_unreadable:
                    _log.warning("%s: received %s; left out", file, received)
                    continue
                refuse(file, received, f"{self.width}x{self.height} as the first; rescale to one")
            if frame.is_corrupt and not damaged:
                damaged = True
                _log.warning("%s: frame %d is damaged and was patched up", file, count)
            last = time
            yield Frame(image, time)
        if last + 1 / self.frame_rate < 0.9 * self._length:
            _log.warning("%s: ends at %.3f s of %.3f s", self.path, last, self._length)

    def _timed(self, start: float) -> Iterator[Timed]:
        """Frames and their times, from a place at ``start`` or before it on."""
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
                time = time if last is None or time > last else last + 0.001
            last = time
            yield Timed(file, count, frame, time)

    def _decoded(self, start: float, first: int) -> Iterator[tuple[Path, Any, float | None]]:
        """Frames with the times that the file gives them; ``first`` is the first image."""
        if start > 0.0 and not self._images and not self.skip_unreadable:
            with open_media(self.path) as container:
                frames = self._from_key_frame(container, start)
                if frames is not None:
                    yield from ((self.path, *frame) for frame in frames)
                    return
        for file in self._images[first:] or [self.path]:
            try:
                with open_media(file) as container:
                    for frame, seconds in _decode(file, container, video_stream(container)):
                        yield file, frame, seconds
                        if self._images:
                            break
            except InputError as error:
                if not self.skip_unreadable:
                    raise
                _log.warning("%s; left out", error)

    def _from_key_frame(
        self, container: Any, start: float
    ) -> Iterator[tuple[Any, float | None]] | None:
        """Frames from the last key frame before a time on; None where one cannot enter there."""
        stream = video_stream(container)
        found = from_key_frame(container, stream, self.start_seconds + start)
        if found is None:
            return None
        packets, shown = found
        frames = itertools.dropwhile(
            lambda decoded: decoded[1] is None or decoded[1] < shown,
            _decode(self.path, container, stream, packets),
        )
        with contextlib.suppress(InputError):
            key = next(frames, None)
            # A decoder that could not begin there passes over the frames it cannot build.
            if key is not None and key[1] == shown and not key[0].is_corrupt:
                return itertools.chain([key], frames)
        return None


def _unreadable(image: Path) -> bool:
    """Whether the first frame of a file cannot be decoded; a warning says why."""
    try:
        with open_media(image) as container:
            next(_decode(image, container, video_stream(container)))
    except InputError as error:
        _log.warning("%s; left out", error)
        return True
    return False


def _decode(
    path: Path, container: Any, stream: Any, packets: Iterator[Any] | None = None
) -> Iterator[tuple[Any, float | None]]:
    """Decoded frames with the time the file gives them, None where it gives none.

    ``packets`` are those to decode, all of the stream unless given.

    An error before the first frame is passed over, as a recording may begin between key frames;
    a later one becomes an InputError, after the frames that can be decoded. PyAV's default, no
    frame threads, is kept for that: they swallow errors, and frames around them.
    """
    if stream is None:
        refuse(path, "a file without video", "a file with a video stream")
    decoder = stream.codec_context
    if decoder is None:
        refuse(path, "a codec that cannot be decoded", "another one; convert the file")
    with_alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(decoder.name)
    if with_alpha and stream.metadata.get("alpha_mode") == "1":
        decoder = av.CodecContext.create(with_alpha, "r")  # FFmpeg's own decoders drop alpha
    packets = packets or demux(container, stream)
    count, seconds, error = 0, None, None
    while error is None or count == 0:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = decoder.decode(packet)
        except av.FFmpegError as failure:
            error, frames = failure, []
            if count:
                with contextlib.suppress(av.FFmpegError):
                    frames = decoder.decode(None)
        for frame in frames:
            count, error = count + 1, error if count else None
            ticks = frame.dts if frame.pts is None else frame.pts
            seconds = None if ticks is None else float(ticks * stream.time_base)
            yield frame, seconds
    if error or not count:
        received = f"{count} frames" + ("" if seconds is None else f", the last at {seconds:.3f} s")
        received += f", then an error ({reason_of(error)})" if error else ""
        refuse(path, received, "an undamaged video; repair, re-encode or trim it")


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d): the decoded pixel (x, y) is shown at x' = a x + c y, y' = b x + d y."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV lists no side data at all where one is of a kind it does not know
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
        )
        without_exif = graph.add("sidedata", "mode=delete:type=31")
        graph.link_nodes(source, without_exif, graph.add("buffersink")).configure()
        graph.push(frame)
        try:
            data = graph.pull().side_data.get("DISPLAYMATRIX")
        except ValueError:
            data = None
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(data, dtype=np.int32)[:5].tolist()
    return a, b, c, d


def _to_array(
    path: Path, frame: Any, alpha: bool, matrix: tuple[int, int, int, int], convert: Any
) -> np.ndarray:
    """RGB(A) [H, W, 3 or 4] of a decoded frame, turned and mirrored by its display matrix."""
    in_yuv = not frame.format.is_rgb and not frame.format.has_palette
    if in_yuv and frame.colorspace in (UNSPECIFIED, RESERVED):
        frame.colorspace = colorspace_of(frame.width, frame.height)
    try:
        kind = "rgba" if alpha else "rgb24"
        converted = convert.reformat(frame, format=kind, interpolation=ACCURATE)
    except av.FFmpegError as error:
        received = f"the pixel format {frame.format.name}, matrix {frame.colorspace}"
        refuse(path, f"{received} ({reason_of(error)})", "a common format; convert the file")
    pixels: np.ndarray = converted.to_ndarray()
    if frame.format.name.startswith("gray") and frame.color_range == LIMITED_RANGE:
        full = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
        pixels[..., :3] = full[pixels[..., :3]]  # swscale takes all grey for full range
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
