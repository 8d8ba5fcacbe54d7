"""Conversion of decoded frames to RGB: matrix, range, primaries, depth, crop and rotation."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageCms

from .container import (
    BT709,
    IMAGE_SUFFIXES,
    LIMITED_RANGE,
    RESERVED,
    SWS_ACCURATE,
    UNSPECIFIED,
    colorspace_of,
    reason_of,
    refuse,
)
from .crop import NO_CROP, Crop
from .yuv import LUMA_BLACK, LUMA_STEPS

# Code points of ITU-T H.273, which FFmpeg uses
PQ, HLG, GAMMA22, SRGB = 16, 18, 4, 13
_ICC, _EXIF = 15, 31  # numbers in FFmpeg's AVFrameSideDataType
_PRIMARIES = (4, 5, 6, 7, 8, 9, 10, 11, 12, 22)  # those of FFmpeg's filter, without BT.709
_LIKE_BT709 = (0, UNSPECIFIED, RESERVED, BT709, 6, 11, 14, 15)  # other names of the same curve
_SHOWN_ALIKE = (GAMMA22, SRGB)  # displays show BT.709 nearly like these, so values stay
_CURVES = (5, 7, 8)  # gamma 2.8, SMPTE 240M, linear

_LEVEL = 65535 // 255
"""Number of levels of 16 bits for each level of 8 bits."""
_FULL_RANGE = (
    ((np.arange(256) - LUMA_BLACK) * (255 / LUMA_STEPS)).round().clip(0, 255).astype(np.uint8)
)
"""The level of full range for each level of limited range."""


class ToRgb:
    """Converts the decoded frames of one file, or one image.

    ``matrix`` is the display matrix (a, b, c, d): the decoded pixel (x, y) is shown at
    x' = a x + c y, y' = b x + d y.
    """

    def __init__(self, path: Path, crop: Crop = NO_CROP) -> None:
        self.path, self.crop = path, crop
        self.matrix, self.profile = (1, 0, 0, 1), b""
        self.convert = VideoReformatter()  # one for all frames: setting it up takes 2 ms
        self._graph: Any = None

    def follow(self, path: Path, frame: Any) -> None:
        """Take over the rotation from a file's first frame, and from an image its ICC profile."""
        self.path, self.matrix = path, display_matrix(frame)
        self.profile = _embedded_profile(path) if path.suffix.lower() in IMAGE_SUFFIXES else b""

    def __call__(self, frame: Any, alpha: bool) -> np.ndarray:
        """Convert a frame to uint8 [H, W, 3], or with ``alpha`` [H, W, 4], as it is shown."""
        in_yuv = not frame.format.is_rgb and not frame.format.has_palette
        if in_yuv and frame.colorspace in (UNSPECIFIED, RESERVED):
            frame.colorspace = colorspace_of(frame.width, frame.height)
        try:
            if needs_bt709(frame):
                pixels = self._pixels(self._to_bt709(frame), False)
                if alpha:
                    pixels = np.concatenate([pixels, self._pixels(frame, True)[..., 3:]], -1)
            else:
                pixels = to_srgb(self._pixels(frame, alpha), self.profile)
        except av.FFmpegError as error:
            received = f"the pixel format {frame.format.name}, matrix {frame.colorspace}"
            expected = "a common format; convert the file"
            refuse(self.path, f"{received} ({reason_of(error)})", expected)
        if frame.format.name.startswith("gray") and frame.color_range == LIMITED_RANGE:
            pixels[..., :3] = _FULL_RANGE[pixels[..., :3]]  # swscale assumes full range for grey
        return self._as_shown(pixels)

    def _pixels(self, frame: Any, alpha: bool) -> np.ndarray:
        part = frame.format.components
        deep = max(component.bits for component in part) > 8
        grey = len(part) < 3 and not frame.format.has_palette
        if deep and (grey or frame.format.is_rgb) and not frame.format.name.startswith("xyz"):
            kind = "rgba64le" if alpha else "gray16le" if grey else "rgb48le"
            made = self.convert.reformat(
                frame, format=kind, interpolation=SWS_ACCURATE
            ).to_ndarray()
            pixels = to_eight_bits(made)
            return pixels[..., None].repeat(3, -1) if pixels.ndim == 2 else pixels
        kind = "rgba" if alpha else "rgb24"
        shown: np.ndarray = self.convert.reformat(
            frame, format=kind, interpolation=SWS_ACCURATE
        ).to_ndarray()
        return shown

    def _to_bt709(self, frame: Any) -> Any:
        """Convert a frame to BT.709 primaries, in YCbCr, by FFmpeg's filter in linear light."""
        deep = self.convert.reformat(frame, format="yuv444p12le", interpolation=SWS_ACCURATE)
        if frame.format.is_rgb or deep.colorspace in (UNSPECIFIED, RESERVED):
            deep.colorspace = BT709
        if deep.color_primaries not in _PRIMARIES:
            deep.color_primaries = BT709
        usual = SRGB if frame.format.is_rgb else BT709
        if deep.color_trc not in (*_CURVES, *_SHOWN_ALIKE):
            deep.color_trc = usual
        deep.pts = 0
        if self._graph is None:
            curve = {GAMMA22: "gamma22", SRGB: "srgb"}.get(deep.color_trc)
            curve = curve or ("srgb" if usual == SRGB else "bt709")
            self._graph = av.filter.Graph()
            source = self._graph.add_buffer(template=deep, time_base=Fraction(1))
            wanted = f"space=bt709:primaries=bt709:trc={curve}:range=tv:format=yuv444p12"
            converter = self._graph.add("colorspace", wanted)
            self._graph.link_nodes(source, converter, self._graph.add("buffersink")).configure()
        self._graph.push(deep)
        return self._graph.pull()

    def _as_shown(self, pixels: np.ndarray) -> np.ndarray:
        top, bottom, left, right = self.crop
        height, width = pixels.shape[:2]
        if top + bottom < height and left + right < width:
            pixels = pixels[top : height - bottom, left : width - right]
        a, b, c, d = self.matrix
        if abs(b) > abs(a):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def to_eight_bits(deep: np.ndarray) -> np.ndarray:
    """Round values of 16 bits to 8 bits, uint8, any shape; swscale would truncate them."""
    return ((deep.astype(np.uint32) + _LEVEL // 2) // _LEVEL).astype(np.uint8)


def needs_bt709(frame: Any) -> bool:
    """Whether the colours of a frame have to be converted, and can be."""
    curve, primaries = frame.color_trc, frame.color_primaries
    if curve not in (*_LIKE_BT709, *_SHOWN_ALIKE, *_CURVES):
        return False
    return primaries in _PRIMARIES or curve in _CURVES


def unusual_colours(frame: Any) -> str:
    """The warning for uncommon colours that are not converted; "" for all others."""
    curve, primaries = frame.color_trc, frame.color_primaries
    if needs_bt709(frame) or (
        curve in (*_LIKE_BT709, *_SHOWN_ALIKE) and primaries in (0, UNSPECIFIED, RESERVED, BT709)
    ):
        return ""
    return f"has uncommon colours (primaries {primaries}, transfer {curve}), used as they are"


def hdr_curve(frame: Any) -> str:
    """The name of the HDR curve of a frame, "" for others."""
    return {PQ: "PQ", HLG: "HLG"}.get(frame.color_trc, "")


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert RGB(A) uint8 [H, W, 3 or 4] from an ICC profile to sRGB, by LittleCMS.

    If the profile is of another kind or broken, the pixels are returned unchanged.
    """
    try:
        if not profile:
            return pixels
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source)
        if source.profile.xcolor_space.strip() != "RGB" or "sRGB" in name:
            return pixels
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return pixels
    return np.concatenate([np.asarray(shown), pixels[..., 3:]], -1)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """See :class:`ToRgb`."""
    data = None
    # Two defects of PyAV: it frees the name of an ICC profile twice, and lists no side data if one
    # is of a kind that it does not know (Exif). So these are removed first.
    for removed in ([_ICC], [_ICC, _EXIF]):
        try:
            data = _without(frame, removed).side_data.get("DISPLAYMATRIX")
            break
        except ValueError:
            continue
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(data, dtype=np.int32)[:5].tolist()
    return a, b, c, d


def _without(frame: Any, kinds: list[int]) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    removing = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in kinds]
    graph.link_nodes(source, *removing, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def _embedded_profile(path: Path) -> bytes:
    try:
        with Image.open(path) as image:
            return image.info.get("icc_profile") or b""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""  # Pillow cannot read this kind of file
