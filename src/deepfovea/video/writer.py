"""Writing of a video file or a folder of images; the output is complete or absent."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from ..io import atomic
from ..io.prefetch import few_processors
from .audio import find_sound, sound_packets
from .container import (
    ALPHA_SUFFIXES,
    BT601,
    BT709,
    DEFAULT_FRAME_RATE,
    EDIT_LISTS,
    FULL_RANGE,
    LIMITED_RANGE,
    MAX_DENOMINATOR,
    RGB,
    SWS_ACCURATE,
    checked_rate,
    checked_suffix,
    colorspace_of,
    reason_of,
    refuse,
    silence,
)
from .hardware import ENCODER, checked_hwaccel, encoder_options, encoder_trouble
from .yuv import YUV420

X264 = {"preset": "ultrafast", "bf": "3", "x264-params": "deblock=0,0"}
"""Options of x264. They give the quality of the preset "veryfast" in a quarter of its time, with
files that are half as large again: measured by benchmarks/encoding.py."""
DEFAULT_CRF, MAX_CRF, MAX_CRF_VP9 = 20, 51, 63
"""Default quality (our choice), and the worst quality on the scales of x264 for 8 bits and of
libvpx."""
MIN_TICKS_PER_SECOND = 90000
"""Resolution of the times in a file: that of time stamps in MPEG-2 systems (ISO/IEC 13818-1)."""

_SWS_COLORSPACE = {BT709: 1, BT601: 5}
"""Matrices by their numbers in FFmpeg's libswscale/swscale.h: SWS_CS_ITU709 and SWS_CS_ITU601."""

_log = logging.getLogger(__name__)


