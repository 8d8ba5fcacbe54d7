"""A record of how a folder of samples was sampled: a small JSON file beside the pictures.

Samples with jitter cannot be used without it, so programs write it into this file and read it from
there::

    {"format": 1, "height": 192, "width": 256, "density": {"center": 0.98, ...},
     "frames": [{"jitter": [0.0, 0.0], "gaze_px": [127.5, 95.5]}, ...]}

``jitter`` is the offset (x, y) of the sampling grid and ``gaze_px`` the gaze, both in
low-resolution pixels. ``density`` and ``gaze_px`` are informative and may be left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from .config import Density, InputError
from .wording import pluralize

FILE = "sampling.json"
"""Name of the file in the folder."""

LARGEST_JITTER = 1.0
"""Largest jitter along each axis, low-resolution pixels. Our choice."""


class FrameSampling(NamedTuple):
    """Jitter and gaze of one frame, each (x, y) in low-resolution pixels; None if not known."""

    jitter: tuple[float, float]
    gaze_px: tuple[float, float] | None = None


def to_bytes(
    frames: Sequence[FrameSampling], height: int, width: int, density: Density | None = None
) -> bytes:
    """The content of the file for frames of low resolution h × w."""
    record: dict[str, Any] = {"format": 1, "height": height, "width": width}
    if density is not None:
        record["density"] = asdict(density)
    record["frames"] = [
        {"jitter": frame.jitter, "gaze_px": frame.gaze_px}
        if frame.gaze_px
        else {"jitter": frame.jitter}
        for frame in frames
    ]
    return (json.dumps(record, indent=1) + "\n").encode()


def read(folder: Path, frames: int, height: int, width: int) -> list[FrameSampling] | None:
    """Read the record in a folder of samples.

    Args:
        folder: the folder.
        frames: the number of its pictures.
        height: h of the pictures.
        width: w of the pictures.

    Returns:
        A value per picture; None if the folder has no such file.

    Raises:
        InputError: the file is invalid, or does not belong to these pictures.
    """
    path = folder / FILE
    if not folder.is_dir() or not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        size = (record["height"], record["width"])
        listed = [
            FrameSampling(
                _pair(entry["jitter"]), _pair(entry["gaze_px"]) if "gaze_px" in entry else None
            )
            for entry in record["frames"]
        ]
        if record["format"] != 1:
            raise ValueError(f"format {record['format']!r:.40}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: received something that cannot be understood ({reason:.120}); expected "
            'format 1: {"format", "height", "width", "frames": [{"jitter": [x, y]}, …]}, as '
            "'deepfovea sample' writes it"
        ) from None
    if len(listed) != frames or size != (height, width):
        raise InputError(
            f"{path}: received {pluralize(len(listed), 'frame')} of {size[1]}x{size[0]}, "
            f"but the folder holds {frames} pictures of {width}x{height}; expected the file that "
            "was written with them, or none"
        )
    for number, frame in enumerate(listed):
        check_jitter(frame.jitter, f"{path}: frame {number}")
    return listed


def check_jitter(jitter: Sequence[float], where: str = "jitter") -> None:
    """Check a jitter.

    Raises:
        InputError: it is not two finite numbers of at most :data:`LARGEST_JITTER`.
    """
    if len(jitter) != 2 or not all(
        math.isfinite(value) and abs(value) <= LARGEST_JITTER for value in jitter
    ):
        raise InputError(
            f"{where}: received a jitter of {tuple(jitter)}; expected (x, y) in low-resolution "
            f"pixels, each from {-LARGEST_JITTER:g} to {LARGEST_JITTER:g}"
        )


def _pair(values: Any) -> tuple[float, float]:
    x, y = values
    return float(x), float(y)
