"""What reading and writing share: opening files, their formats and colour codes, refusals."""

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

IMAGE_SUFFIXES = (".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff",
                  ".webp")  # fmt: skip
"""Suffixes, in lower case, of the images that are read."""

READ_ONLY_SUFFIXES = (
    ".3g2", ".3gp", ".264", ".265", ".apng", ".asf", ".divx", ".dv", ".f4v", ".flv", ".gif",
    ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m2v", ".mjpeg", ".mjpg", ".mpeg", ".mpg", ".mts",
    ".mxf", ".nut", ".ogg", ".ogv", ".ts", ".vob", ".wmv", ".y4m",
)  # fmt: skip
"""Suffixes, in lower case, of further videos that are found in folders. Any name can be read."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
"""Suffixes that can be written. A name without a suffix is a folder of PNG images."""

ALPHA_SUFFIXES = ("", ".mkv", ".mov", ".webm")
"""Outputs that hold alpha; "" is a folder. That of .webm is compressed by VP9, colours too."""

EDIT_LISTS = (".mp4", ".m4v", ".mov")
"""Those whose container can hide what comes before the first frame."""

_TEXT_ART = ("adf", "bin", "idf", "tty", "xbin")  # FFmpeg renders a .txt file as a video
SWS_ACCURATE = 0x2 | 0x2000 | 0x4000 | 0x40000
"""FFmpeg's libswscale/swscale.h: SWS_BILINEAR, SWS_FULL_CHR_H_INT, SWS_FULL_CHR_H_INP and
SWS_ACCURATE_RND. Its default repeats chroma samples, which moves colours by half a pixel."""
# Code points of ITU-T H.273, as FFmpeg has them
BT709, UNSPECIFIED, RESERVED, BT601 = 1, 2, 3, 6
LIMITED_RANGE, FULL_RANGE, RGB = 1, 2, 0
DEFAULT_FRAME_RATE = 24
"""Frames per second of images, unless told. Chosen: that of film."""
MIN_FRAME_RATE, MAX_FRAME_RATE = Fraction(1, 86400), 1000
"""Frames per second: one a day, and as many as whole milliseconds can tell apart. Chosen."""
MAX_DENOMINATOR = 1001
"""Of frame rates and the shapes of pixels: that of 29.97 = 30000 / 1001 (NTSC)."""
_HD_WIDTH, _SD_HEIGHT = 1280, 576
"""Pixels: from this width on, or above this height, a video that does not say is taken for BT.709.
The narrowest HD format has 1280 columns, the highest SD format, PAL, 576 rows."""
# Bad text in metadata is no reason not to open a file; PyAV 19 knows that by itself.
_METADATA_OPTIONS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def silence() -> None:
    """Switch FFmpeg's log off: errors are exceptions anyway.

    Before each file, as older versions of torchvision switch it on when they are imported. Its
    lines would be among our own, and they take Python's lock: an encoder that is given up waits,
    with that lock, for its threads, which wait for it to say something.
    """
    av.logging.set_level(None)


def refuse(path: str | Path, received: str, expected: str) -> NoReturn:
    """Raise InputError in one line, without the context of what went wrong below."""
    message = f"{path}: received {received}; expected {expected}"
    raise InputError(" ".join(message.splitlines())) from None


def reason_of(error: Exception) -> str:
    """What the operating system or FFmpeg says, without numbers and paths."""
    return str(getattr(error, "strerror", None) or error)


def fraction(value: Any) -> Fraction:
    """PyAV's None, Fraction or (from 19 on) AVRational as a Fraction; 0 if unknown."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


def checked_rate(path: str | Path, rate: float | Fraction) -> Fraction:
    """A frame rate as a fraction; InputError unless it is a positive number."""
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


def open_media(path: Path) -> Any:
    """The container of a file that FFmpeg can read, or InputError."""
    expected = "a video or images; check the path and the file"
    silence()
    try:
        size = path.stat().st_size  # an image that is not there would be opened all the same
        if not path.is_file():  # FFmpeg would wait for what comes out of a pipe
            refuse(path, "no file, but a pipe or device", expected)
        if size == 0:
            refuse(path, "an empty file", expected)
        container = av.open(
            str(path.absolute()),  # a relative "12:30.mp4" would be taken for a protocol,
            container_options={"pattern_type": "none"},  # "%d.png" for a series of files
            **_METADATA_OPTIONS,
        )
    except (av.FFmpegError, OSError) as error:
        hint = _pattern_hint(path) if isinstance(error, FileNotFoundError) else ""
        refuse(path, f"no file that can be read ({reason_of(error)})", expected + hint)
    if container.format.name in _TEXT_ART:
        refuse(path, "a text file", expected)
    return container


def _pattern_hint(path: Path) -> str:
    """What is said of ``frame_%04d.png`` and ``*.png``, which other programs take for a series."""
    is_pattern = re.search(r"%0?\d*d|[*?]|\[.+\]", path.name) and path.parent.is_dir()
    return f"; for a series of images give their folder, {path.parent}" if is_pattern else ""


def video_stream(container: Any) -> Any:
    """The first video stream that is not the cover picture of a sound file, or None."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def colorspace_of(width: int, height: int) -> int:
    """The colour matrix of a video that does not say: BT.709 for HD sizes, else BT.601."""
    return BT709 if width >= _HD_WIDTH or height > _SD_HEIGHT else BT601