class VideoWriter:
    """Writes a video file, or a folder of PNG images; the output is complete or absent.

    The suffix decides: H.264 for .mp4 .m4v .mov .mkv .avi, VP9 for .webm, and without a suffix
    a folder with ``00000000.png`` and so on, lossless. RGBA can be written to folders, .mkv (FFV1,
    lossless), .mov (ProRes 4444, lossless alpha) and .webm (VP9, lossless alpha, colours at half
    the resolution). ``crf`` is the quality on the scale of x264, 0 (best) to 51. The size is kept
    exactly: H.264 stores an odd width or height as 4:4:4, which some players, and browsers, cannot
    show. Colours are BT.709 or BT.601, by the rule of :class:`VideoReader`, in limited range, and
    the file says so.

    Times are exact to half a tick of 1/90000 s or finer, in .mkv and .webm of 1 ms. AVI has only
    the constant ``frame_rate`` (1/s): frames are repeated, or left out if several fall into one
    interval, and a warning says how many. Folders have no times; a warning says so if
    ``frame_rate`` is not the default. The last frame lasts ``1 / frame_rate``. ``pixel_aspect`` is
    the width / height of a pixel.

    ``audio_from`` names a video whose sound is added for as long as the frames last; its times
    count from the first frame of that video. The track is number ``audio_track``, from 1, or the
    one marked as default, or the first. It is copied, or converted to stereo AAC, Opus (.webm) or
    MP3 (.avi) if the container cannot hold it. A file without sound adds none; for a folder of
    images the sound is left out with a warning.

    With ``hwaccel`` ``cuda``, an NVIDIA GPU encodes H.264 if it can, at a constant quality on the
    same scale. If it cannot, or the output is of another kind, the CPU does, and a warning says
    why.

    Use it as a context manager. Frames are written under a hidden temporary name in the same
    folder. It becomes the final name if the ``with`` block succeeds; otherwise the file is removed.
    An existing output is refused, or with ``overwrite`` replaced at the end (a folder only if it
    contains nothing but images named as above). Until then it may still be read, even as the input.

    Raises InputError in the constructor if the output cannot be written; while writing for an image
    of another shape, a time that does not increase, or a failure such as a full disk; at the end if
    there were no frames.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        frame_rate: float | Fraction,
        audio_from: str | Path | None = None,
        audio_track: int | None = None,
        overwrite: bool = False,
        crf: int = DEFAULT_CRF,
        pixel_aspect: float | Fraction = 1,
        hwaccel: str = "none",
    ) -> None:
        self.path = Path(path)
        self.hwaccel = checked_hwaccel(hwaccel)
        self.suffix = checked_suffix(self.path)
        if not 0 <= crf <= MAX_CRF:
            refuse(path, f"crf {crf}", f"0 (best) to {MAX_CRF}")
        self.frame_rate = checked_rate(path, frame_rate)
        self.crf = crf
        self.pixel_aspect = Fraction(pixel_aspect).limit_denominator(MAX_DENOMINATOR)
        self._target = Path(os.path.realpath(path))  # a link stays, and its target is replaced
        if self._target.exists():
            self._check_replaceable(overwrite)
        try:  # by a trial, as permission bits are not reliable, and say nothing to an administrator
            trial = atomic.temporary_path(self._target)
            trial.touch(exist_ok=False)
            trial.unlink(missing_ok=True)
        except OSError as error:
            received = (
                f"a folder that cannot be written, {self._target.parent} ({reason_of(error)})"
            )
            refuse(path, received, "an existing writable folder; create it or choose another")
        self._sound = None if audio_from is None else find_sound(Path(audio_from), audio_track)
        if self._sound and not self.suffix:
            _log.warning("%s: a folder of images has no sound, it is left out", path)
        if not self.suffix and self.frame_rate != DEFAULT_FRAME_RATE:
            rate = self.frame_rate
            _log.warning(
                "%s: a folder of images has no times: give --frame-rate %s with it", path, rate
            )
        if self.suffix == ".webm" and self.pixel_aspect != 1:
            _log.warning("%s: .webm keeps no shape of pixels: it will look stretched", path)
        self._overwrite = overwrite
        self._temporary = self._target
        self._lock: int | None = None
        self._sink: _VideoFile | _ImageFolder | None = None
        self._shape: tuple[int, ...] = ()
        self._last = -math.inf

    def _check_replaceable(self, overwrite: bool) -> None:
        if not overwrite:
            refuse(self.path, "an existing output", "a new name, or --overwrite to replace it")
        if self.suffix and not self._target.is_file():
            refuse(self.path, "an output that is not a file", "a file or a new name")
        if not self.suffix:
            folder, own = self._target, re.compile(r"\d{8,}\.png|sampling\.json")
            if not folder.is_dir() or not all(own.fullmatch(p.name) for p in folder.iterdir()):
                received = "something other than a folder of images 00000000.png and so on"
                refuse(self.path, received, "such a folder to replace, or a new name")

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray | YUV420, pts_seconds: float) -> None:
        """Append a frame.

        Args:
            image: uint8 [H, W, 3] RGB or [H, W, 4] RGBA; or, for a video file, :class:`YUV420` of
                one frame, luma [1, H, W], by the matrix for this size (:func:`colorspace_of`),
                which needs no conversion. All images must have the same shape.
            pts_seconds: its time, 0 or more, later than that of the frame before.

        Raises:
            InputError: the image or the time is something else, or writing fails.
        """
        if isinstance(image, YUV420):
            shape = self._shape_of(image)
        else:
            shape = image.shape
            if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (3, 4) or 0 in shape:
                refuse(self.path, f"an image {image.dtype} {list(shape)}", "uint8 [H, W, 3 or 4]")
        if shape[2] == 4 and self.suffix not in ALPHA_SUFFIXES:
            expected = "RGB, or as output .mkv, .mov, .webm or a folder"
            refuse(self.path, f"images with alpha for {self.suffix}", expected)
        if self._sink is not None and shape != self._shape:
            refuse(self.path, f"an image {list(shape)}", f"{list(self._shape)} as the first")
        if not (0 <= pts_seconds < math.inf and pts_seconds > self._last):
            refuse(self.path, f"a frame at {pts_seconds} s after {self._last} s", "a later time")
        with self._failures_explained():
            if self._sink is None:
                self._temporary, self._lock = atomic.create_temporary(
                    self._target, folder=not self.suffix
                )
                self._sink = (_VideoFile if self.suffix else _ImageFolder)(
                    self, self._temporary, shape
                )
            self._sink.write(image, pts_seconds)
        self._shape, self._last = shape, pts_seconds

    def attach(self, name: str, content: bytes) -> None:
        """Add a file to a folder of images. Call it after the first frame.

        Raises InputError if the output is not a folder.
        """
        if not isinstance(self._sink, _ImageFolder):
            refuse(self.path, f"{name} for a video file", "a folder of images")
        with self._failures_explained():
            (self._temporary / name).write_bytes(content)

    def _shape_of(self, planes: YUV420) -> tuple[int, ...]:
        if not self.suffix:
            refuse(self.path, "planes for a folder of images", "RGB")
        luma, chroma = (list(plane.shape) for plane in planes)
        kinds = [plane.dtype for plane in planes]
        sides = [2 * side for side in chroma[1:]]
        fitting = len(chroma) == 3 and chroma[0] == 2 and luma == [1, *sides] and 0 not in luma
        if not fitting or kinds != [torch.uint8] * 2:
            received = f"planes {kinds[0]} {luma}, {kinds[1]} {chroma}"
            refuse(self.path, received, "uint8 [1, H, W], [2, H/2, W/2]")
        return *sides, 3

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        complete = False
        try:
            if kind is None:
                if self._sink is None:
                    refuse(self.path, "no frames to write", "at least one")
                with self._failures_explained():
                    self._sink.finish()
                    atomic.publish(self._temporary, self._target, overwrite=self._overwrite)
                complete = True
        finally:
            if not complete and self._lock is not None:
                self._discard()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _discard(self) -> None:
        # First the name, as closing an MP4 would first move all its data.
        shutil.rmtree(self._temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._temporary.unlink()
        if self._sink is not None:
            self._sink.abandon()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    @contextlib.contextmanager
    def _failures_explained(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            received = "an output that has appeared while this was written"
            refuse(self.path, received, "a new name, or --overwrite to replace it")
        except (av.FFmpegError, OSError) as error:
            received = f"an output that cannot be written ({reason_of(error)})"
            refuse(self.path, received, "space and permission; nothing was kept")


class _ImageFolder:
    """A new folder ``path`` of PNG images."""

    def __init__(self, writer: VideoWriter, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.count = path, 0
        self.encoder: Any = av.CodecContext.create("png", "w")
        self.encoder.height, self.encoder.width, channels = shape
        self.encoder.pix_fmt = "rgba" if channels == 4 else "rgb24"
        self.encoder.time_base = Fraction(1)
        self.encoder.thread_count = 1  # with more threads it would return images later
        self.encoder.options = {"compression_level": "1"}  # in a fifth of the time, 7 % more bytes

    def write(self, image: np.ndarray | YUV420, seconds: float) -> None:
        assert isinstance(image, np.ndarray)  # planes were refused
        frame: Any = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image), format=self.encoder.pix_fmt
        )
        frame.pts = self.count
        data = b"".join(bytes(packet) for packet in self.encoder.encode(frame))
        (self.path / f"{self.count:08d}.png").write_bytes(data)
        self.count += 1

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _VideoFile:
    """A new video file ``path`` with the sound of the writer."""

    def __init__(self, writer: VideoWriter, path: Path, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        self.path, rate = path, writer.frame_rate
        self.format = "rgba" if channels == 4 else "rgb24"
        codec, options = "libx264", {**X264, "crf": str(writer.crf)}
        pixels = "yuv420p" if width % 2 == 0 == height % 2 else "yuv444p"
        if path.suffix == ".webm":
            codec, pixels = "libvpx-vp9", "yuva420p" if channels == 4 else "yuv420p"
            quality = round(writer.crf * MAX_CRF_VP9 / MAX_CRF)
            options = {"crf": str(quality), "b": "0", "cpu-used": "4", "row-mt": "1"}
            if channels == 4:  # lossless for the alpha; libvpx asks for the second option then
                options = {"lossless": "1", "auto-alt-ref": "0", "cpu-used": "4", "row-mt": "1"}
        elif channels == 4 and path.suffix == ".mkv":
            codec, pixels, options = "ffv1", "bgra", {}
        elif channels == 4:
            codec, pixels, options = "prores_ks", "yuva444p10le", {"profile": "4444"}
        if writer.hwaccel != "none":
            trouble = f"a GPU encodes H.264, not {codec}"
            if codec == "libx264":
                trouble = encoder_trouble(height, width, pixels)
            if trouble:
                _log.warning("%s: is encoded on the CPU: %s", writer.path, trouble)
            else:
                codec, options = ENCODER, encoder_options(writer.crf)
        # Ticks per second are a multiple of the frame rate, so that a constant rate is exact
        per_frame = math.ceil(MIN_TICKS_PER_SECOND / rate.numerator)
        self.tick = Fraction(1, rate.numerator * per_frame)
        if path.suffix == ".avi":
            self.tick = 1 / rate
            options["bf"] = "0"  # AVI stores no order of display
        self.last_duration = round(1 / rate / self.tick)

        flags = {"movflags": "+faststart"} if path.suffix in EDIT_LISTS else {}
        silence()
        self.container: Any = av.open(str(path), "w", container_options=flags)
        self.stream = self.container.add_stream(codec, rate=rate, options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, pixels
        self.stream.thread_type = "AUTO"  # with PyAV's default, x264 would use slices
        if codec == "libx264" and few_processors():
            self.stream.codec_context.thread_count = 1  # a tenth less work in all
        context = self.stream.codec_context
        context.time_base, context.sample_aspect_ratio = self.tick, writer.pixel_aspect
        context.colorspace, context.color_range = colorspace_of(width, height), LIMITED_RANGE
        if pixels == "bgra":
            context.colorspace, context.color_range = RGB, FULL_RANGE
        context.color_primaries = context.color_trc = BT709
        self.convert = VideoReformatter()
        self.held: Any = None
        self.first_pts, self.first_dts = 0, None
        self.constant, self.repeated, self.left_out = path.suffix == ".avi", 0, 0
        self.name, self.rate = writer.path, rate
        self.sound: Iterator[Any] = iter(())
        if writer._sound is not None:
            self.sound = sound_packets(writer._sound, self.container, path.suffix)
        self.sound_packet: Any = next(self.sound, None)

    def write(self, image: np.ndarray | YUV420, seconds: float) -> None:
        if isinstance(image, YUV420):
            frame = _frame("yuv420p", [*image.luma.cpu().numpy(), *image.chroma.cpu().numpy()])
        elif self.stream.pix_fmt == "bgra":
            frame = self.convert.reformat(self._source(image), format="bgra")
        else:
            frame = self.convert.reformat(
                self._source(image),
                format=self.stream.pix_fmt,
                dst_colorspace=_SWS_COLORSPACE[self.stream.codec_context.colorspace],
                dst_color_range=LIMITED_RANGE,
                interpolation=SWS_ACCURATE,
            )
        frame.pts, frame.time_base = round(seconds / self.tick), self.tick
        if self.held is None:
            self.first_pts = frame.pts
        elif self.constant:
            frame.pts = max(frame.pts, self.held.pts)
            self.left_out += frame.pts == self.held.pts
            self._mux_until(frame.pts)
        else:
            frame.pts = max(frame.pts, self.held.pts + 1)
            self._mux(self._encode(frame.pts - self.held.pts))
        self.held = frame  # encoded when its duration is known

    def _mux_until(self, pts: int) -> None:
        """Encode the held frame as often as it is shown."""
        self.repeated += max(0, pts - self.held.pts - 1)
        for place in range(self.held.pts, pts):
            self.held.pts = place
            self._mux(self._encode(1))

    def _source(self, image: np.ndarray) -> Any:
        planes = image.transpose(2, 0, 1)
        if len(planes) == 4 or not planes.flags.c_contiguous:
            # It shares the image's memory, which is read before the caller continues
            return av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), self.format)
        return _frame("gbrp", [planes[1], planes[2], planes[0]])

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
        if self.repeated or self.left_out:
            _log.warning(
                "%s: AVI has a constant rate only, %s/s: %d frames were repeated, %d left out",
                *(self.name, self.rate, self.repeated, self.left_out),
            )
        end = self.held.pts + self.last_duration
        packets = [*self._encode(self.last_duration), *self.stream.encode(None)]
        # MP4 adds up durations of decoding, which at a variable rate end long before the frames do.
        first_dts = packets[0].dts if self.first_dts is None else self.first_dts
        missing = (end - self.first_pts) - (packets[-1].dts - first_dts)
        packets[-1].duration = max(packets[-1].duration, missing)
        self._mux(packets)
        self._mux_sound(end * self.tick)
        self.container.close()

    def abandon(self) -> None:
        with contextlib.suppress(Exception):
            self.container.close()


def _frame(pixels: str, planes: Sequence[np.ndarray]) -> Any:
    """Copy planes uint8 [h, w], of which the first has the frame's size, into a frame of FFmpeg."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixels)
    for to, plane in zip(frame.planes, planes, strict=True):
        rows, columns = plane.shape
        np.frombuffer(to, np.uint8).reshape(rows, -1)[:, :columns] = plane
    return frame
