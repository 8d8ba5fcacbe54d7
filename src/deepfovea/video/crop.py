"""Reads the crop that a container asks for; FFmpeg's libraries read it, but PyAV hides it.

Sources: RFC 9559 (Matroska), the elements PixelCropTop, -Bottom, -Left and -Right; ISO/IEC
14496-12, clean aperture. The decoder applies the crop inside H.264 and HEVC streams.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Identifiers of Matroska elements (RFC 9559)
_SEGMENT, _TRACKS, _TRACK, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0
_TOP, _BOTTOM, _LEFT, _RIGHT = 0x54BB, 0x54AA, 0x54CC, 0x54DD
_VIDEO_TYPE = 1  # the TrackType of video (RFC 9559)
_MAX_PART_BYTES = 2**28  # largest part that is read at once; our choice, real ones are far smaller
_SAMPLE_ENTRY_BYTES, _SIZE_OFFSET = 78, 24
"""Number of bytes in a VisualSampleEntry, without its header, before the boxes in it, and before
its width and height (ISO/IEC 14496-12)."""


class Crop(NamedTuple):
    """Pixels to remove on each side of the decoded picture, before its rotation."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


NO_CROP = Crop()


def container_crop(path: Path, kind: str, number: int) -> Crop:
    """The crop of a video track; NO_CROP if the file has none or cannot be parsed.

    Args:
        path: path of the file.
        kind: FFmpeg's name of its format.
        number: number of the track among the video tracks, from 0.
    """
    try:
        with path.open("rb") as file:
            if "matroska" in kind:
                crops = list(_of_matroska(file))
            elif "mov" in kind:
                crops = list(_of_mp4(file))
            else:
                return NO_CROP
    except (OSError, struct.error, ValueError, ZeroDivisionError, IndexError):
        return NO_CROP
    crop = crops[number] if number < len(crops) else NO_CROP
    return crop if min(crop) >= 0 else NO_CROP


def _of_matroska(file: BinaryIO) -> Iterator[Crop]:
    """The crops of all video tracks."""
    for name, size in _elements(file, None):
        if name != _SEGMENT:
            _skip(file, size)
            continue
        for inner, length in _elements(file, size):
            if inner != _TRACKS:
                _skip(file, length)
                continue
            for _, track in _inside(_read(file, length), _TRACK):
                fields = dict(_inside(track))
                if int.from_bytes(fields.get(_TYPE, b""), "big") == _VIDEO_TYPE:
                    video = dict(_inside(fields.get(_VIDEO, b"")))
                    sides = (video.get(side, b"") for side in (_TOP, _BOTTOM, _LEFT, _RIGHT))
                    yield Crop(*(int.from_bytes(side, "big") for side in sides))
            return


def _elements(file: BinaryIO, size: int | None) -> Iterator[tuple[int, int | None]]:
    """Iterate over identifiers and sizes of elements; the file is at the start of their data."""
    end = None if size is None else file.tell() + size
    while end is None or file.tell() < end:
        name = _number(file, keep_marker=True)
        length = _number(file, keep_marker=False)
        if name is None:
            return
        here = file.tell()
        yield name, length
        if length is not None:
            file.seek(here + length)


def _number(file: BinaryIO, keep_marker: bool) -> int | None:
    """EBML's variable-size integer (RFC 8794); None for an unknown size or the end of the file."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value


def _inside(data: bytes, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The elements in some data: all, or those of one identifier."""
    file = io.BytesIO(data)
    for name, length in _elements(file, len(data)):
        if only in (None, name):
            yield name, file.read(length or 0)


def _skip(file: BinaryIO, length: int | None) -> None:
    if length is None:  # as in a live recording: its end is not known
        raise ValueError("unknown size")


def _of_mp4(file: BinaryIO) -> Iterator[Crop]:
    """The crops of all video tracks."""
    end = file.seek(0, 2)
    file.seek(0)
    moov = b""
    while file.tell() + 8 <= end:
        start = file.tell()
        size, name = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = struct.unpack(">Q", file.read(8))[0]
        if name == b"moov":
            moov = _read(file, size - (file.tell() - start))
            break
        if size == 0:
            return
        file.seek(start + size)
    for trak in _atoms(moov, b"trak"):
        media = _first(trak, b"mdia")
        if _first(media, b"hdlr")[8:12] != b"vide":
            continue
        described = _first(_first(_first(media, b"minf"), b"stbl"), b"stsd")
        yield _clean_aperture(described[8:])


def _clean_aperture(description: bytes) -> Crop:
    entry = description[8 : struct.unpack(">I", description[:4])[0]]
    clap = _first(entry[_SAMPLE_ENTRY_BYTES:], b"clap")
    if not clap:
        return NO_CROP
    numbers = struct.unpack(">IIIIiIiI", clap[:32])
    # x and y are the offset of its centre from that of the picture
    width, height, x, y = (Fraction(numbers[i], numbers[i + 1]) for i in (0, 2, 4, 6))
    coded_width, coded_height = struct.unpack_from(">HH", entry, _SIZE_OFFSET)
    left, top = (coded_width - width) / 2 + x, (coded_height - height) / 2 + y
    return Crop(
        top=round(top),
        bottom=round(coded_height - height - top),
        left=round(left),
        right=round(coded_width - width - left),
    )


def _atoms(data: bytes, name: bytes) -> Iterator[bytes]:
    at = 0
    while at + 8 <= len(data):
        size, found = struct.unpack(">I4s", data[at : at + 8])
        if size < 8:
            return
        if found == name:
            yield data[at + 8 : at + size]
        at += size


def _first(data: bytes, name: bytes) -> bytes:
    return next(_atoms(data, name), b"")


def _read(file: BinaryIO, length: int | None) -> bytes:
    if length is None or not 0 <= length <= _MAX_PART_BYTES:
        raise ValueError("a part of unlikely size")
    return file.read(length)
