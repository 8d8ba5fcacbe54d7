"""How a folder of samples was sampled: one small JSON beside the pictures.

Samples on a grid that is shifted from frame to frame cannot be understood without the shifts, so
whoever writes such samples writes them down, and whoever reads them finds them::

    {"format": 1, "height": 192, "width": 256, "density": {"center": 0.98, ...},
     "frames": [{"jitter": [0.0, 0.0], "gaze_px": [127.5, 95.5]}, ...]}

``jitter`` is the offset (x, y) of the sampling grid and ``gaze_px`` where the eye looked, both in
low-resolution pixels; ``density`` and ``gaze_px`` are for people and may be left out.
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
"""Its name in the folder."""

LARGEST_JITTER = 1.0
"""Low-resolution pixels, along each axis."""


class FrameSampling(NamedTuple):
    """jitter and gaze_px of one frame, (x, y) in low-resolution pixels each; None: not said."""

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
    """What the file in a folder says of its pictures.

    Args:
        folder: of samples.
        frames: how many pictures it holds.
        height: h of the pictures; ``width`` likewise.

    Returns:
        A value per picture; None where there is no such file.

    Raises:
        InputError: not such a file, or it does not belong to these pictures.
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
    """Refuse offsets that no sampling grid has.

    Raises:
        InputError: no two finite numbers of at most :data:`LARGEST_JITTER`.
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
