"""Motion vectors of a renderer, read from files: .flo, .npy, KITTI's 16-bit PNG and OpenEXR.

Inside the package motion is [2, h, w], low-resolution pixels: (x, y) from a pixel of this frame to
where the same point of the scene was one frame ago, x right, y down, without the jitter of the
sampling grid. Files may use other units and signs; this module converts them. NaN marks a pixel
whose motion is not known.

Legend: h, w the low resolution; H, W the size of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .config import MOTION_UNITS, InputError, expected_one_of
from .fill import pull_push
from .video import read_rgb48

MOTION_SUFFIXES = (".flo", ".npy", ".png", ".exr")
SUFFIXES_AMONG_IMAGES = (".flo", ".npy", ".exr")
"""Suffixes of motion files that may lie in the folder of the images; a PNG there is an image."""

FLO_TAG = 202021.25
"""The first four bytes of a .flo file as a float (Baker et al. 2011, the Middlebury benchmark)."""
FLO_UNKNOWN = 1e9
"""Larger absolute values mean "unknown" in a .flo file (same source)."""
KITTI_STEP, KITTI_ZERO = 64.0, 32768.0
"""KITTI's PNG stores 64 · pixels + 2^15 (Geiger et al. 2012, the readme of the development kit)."""

EXR_PAIRS = (("u", "v"), ("x", "y"), ("r", "g"))
"""How the names of an EXR file's channels of x and y may end, in the order of preference."""


class MotionFiles(NamedTuple):
    """The folder with the motion of a folder of images, None for no motion, and the arguments for
    :func:`read_motion`."""

    folder: Path | None
    unit: str = "px"
    from_previous: bool = False


