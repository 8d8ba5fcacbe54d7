"""Files that Pillow reads instead of FFmpeg: TIFF, page by page, and animated WebP.

FFmpeg reads only the first page of a TIFF, decodes JPEG inside a TIFF to black, and does not
support animated WebP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from .container import reason_of, refuse
from .rgb import to_eight_bits

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_COMPRESSION, _KIND_OF_PAGE = 259, 254  # the tags Compression and NewSubfileType of TIFF 6.0
_JPEG = (6, 7)  # values of Compression: of TIFF 6.0, and of its later supplement (Adobe)
_UNTIMED_MILLISECONDS = 100  # of a frame with a duration of 0, which browsers show so long
_SMALLER, _MASK = 1, 4  # bits of NewSubfileType: a version of lower resolution, a mask (TIFF 6.0)
_READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B")
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_ALPHA = ("LA", "PA", "RGBA")


def pages_of(path: Path) -> list[int] | None:
    """The numbers of the pages that Pillow should read; None if FFmpeg should read the file.

    Raises:
        InputError: a TIFF that neither of them reads correctly.
    """
    if not path.is_file():  # reading would wait for a pipe
        return None
    try:
        with path.open("rb") as file:
            head = file.read(32)
            is_tiff = head[:4] in _TIFF
            if not is_tiff and not (head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"):
                return None
            pages, compressions = _directories(file, head) if is_tiff else ([], set())
    except OSError:
        return None
    try:
        with Image.open(path) as image:
            if is_tiff and image.mode in _READ:
                return pages
            if not is_tiff:
                count = getattr(image, "n_frames", 1)
                return list(range(count)) if count > 1 else None
    except (*_PILLOW_ERRORS, UnidentifiedImageError):
        pass
    if len(pages) > 1 or compressions & set(_JPEG):
        received = f"a TIFF of {len(pages)} pages or with JPEG inside, of an uncommon kind"
        expected = "8 bits per channel or 16 bits of grey; convert it to PNG files"
        refuse(path, received, expected)
    return None


def _directories(file: Any, head: bytes) -> tuple[list[int], set[int]]:
    """The numbers of the pages that are no thumbnails or masks, and all compressions used."""
    big = head[2:3] == b"+" or head[3:4] == b"+"
    directory = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if big else 8])
    pages: list[int] = []
    compressions: set[int] = set()
    seen: set[int] = set()
    number = 0
    with contextlib.suppress(SyntaxError, ValueError, KeyError, OSError, TypeError):
        while directory.next and directory.next not in seen:
            seen.add(directory.next)
            file.seek(directory.next)
            directory.load(file)
            if not directory.get(_KIND_OF_PAGE, 0) & (_SMALLER | _MASK):
                pages.append(number)
            compressions.add(directory.get(_COMPRESSION, 1))
            number += 1
    return pages or [0], compressions


def read_pages(path: Path, pages: list[int]) -> Iterator[tuple[Any, float | None]]:
    """Read frames of a file by Pillow, with their times in seconds; None for those of a TIFF.

    Raises:
        InputError: the file is damaged.
    """
    timed, milliseconds = len(pages) > 1, 0
    try:
        with Image.open(path) as image:
            timed = timed and image.format == "WEBP"
            for number in pages:
                image.seek(number)
                image.load()
                yield _frame(image), milliseconds / 1000 if timed else None
                milliseconds += image.info.get("duration") or _UNTIMED_MILLISECONDS
    except _PILLOW_ERRORS as error:
        received = f"a picture that cannot be read ({reason_of(error)})"
        refuse(path, received, "an undamaged one; repair or convert it")


def _frame(image: Image.Image) -> Any:
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        deep = np.asarray(turned)
        pixels = to_eight_bits(deep)[..., None].repeat(3, -1)
    else:
        alpha = turned.mode in _ALPHA or "transparency" in turned.info
        pixels = np.asarray(turned.convert("RGBA" if alpha else "RGB"))
    kind = "rgba" if pixels.shape[2] == 4 else "rgb24"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind)
