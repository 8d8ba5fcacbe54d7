"""Pictures that Pillow reads: TIFF, page by page, and animated WebP.

FFmpeg takes the first page of a TIFF only, decodes JPEG inside it to black, and knows no animated
WebP.
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
_COMPRESSION, _KIND_OF_PAGE = 259, 254  # tags, TIFF 6.0
_JPEG = (6, 7)
_UNTIMED_MILLISECONDS = 100  # of a page that is said to last no time, as browsers show it
_SMALLER, _MASK = 1, 4  # bits of _KIND_OF_PAGE: a thumbnail or a level of a pyramid, a mask
_READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B")
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_ALPHA = ("LA", "PA", "RGBA")


def pages_of(path: Path) -> list[int] | None:
    """The pages that Pillow is to read, by number; None where FFmpeg is to read the file.

    Raises:
        InputError: a TIFF that neither reads rightly.
    """
    if not path.is_file():  # a pipe that nobody writes would be waited for
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
    """The numbers of the pages that are pictures of their own, and all compressions."""
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
    """Frames of a file by Pillow, with their times in seconds; those of a TIFF have none.

    Raises:
        InputError: damage.
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