def read_motion(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    unit: str = "px",
    from_previous: bool = False,
    channels: tuple[str, str] | None = None,
    jitter: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Read the motion of one frame.

    Args:
        path: a .flo, .npy ([2, H, W] or [H, W, 2]), .png (KITTI, 16 bits) or .exr file.
        size: (h, w), the low resolution; H and W must be the same multiple of it. None: (H, W).
        unit: unit of the values in the file, one of :data:`deepfovea.config.MOTION_UNITS`.
        from_previous: the vectors of the file point from where a point was to where it is now;
            they are negated. They must be stored at the pixels of this frame all the same.
        channels: names of an EXR file's channels of x and y; None: the only pair whose names end
            in u, v or x, y or r, g.
        jitter: (x, y) of this frame's sampling grid, low-resolution pixels. From a file that is
            larger than ``size``, the vectors at the positions of the samples are taken.

    Returns:
        [2, h, w] float32 in low-resolution pixels. A larger file is not interpolated, as that
        would mix vectors of both sides of an edge: each pixel takes the vector nearest to it. NaN
        where the file says that the motion is unknown, or has a value that is not finite.

    Raises:
        InputError: the file is missing, or has another format or size.
    """
    path = Path(path)
    if unit not in MOTION_UNITS:
        raise InputError(f"unit: received {unit!r:.40}; {expected_one_of(unit, MOTION_UNITS)}")
    suffix = path.suffix.lower()
    if suffix not in MOTION_SUFFIXES:
        raise InputError(
            f"{path}: received the suffix {suffix!r:.20}; expected motion as one of "
            f"{', '.join(MOTION_SUFFIXES)}"
        )
    try:
        if suffix == ".flo":
            field = _read_flo(path)
        elif suffix == ".npy":
            field = _read_npy(path)
        elif suffix == ".png":
            field = _read_kitti(path)
        else:
            field = _read_exr(path, channels)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); expected a file of motion: "
            "check the path"
        ) from None
    height, width = field.shape[1:]
    field = np.where(np.isfinite(field).all(0), field, np.nan).astype(np.float32)
    if unit != "px":
        half = 0.5 if unit == "ndc" else 1.0
        up = -1.0 if unit in ("ndc", "norm_up") else 1.0
        field *= np.array([half * width, up * half * height], np.float32)[:, None, None]
    if from_previous:
        field = -field
    return torch.from_numpy(_to_size(field, size or (height, width), jitter, path))


def fill_motion(motion: Tensor) -> Tensor:
    """Replace NaN in motion [..., 2, h, w] by values from the vectors around, as generators need.

    If no vector is known, the motion is 0.
    """
    known = (~motion.isnan().any(-3, keepdim=True)).to(motion.dtype)
    return pull_push(motion.nan_to_num(0.0) * known, known)


def lies_beside(images: Sequence[Path]) -> bool:
    """Whether any of the images has a file of motion in the same folder."""
    return any(
        image.with_suffix(suffix).is_file() for image in images for suffix in SUFFIXES_AMONG_IMAGES
    )


def find_motion(images: Sequence[Path], folder: Path) -> list[Path | None]:
    """Find the file of motion for each image: it has the name of the image, but for the suffix.

    The first image may have none, as there is no frame before it.

    Raises:
        InputError: another image has no file of motion, or an image has two.
    """
    found: list[Path | None] = []
    for number, image in enumerate(images):
        files = [folder / (image.stem + suffix) for suffix in MOTION_SUFFIXES]
        files = [file for file in files if file.is_file() and file != image]
        if len(files) > 1 or (number and not files):
            received = " and ".join(file.name for file in files) or "no motion"
            raise InputError(
                f"{folder}: received {received} for {image.name}; expected one of "
                f"{image.stem}{{{','.join(MOTION_SUFFIXES)}}}"
            )
        found.append(files[0] if files else None)
    return found


def write_flo(path: str | Path, motion: Tensor | np.ndarray) -> None:
    """Write motion [2, h, w] as a Middlebury .flo file; NaN becomes its "unknown"."""
    field = np.asarray(motion, "<f4")
    field = np.where(np.isnan(field), np.float32(2 * FLO_UNKNOWN), field)
    head = struct.pack("<fii", FLO_TAG, field.shape[2], field.shape[1])
    Path(path).write_bytes(head + field.transpose(1, 2, 0).astype("<f4").tobytes())


def _to_size(
    field: np.ndarray, size: tuple[int, int], jitter: tuple[float, float], path: Path
) -> np.ndarray:
    height, width = field.shape[1:]
    factor = height // size[0]
    if factor < 1 or (height, width) != (factor * size[0], factor * size[1]):
        raise InputError(
            f"{path}: received motion of {width}x{height}; expected {size[1]}x{size[0]} or a whole "
            "multiple of it"
        )
    if factor == 1:
        return field
    # Pixel i covers factor·i to factor·(i + 1); its sample was taken at the centre, plus jitter.
    rows, columns = (
        np.floor(factor * (np.arange(side) + 0.5 + offset)).astype(int).clip(0, factor * side - 1)
        for side, offset in zip(size, reversed(jitter), strict=True)
    )
    reduced: np.ndarray = field[:, rows[:, None], columns] / np.float32(factor)
    return reduced


def _read_flo(path: Path) -> np.ndarray:
    content = path.read_bytes()
    tag, width, height = struct.unpack("<fii", content[:12].ljust(12, b"\0"))
    if tag != FLO_TAG or min(width, height) < 1 or len(content) != 12 + 8 * width * height:
        raise InputError(
            f"{path}: received {len(content)} bytes that are no .flo file, or not all of one; "
            f"expected the tag {FLO_TAG}, width, height and two floats per pixel; write it again"
        )
    values = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1)
    field: np.ndarray = np.where((np.abs(values) > FLO_UNKNOWN).any(0), np.float32(np.nan), values)
    return field


def _read_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as an array ({error!s:.100}); write it by numpy.save"
        ) from None
    if not isinstance(values, np.ndarray) or values.ndim != 3 or 0 in values.shape:
        values = np.zeros(0) if not isinstance(values, np.ndarray) else values
    elif values.dtype.kind in "fiu" and 2 in (values.shape[0], values.shape[2]):
        field: np.ndarray = values if values.shape[0] == 2 else values.transpose(2, 0, 1)
        return field.astype(np.float32)
    raise InputError(
        f"{path}: received an array of {values.dtype} {list(values.shape)}; "
        "expected numbers [2, h, w] or [h, w, 2]"
    )


def _read_kitti(path: Path) -> np.ndarray:
    values = read_rgb48(path).astype(np.float32).transpose(2, 0, 1)
    vectors = (values[:2] - KITTI_ZERO) / KITTI_STEP
    field: np.ndarray = np.where(values[2] > 0, vectors, np.float32(np.nan))
    return field


def _read_exr(path: Path, names: tuple[str, str] | None) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError:
        raise InputError(
            f"{path}: EXR files need OpenEXR, which is missing: pip install 'deepfovea[exr]'"
        ) from None
    path.open("rb").close()  # if the file is missing, raises the usual OSError
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            found = {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as an EXR file ({' '.join(str(error).split()):.100}); "
            "write it again"
        ) from None
    pairs = [names] if names else []
    for wanted in () if names else EXR_PAIRS:
        for name in found:
            layer, dot, last = name.rpartition(".")
            if last.lower() == wanted[0]:
                other = wanted[1] if last.islower() else wanted[1].upper()
                pairs.append((name, layer + dot + other))
        if pairs:
            break
    if len(pairs) != 1 or not set(pairs[0]) <= found.keys():
        raise InputError(
            f"{path}: received the channels {', '.join(sorted(found)):.200}; expected one pair of "
            "u, v or x, y or r, g, or the names of the two"
        )
    x, y = (np.asarray(found[name], np.float32) for name in pairs[0])
    if x.shape != y.shape:
        raise InputError(f"{path}: its channels of x and y have two sizes; write it again")
    return np.stack([x, y])
