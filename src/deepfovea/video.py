"""Frames in and out of video files and folders of images, with their times and their sound.

Legend: H, W height and width in pixels as shown, that is after the rotation a file asks for.
Images are 8-bit sRGB-encoded RGB, or RGBA with straight alpha. Times are in seconds from the
first frame. PyAV, and through it FFmpeg, is used in this file only.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import re
import secrets
import shutil
import weakref
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from .config import InputError

IMAGE_SUFFIXES = (".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff",
                  ".webp")  # fmt: skip
"""Suffixes, in lower case, of the images that are read."""

_COPIED_SOUND = {
    ".mp4": "aac mp3 ac3 eac3 alac opus flac",
    ".m4v": "aac ac3 alac",
    ".mov": "aac mp3 ac3 eac3 alac pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_f32le",
    ".mkv": "aac mp3 ac3 eac3 alac opus flac vorbis dca truehd pcm_s16le pcm_s24le pcm_f32le",
    ".avi": "",  # its sound must not begin late or pause
    ".webm": "opus vorbis",
}
VIDEO_SUFFIXES = tuple(_COPIED_SOUND)
"""Suffixes that can be written. A name without a suffix is a folder of PNG images."""

_READ_ONLY = (".3gp", ".flv", ".gif", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".wmv")
_EDIT_LISTS = (".mp4", ".m4v", ".mov")
_TEXT_ART = ("adf", "bin", "idf", "tty", "xbin")  # FFmpeg renders a .txt file as a video
# swscale: bilinear, full chroma interpolation and input, accurate rounding. Its default repeats
# chroma samples, which moves colours by half a pixel.
_ACCURATE = 0x2 | 0x2000 | 0x4000 | 0x40000
# Code points of ITU-T H.273, as FFmpeg has them
_BT709, _UNSPECIFIED, _RESERVED, _BT601 = 1, 2, 3, 6
_LIMITED_RANGE = 1
_PQ, _HLG = 16, 18
# Bad text in metadata is no reason not to open a file; PyAV 19 knows that by itself.
_LENIENT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

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
        _refuse(folder, f"no folder that can be listed ({_reason(error)})", "a folder of images")
    images = (p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    return sorted((p for p in images if p.is_file()), key=natural)


def find_videos(root: str | Path) -> list[Path]:
    """Video files, and folders that hold images, in ``root`` and below it, sorted by path.

    They are known by their suffixes; hidden ones are left out. Raises InputError for none.
    """
    found: set[Path] = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name[0] != "."]
        for path in (Path(folder, name) for name in files if name[0] != "."):
            suffix = path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                found.add(path.parent)
            elif suffix in (*VIDEO_SUFFIXES, *_READ_ONLY):
                found.add(path)
    if not found:
        _refuse(root, "no videos and no images", "a folder that holds at least one")
    return sorted(found)


def read_clip(path: str | Path, count: int) -> np.ndarray:
    """The first ``count`` frames, or all if there are fewer: uint8 [T, H, W, 3], without alpha."""
    with VideoReader(path) as reader:
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

    Attributes: ``path``, ``name``, ``width`` and ``height`` in pixels, ``frame_rate`` (mean, in
    1/s, a Fraction), ``frame_count`` (an estimate, or None), ``has_alpha``, ``has_audio``,
    ``pixel_aspect`` (width / height of a pixel, a Fraction), ``start_seconds``.

    Raises InputError at once for what cannot be opened or has no frame that can be decoded; and
    for a damaged file after the last frame that can be decoded.
    """

    def __init__(self, path: str | Path, *, frame_rate: float | Fraction | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.name or str(self.path)
        self._iterations: weakref.WeakSet[Generator[Frame, None, None]] = weakref.WeakSet()
        self._images = [self.path] if self.path.suffix.lower() in IMAGE_SUFFIXES else []
        if self.path.is_dir():
            self._images = list_images(path)
            if not self._images:
                _refuse(path, "a folder without images", f"images ({' '.join(IMAGE_SUFFIXES)})")

        file = self._images[0] if self._images else self.path
        with _open(file) as container:
            stream = _video_stream(container)
            if stream is None:
                _refuse(path, "a file without video", "a file with a video stream")
            first, seconds = next(_decode(file, container, stream))
            codec = stream.codec_context.name
            transfer = stream.codec_context.color_trc
            aspect = _fraction(stream.sample_aspect_ratio) or Fraction(1)
            own_rate = _fraction(stream.average_rate) or _fraction(stream.guessed_rate)
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
            _refuse(path, f"a frame rate ({frame_rate}) for a video that has its own", "none")
        self.frame_rate = _checked_rate(path, frame_rate)
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
        iteration = self._frames()
        self._iterations.add(iteration)
        return iteration

    def _frames(self) -> Generator[Frame, None, None]:
        last, matrix, damaged = 0.0, None, False
        convert = VideoReformatter()  # one for all frames: setting it up takes 2 ms
        for count, (file, frame, seconds) in enumerate(self._decoded()):
            if matrix is None or self._images:
                matrix = _display_matrix(frame)
            image = _to_array(file, frame, self.has_alpha, matrix, convert)
            if image.shape[:2] != (self.height, self.width):
                received = f"frame {count} of {image.shape[1]}x{image.shape[0]} pixels"
                _refuse(file, received, f"{self.width}x{self.height} as the first; rescale to one")
            if frame.is_corrupt and not damaged:
                damaged = True
                _log.warning("%s: frame %d is damaged and was patched up", file, count)
            if self._images or count == 0:
                time = float(count / self.frame_rate)
            elif seconds is None:
                time = last + float(1 / self.frame_rate)
            else:
                time = seconds - self.start_seconds
                time = time if time > last else last + 0.001
            last = time
            yield Frame(image, time)
        if last + 1 / self.frame_rate < 0.9 * self._length:
            _log.warning("%s: ends at %.3f s of %.3f s", self.path, last, self._length)

    def _decoded(self) -> Iterator[tuple[Path, Any, float | None]]:
        for file in self._images or [self.path]:
            with _open(file) as container:
                for frame, seconds in _decode(file, container, _video_stream(container)):
                    yield file, frame, seconds
                    if self._images:
                        break


def _refuse(path: str | Path, received: str, expected: str) -> NoReturn:
    message = f"{path}: received {received}; expected {expected}"
    raise InputError(" ".join(message.splitlines())) from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _fraction(value: Any) -> Fraction:
    """PyAV's None, Fraction or (from 19 on) AVRational as a Fraction; 0 if unknown."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


def _checked_rate(path: str | Path, rate: float | Fraction) -> Fraction:
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        fraction = Fraction(rate).limit_denominator(1001)  # the 1001 of 29.97 = 30000 / 1001
        if 0 < fraction <= 1000:
            return fraction
    _refuse(path, f"a frame rate of {rate}", "more than 0 and at most 1000 frames per second")


def _open(path: Path) -> Any:
    """The container of a file that FFmpeg can read, or InputError."""
    expected = "a video or images; check the path and the file"
    try:
        if path.is_file() and path.stat().st_size == 0:
            _refuse(path, "an empty file", expected)
        container = av.open(
            str(path.absolute()),  # a relative "12:30.mp4" would be taken for a protocol,
            container_options={"pattern_type": "none"},  # "%d.png" for a series of files
            **_LENIENT,
        )
    except (av.FFmpegError, OSError) as error:
        _refuse(path, f"no file that can be read ({_reason(error)})", expected)
    if container.format.name in _TEXT_ART:
        _refuse(path, "a text file", expected)
    return container


def _video_stream(container: Any) -> Any:
    """The first video stream that is not the cover picture of a sound file, or None."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def _decode(path: Path, container: Any, stream: Any) -> Iterator[tuple[Any, float | None]]:
    """Decoded frames with the time the file gives them, None where it gives none.

    An error before the first frame is passed over, as a recording may begin between key frames;
    a later one becomes an InputError, after the frames that can be decoded. PyAV's default, no
    frame threads, is kept for that: they swallow errors, and frames around them.
    """
    decoder = stream.codec_context
    if decoder is None:
        _refuse(path, "a codec that cannot be decoded", "another one; convert the file")
    with_alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(decoder.name)
    if with_alpha and stream.metadata.get("alpha_mode") == "1":
        decoder = av.CodecContext.create(with_alpha, "r")  # FFmpeg's own decoders drop alpha
    container.flags &= ~av.container.Flags.gen_pts.value  # those made up for AVI are disordered
    packets = container.demux(stream)
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
        received += f", then an error ({_reason(error)})" if error else ""
        _refuse(path, received, "an undamaged video; repair, re-encode or trim it")


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


def _colorspace(width: int, height: int) -> int:
    return _BT709 if width >= 1280 or height > 576 else _BT601


def _to_array(
    path: Path, frame: Any, alpha: bool, matrix: tuple[int, int, int, int], convert: Any
) -> np.ndarray:
    """RGB(A) [H, W, 3 or 4] of a decoded frame, turned and mirrored by its display matrix."""
    in_yuv = not frame.format.is_rgb and not frame.format.has_palette
    if in_yuv and frame.colorspace in (_UNSPECIFIED, _RESERVED):
        frame.colorspace = _colorspace(frame.width, frame.height)
    try:
        kind = "rgba" if alpha else "rgb24"
        converted = convert.reformat(frame, format=kind, interpolation=_ACCURATE)
    except av.FFmpegError as error:
        received = f"the pixel format {frame.format.name}, matrix {frame.colorspace}"
        _refuse(path, f"{received} ({_reason(error)})", "a common format; convert the file")
    pixels: np.ndarray = converted.to_ndarray()
    if frame.format.name.startswith("gray") and frame.color_range == _LIMITED_RANGE:
        full = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
        pixels[..., :3] = full[pixels[..., :3]]  # swscale takes all grey for full range
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class VideoWriter:
    """Writes a video file, or a folder of PNG images; the output is complete or absent.

    The suffix decides: H.264 for .mp4 .m4v .mov .mkv .avi, VP9 for .webm, and without a suffix
    a folder with ``00000000.png`` and so on, lossless. RGBA goes into folders, .webm (VP9) and
    .mov (ProRes 4444). ``crf`` is the quality on the scale of x264, 0 (best) to 51. Sizes are
    kept exactly: H.264 stores an odd width or height as 4:4:4, which some players (browsers
    among them) cannot show. Colours are BT.709 or BT.601, by the rule of :class:`VideoReader`,
    in limited range, and the file says so.

    Times are kept to half a tick of 1/90000 s or finer, in .mkv and .webm of 1 ms; .avi has
    only the constant ``frame_rate`` (1/s), and folders have no times. The last frame lasts
    ``1 / frame_rate``. ``pixel_aspect`` is the width / height of a pixel.

    ``audio_from`` names a file whose first sound track accompanies the frames while they last,
    in sync with times that count from the first frame of its video. It is copied, or converted
    to stereo AAC, Opus (.webm) or MP3 (.avi) where the container cannot hold it. A file without
    sound adds none; a folder of images cannot take it: a warning is logged.

    Use it as a context manager. Frames go to a hidden temporary name in the same folder, which
    takes the final name when the ``with`` block ends well, and is removed when it does not. An
    existing output is refused, or with ``overwrite`` replaced at the end (a folder only if it
    holds nothing but images named as above); until then it may be read, even as the input.

    Raises InputError at construction for all that is known then; while writing for an image of
    another shape, a time that does not increase and failures such as a full disk; at the end
    for no frames at all.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        frame_rate: float | Fraction,
        audio_from: str | Path | None = None,
        overwrite: bool = False,
        crf: int = 17,
        pixel_aspect: float | Fraction = 1,
    ) -> None:
        self.path = Path(path)
        self.suffix = self.path.suffix.lower()
        if self.suffix not in ("", *VIDEO_SUFFIXES):
            known = f"{' '.join(VIDEO_SUFFIXES)}, or none for a folder of images"
            _refuse(path, f"the suffix {self.suffix} for an output", known)
        if not 0 <= crf <= 51:
            _refuse(path, f"crf {crf}", "0 (best) to 51")
        self.frame_rate = _checked_rate(path, frame_rate)
        self.crf = crf
        self.pixel_aspect = Fraction(pixel_aspect).limit_denominator(1001)
        self._target = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
        if self._target.exists():
            self._check_replaceable(overwrite)
        self._temporary = self._target.parent / f".deepfovea-{secrets.token_hex(4)}{self.suffix}"
        try:  # the permission bits would not tell, least of all an administrator
            self._temporary.touch(exist_ok=False)
            self._temporary.unlink()
        except OSError as error:
            received = f"a folder that cannot be written, {self._target.parent} ({_reason(error)})"
            _refuse(path, received, "an existing writable folder; create it or choose another")
        self._sound = None if audio_from is None else _sound_start(Path(audio_from))
        if self._sound and not self.suffix:
            _log.warning("%s: a folder of images has no sound, it is left out", path)
        self._sink: _Movie | _Folder | None = None
        self._shape: tuple[int, ...] = ()
        self._last = -math.inf

    def _check_replaceable(self, overwrite: bool) -> None:
        if not overwrite:
            _refuse(self.path, "an existing output", "a new name, or overwrite to replace it")
        if self.suffix and not self._target.is_file():
            _refuse(self.path, "an output that is not a file", "a file or a new name")
        if not self.suffix:
            folder, own = self._target, re.compile(r"\d{8,}\.png")
            if not folder.is_dir() or not all(own.fullmatch(p.name) for p in folder.iterdir()):
                received = "something other than a folder of images 00000000.png and so on"
                _refuse(self.path, received, "such a folder to replace, or a new name")

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray, pts_seconds: float) -> None:
        """Append a frame: ``image`` uint8 [H, W, 3] RGB or [H, W, 4] RGBA, at ``pts_seconds``.

        All images have one shape; times are at least 0 and increase. Raises InputError.
        """
        shape = image.shape
        if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (3, 4) or 0 in shape:
            _refuse(self.path, f"an image {image.dtype} {list(shape)}", "uint8 [H, W, 3 or 4]")
        if shape[2] == 4 and self.suffix not in ("", ".mov", ".webm"):
            expected = "RGB, or as output .webm, .mov or a folder"
            _refuse(self.path, f"images with alpha for {self.suffix}", expected)
        if self._sink is not None and shape != self._shape:
            _refuse(self.path, f"an image {list(shape)}", f"{list(self._shape)} as the first")
        if not (0 <= pts_seconds < math.inf and pts_seconds > self._last):
            _refuse(self.path, f"a frame at {pts_seconds} s after {self._last} s", "a later time")
        with self._failures_explained():
            if self._sink is None:
                sink = _Movie if self.suffix else _Folder
                self._sink = sink(self, self._temporary, shape)
            self._sink.write(image, pts_seconds)
        self._shape, self._last = shape, pts_seconds

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sink is None:
            if kind is None:
                _refuse(self.path, "no frames to write", "at least one")
            return
        complete = False
        try:
            if kind is None:
                with self._failures_explained():
                    self._sink.finish()
                    self._replace()
                complete = True
        finally:
            if not complete:
                self._sink.discard()

    def _replace(self) -> None:
        old = self._temporary.with_suffix(".old")
        if self._target.is_dir():
            self._target.rename(old)  # a folder cannot be replaced in one step
        try:
            self._temporary.replace(self._target)
        except BaseException:
            if old.exists():
                old.rename(self._target)
            raise
        shutil.rmtree(old, ignore_errors=True)

    @contextlib.contextmanager
    def _failures_explained(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            received = f"an output that cannot be written ({_reason(error)})"
            _refuse(self.path, received, "space and permission; nothing was kept")


class _Folder:
    """A new folder ``path`` of PNG images."""

    def __init__(self, writer: VideoWriter, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.count = path, 0
        self.encoder: Any = av.CodecContext.create("png", "w")
        self.encoder.height, self.encoder.width, channels = shape
        self.encoder.pix_fmt = "rgba" if channels == 4 else "rgb24"
        self.encoder.time_base = Fraction(1)
        self.encoder.thread_count = 1  # more would hold images back
        self.encoder.options = {"compression_level": "1"}  # a fifth of the time, 7 % more bytes
        self.path.mkdir()

    def write(self, image: np.ndarray, seconds: float) -> None:
        frame: Any = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image), format=self.encoder.pix_fmt
        )
        frame.pts = self.count
        data = b"".join(bytes(packet) for packet in self.encoder.encode(frame))
        (self.path / f"{self.count:08d}.png").write_bytes(data)
        self.count += 1

    def finish(self) -> None:
        pass

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class _Movie:
    """A new video file ``path`` with the sound of the writer."""

    def __init__(self, writer: VideoWriter, path: Path, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        self.path, rate = path, writer.frame_rate
        self.format = "rgba" if channels == 4 else "rgb24"
        codec, options = "libx264", {"crf": str(writer.crf), "preset": "medium"}
        pixels = "yuv420p" if width % 2 == 0 == height % 2 else "yuv444p"
        if path.suffix == ".webm":
            codec, pixels = "libvpx-vp9", "yuva420p" if channels == 4 else "yuv420p"
            quality = round(writer.crf * 63 / 51)
            options = {"crf": str(quality), "b": "0", "cpu-used": "4", "row-mt": "1"}
            if channels == 4:
                options["auto-alt-ref"] = "0"  # as libvpx demands
        elif channels == 4:
            codec, pixels, options = "prores_ks", "yuva444p10le", {"profile": "4444"}
        # A multiple of the frame rate, for a constant one to be exact
        self.tick = Fraction(1, rate.numerator * math.ceil(90000 / rate.numerator))
        if path.suffix == ".avi":
            self.tick = 1 / rate
            options["bf"] = "0"  # AVI knows no order of display
        self.last_duration = round(1 / rate / self.tick)

        flags = {"movflags": "+faststart"} if path.suffix in _EDIT_LISTS else {}
        self.container: Any = av.open(str(path), "w", container_options=flags)
        self.stream = self.container.add_stream(codec, rate=rate, options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, pixels
        self.stream.thread_type = "AUTO"  # with PyAV's default x264 cuts frames into slices
        context = self.stream.codec_context
        context.time_base, context.sample_aspect_ratio = self.tick, writer.pixel_aspect
        context.colorspace, context.color_range = _colorspace(width, height), _LIMITED_RANGE
        context.color_primaries = context.color_trc = _BT709
        self.convert = VideoReformatter()
        self.held: Any = None
        self.first_pts, self.first_dts = 0, None
        self.sound: Iterator[Any] = iter(())
        if writer._sound is not None:
            self.sound = _sound(*writer._sound, self.container, path.suffix)
        self.sound_packet: Any = next(self.sound, None)

    def write(self, image: np.ndarray, seconds: float) -> None:
        frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=self.format)
        frame = self.convert.reformat(
            frame,
            format=self.stream.pix_fmt,
            dst_colorspace={_BT709: 1, _BT601: 5}[self.stream.codec_context.colorspace],
            dst_color_range=_LIMITED_RANGE,
            interpolation=_ACCURATE,
        )
        frame.pts, frame.time_base = round(seconds / self.tick), self.tick
        if self.held is None:
            self.first_pts = frame.pts
        else:
            frame.pts = max(frame.pts, self.held.pts + 1)
            self._mux(self._encode(frame.pts - self.held.pts))
        self.held = frame  # until its duration is known

    def _encode(self, duration: int) -> list[Any]:
        self.held.duration = duration
        packets: list[Any] = self.stream.encode(self.held)
        return packets

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self.first_dts is None:
                self.first_dts = packet.dts
            self._mux_sound(packet.dts * packet.time_base)
            self.container.mux(packet)

    def _mux_sound(self, until: Fraction) -> None:
        while (sound := self.sound_packet) is not None and sound.pts * sound.time_base < until:
            self.container.mux(sound)
            self.sound_packet = next(self.sound, None)

    def finish(self) -> None:
        end = self.held.pts + self.last_duration
        packets = [*self._encode(self.last_duration), *self.stream.encode(None)]
        # MP4 adds up decoding times, which at a variable rate end long before the frames do.
        first_dts = packets[0].dts if self.first_dts is None else self.first_dts
        missing = (end - self.first_pts) - (packets[-1].dts - first_dts)
        packets[-1].duration = max(packets[-1].duration, missing)
        self._mux(packets)
        self._mux_sound(end * self.tick)
        self.container.close()

    def discard(self) -> None:
        # The name first: closing would move all the data of a file that nobody wants.
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            self.container.close()
        self.path.unlink(missing_ok=True)


def _sound_start(path: Path) -> tuple[Path, float] | None:
    """The file and the time in it that is 0 for its VideoReader; None without sound."""
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return None
    with _open(path) as container:
        if not container.streams.audio:
            return None
        if _video_stream(container) is None:
            return path, (container.start_time or 0) / av.time_base
    return path, VideoReader(path).start_seconds


def _sound(path: Path, start: float, output: Any, suffix: str) -> Iterator[Any]:
    """Packets of the first sound track, ``start`` seconds earlier, for a new stream of ``output``.

    The stream is made at once, as ``output`` must have it before its first packet.
    """
    container = _open(path)
    source = container.streams.audio[0]
    name = source.codec_context.name.removesuffix("float") if source.codec_context else ""
    copied = name in _COPIED_SOUND[suffix].split()
    try:
        if copied:
            target = output.add_stream_from_template(source)
        else:
            name = {".webm": "libopus", ".avi": "libmp3lame"}.get(suffix, "aac")
            layout = "mono" if source.codec_context.channels == 1 else "stereo"
            target = output.add_stream(name, rate=48000, layout=layout, bit_rate=192_000)
    except (ValueError, AttributeError, av.FFmpegError) as error:
        _log.warning("%s: the sound is left out (%s)", path, error)
        return iter(())
    # Before the first frame only what sets a decoder going is kept, and only where edit lists or
    # Opus hide it; elsewhere it would shift the frames.
    earliest = -0.1 if suffix in _EDIT_LISTS else -0.02 if "opus" in name else 0.0

    def packets() -> Iterator[Any]:
        graph = None
        for packet in container.demux(source):
            for piece in [packet] if copied else packet.decode():
                if piece.pts is None:
                    continue
                piece.pts -= round(start / piece.time_base)
                if copied:
                    yield piece
                else:
                    graph = graph or _even_sound(piece)
                    yield from encoded(graph, piece)
        if graph is not None:
            yield from encoded(graph, None)
            yield from target.encode(None)

    def encoded(graph: Any, frame: Any) -> Iterator[Any]:
        graph.push(frame)
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                yield from target.encode(graph.pull())

    def accepted() -> Iterator[Any]:
        last = -math.inf
        try:
            for packet in packets():
                if packet.pts > last and packet.pts * packet.time_base >= earliest:
                    packet.dts, packet.stream, last = packet.pts, target, packet.pts
                    yield packet
        except (ValueError, av.FFmpegError) as error:
            _log.warning("%s: the sound ends early (%s)", path, error)

    return accepted()


def _even_sound(first: Any) -> Any:
    """A filter from frames like ``first`` to 48 kHz from 0 s on, with silence in the gaps."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=first.sample_rate,
        format=first.format.name,
        layout=first.layout.name,
        time_base=first.time_base,
    )
    resampler = graph.add("aresample", "48000:async=1:first_pts=0")
    graph.link_nodes(source, resampler, graph.add("abuffersink")).configure()
    return graph
