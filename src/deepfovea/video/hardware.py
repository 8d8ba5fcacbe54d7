"""Decoding and encoding on an NVIDIA GPU: FFmpeg's NVDEC and NVENC, through PyAV.

Both are asked for by FFmpeg's word, ``hwaccel="cuda"``. Where the driver, the GPU or the codec
cannot do it, the CPU does it instead, and a warning says why.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel

from ..config import HWACCELS, InputError, expected_one_of
from .container import open_media, reason_of, silence, video_stream

ENCODER = "h264_nvenc"
"""FFmpeg's name of the H.264 encoder of NVIDIA's GPUs."""


def checked_hwaccel(name: str) -> str:
    """One of :data:`deepfovea.config.HWACCELS`; InputError for another name."""
    if name not in HWACCELS:
        raise InputError(f"--hwaccel: received {name!r:.100}, {expected_one_of(name, HWACCELS)}")
    return name


def open_accelerated(path: Path, hwaccel: str) -> tuple[Any, str]:
    """Open a file so that its video is decoded on a GPU if possible.

    Args:
        path: the file.
        hwaccel: one of :data:`deepfovea.config.HWACCELS`.

    Returns:
        The container, and the reason why the CPU decodes it; "" if the GPU does, or if that was not
        asked for.

    Raises:
        InputError: the file cannot be read.
    """
    if hwaccel == "none":
        return open_media(path), ""
    try:
        container = open_media(path, HWAccel(hwaccel, allow_software_fallback=True))
    except InputError:
        # If the file itself is at fault, this raises the same error again.
        return open_media(path), "no GPU that FFmpeg can use"
    stream = video_stream(container)
    if stream is None or stream.codec_context is None or stream.codec_context.is_hwaccel:
        return container, ""
    return container, f"FFmpeg has no decoder for {stream.codec_context.name} on a GPU"


def encoder_options(crf: int) -> dict[str, str]:
    """Options of NVENC for a constant quality like that of x264 with this ``crf``.

    Both scales end at 51; NVENC's begins at 1, as 0 stands for its own choice (FFmpeg's
    documentation of the option ``cq``).
    """
    return {"rc": "vbr", "cq": str(max(1, crf)), "b:v": "0"}


def encoder_trouble(height: int, width: int, pixels: str) -> str:
    """Why the GPU cannot encode frames of this size and pixel format; "" if it can.

    It is found out by opening an encoder, as this depends on the driver and the GPU.
    """
    silence()
    try:
        encoder: Any = av.CodecContext.create(ENCODER, "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, pixels
        encoder.time_base = Fraction(1, 1000)
        encoder.encode(None)  # opens it
    except (av.FFmpegError, ValueError) as error:  # ValueError: FFmpeg was built without it
        return f"{ENCODER} cannot encode {width}x{height} here ({reason_of(error)})"
    return ""
