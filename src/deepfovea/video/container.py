"""Shared by reading and writing: opening files, formats, colour codes and error messages."""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
import av.logging
from av.stream import Disposition

from ..config import InputError
from ..foreign import stand_in

IMAGE_SUFFIXES = (".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff",
                  ".webp")  # fmt: skip
"""Suffixes, in lower case, of images that can be read."""

RADIANCE_SUFFIXES = frozenset((".exr", ".hdr"))
"""Suffixes, in lower case, of images of linear radiance, which a folder may not hold."""

READ_ONLY_SUFFIXES = (
    ".3g2", ".3gp", ".264", ".265", ".apng", ".asf", ".divx", ".dv", ".f4v", ".flv", ".gif",
    ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m2v", ".mjpeg", ".mjpg", ".mpeg", ".mpg", ".mts",
    ".mxf", ".nut", ".ogg", ".ogv", ".ts", ".vob", ".wmv", ".y4m",
)  # fmt: skip
"""Further suffixes, in lower case, of videos that a search of a folder finds. A file that is named
itself may have any suffix."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
"""Suffixes that can be written. A name without a suffix is a folder of PNG images."""

ALPHA_SUFFIXES = ("", ".mkv", ".mov", ".webm")
"""Suffixes of outputs that can store alpha; "" is a folder."""

EDIT_LISTS = (".mp4", ".m4v", ".mov")
"""Suffixes of containers that can hide a part before the first frame."""

_TEXT_ART = ("adf", "bin", "idf", "tty", "xbin")  # by these FFmpeg would show text as a video
SWS_ACCURATE = 0x2 | 0x2000 | 0x4000 | 0x40000
"""FFmpeg's libswscale/swscale.h: SWS_BILINEAR, SWS_FULL_CHR_H_INT, SWS_FULL_CHR_H_INP and
SWS_ACCURATE_RND. Its default repeats chroma samples, which moves colours by half a pixel."""
# Code points of ITU-T H.273, which FFmpeg uses
BT709, UNSPECIFIED, RESERVED, BT601 = 1, 2, 3, 6
LIMITED_RANGE, FULL_RANGE, RGB = 1, 2, 0  # the first two are numbers of FFmpeg's AVColorRange
DEFAULT_FRAME_RATE = 24
"""Default frame rate of images, frames per second. Our choice: that of film."""
MIN_FRAME_RATE, MAX_FRAME_RATE = Fraction(1, 86400), 1000
"""Frames per second: one a day, and as many as whole milliseconds can distinguish. Our choice."""
MAX_DENOMINATOR = 1001
"""Largest denominator of frame rates and pixel aspect ratios: that of 29.97 = 30000 / 1001 (NTSC).
"""
_HD_WIDTH, _SD_HEIGHT = 1280, 576
"""From this width in pixels on, or above this height, a video that states no matrix is assumed to
have that of BT.709: the narrowest HD format has 1280 columns, the tallest SD format, PAL, 576
rows."""
# Files with invalid text in their metadata can be opened; PyAV does so by itself from 19 on.
_METADATA_OPTIONS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def silence() -> None:
    """Switch FFmpeg's log off, as its errors are raised as exceptions anyway.

    It is called before each file is opened, as older versions of torchvision switch the log on when
    they are imported. The log would not only mix with our own messages. It could also cause a
    deadlock: closing an encoder waits for its threads while it holds Python's global lock, and its
    threads wait for that lock to log a message.
    """
    av.logging.set_level(None)


def refuse(path: str | Path, received: str, expected: str) -> NoReturn:
    """Raise InputError with a message of one line, without the exception that caused it."""
    message = f"{path}: received {received}; expected {expected}"
    raise InputError(" ".join(message.splitlines())) from None


def reason_of(error: Exception) -> str:
    """The message of the operating system or FFmpeg, without numbers and paths."""
    return str(getattr(error, "strerror", None) or error)


def fraction(value: Any) -> Fraction:
    """Convert PyAV's None, Fraction or (from 19 on) AVRational to a Fraction; None becomes 0."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


def checked_rate(path: str | Path, rate: float | Fraction) -> Fraction:
    """Convert a frame rate to a fraction; InputError if it is out of range."""
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        exact = Fraction(rate)
        if MIN_FRAME_RATE <= exact < 1:
            return 1 / (1 / exact).limit_denominator(MAX_DENOMINATOR)
        exact = exact.limit_denominator(MAX_DENOMINATOR)
        if 1 <= exact <= MAX_FRAME_RATE:
            return exact
    refuse(path, f"a frame rate of {rate}", f"one frame a day to {MAX_FRAME_RATE} a second")


def checked_suffix(path: Path) -> str:
    """The suffix of an output in lower case; InputError for one that cannot be written."""
    suffix = path.suffix.lower()
    if suffix not in ("", *VIDEO_SUFFIXES):
        known = f"{' '.join(VIDEO_SUFFIXES)}, or none for a folder of images"
        refuse(path, f"the suffix {suffix} for an output", known)
    return suffix


def open_media(path: Path, hwaccel: Any = None) -> Any:
    """Open a file with FFmpeg, on the device of PyAV's ``hwaccel`` if it is given.

    Raises:
        InputError: the file cannot be read, or the device cannot be used.
    """
    expected = "a video or images; check the path and the file"
    silence()
    try:
        size = path.stat().st_size  # FFmpeg would open a missing image without an error
        if not path.is_file():  # FFmpeg would wait for data from a pipe
            refuse(path, "no file, but a pipe or device", expected)
        if size == 0:
            refuse(path, "an empty file", expected)
        with path.open("rb") as file:
            instead = stand_in(file.read(1024))
        if instead:
            refuse(path, instead.what, f"a video or images; {instead.advice}")
        container = av.open(
            str(path.absolute()),  # else "12:30.mp4" would be understood as a protocol,
            container_options={"pattern_type": "none"},  # and "%d.png" as a series of files
            hwaccel=hwaccel,
            **_METADATA_OPTIONS,
        )
    except (av.FFmpegError, OSError) as error:
        hint = _pattern_hint(path) if isinstance(error, FileNotFoundError) else ""
        refuse(path, f"no file that can be read ({reason_of(error)})", expected + hint)
    if container.format.name in _TEXT_ART:
        refuse(path, "a text file", expected)
    return container


def _pattern_hint(path: Path) -> str:
    """A hint for paths such as ``frame_%04d.png`` and ``*.png``, which other programs accept."""
    is_pattern = re.search(r"%0?\d*d|[*?]|\[.+\]", path.name) and path.parent.is_dir()
    return f"; for a series of images give their folder, {path.parent}" if is_pattern else ""


def video_stream(container: Any) -> Any:
    """The first video stream that is not the cover picture of an audio file, or None."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def colorspace_of(width: int, height: int) -> int:
    """The colour matrix of a video that states none: BT.709 for HD sizes, else BT.601."""
    return BT709 if width >= _HD_WIDTH or height > _SD_HEIGHT else BT601
