"""Calibration: an affine map from the tracker's positions to positions in the video.

Such a map accounts for the place and size of the video on the screen, and for a constant error of
the tracker. It cannot follow a head that moves with a head-mounted camera.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...io.atomic import atomic_write
from ..geometry import DEFAULT_DISPLAY, DisplayGeometry
from ..track import Floats, refusal

POINTS = ((0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))
"""Positions of the five targets, normalised to the video. Our choice: the centre, and points a
tenth of the frame away from its edges."""
MIN_SPREAD_RATIO, MIN_SPREAD = 0.02, 1e-12
"""Smallest allowed spread of the measurements across the line that fits them best, relative to the
spread along it. The spread along it counts as at least the second value, so that measurements on a
single point fail too. With less spread the eye did not follow the targets. Our choice."""
MIN_DETERMINANT = 1e-9
"""Smallest allowed determinant of a map's linear part; a smaller one means that the map projects
onto a line. Our choice: far below any magnification."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """An affine map between normalised positions, and the points that it was fitted to."""

    affine: Floats  # [2, 3]: position = affine @ (x, y, 1)
    targets: Floats  # [N, 2] of the video
    measured: Floats  # [N, 2] of the tracker
    residual_deg: Floats  # [N] of visual angle, between targets and mapped measurements

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Return the position in the video."""
        (a, b, c), (d, e, f) = self.affine.tolist()
        return a * x + b * y + c, d * x + e * y + f


def fit_calibration(
    measured: ArrayLike, targets: ArrayLike, display: DisplayGeometry = DEFAULT_DISPLAY
) -> Calibration:
    """Fit the map by least squares.

    Args:
        measured: [N, 2], where the tracker saw the eye, normalised to its screen or camera.
        targets: [N, 2], where the targets were, normalised to the video.
        display: gives the residual's degrees; the video fills it.

    Raises:
        InputError: fewer than three points, points that are not finite or on one line.
    """
    seen, wanted = (np.asarray(points, dtype=np.float64) for points in (measured, targets))
    if seen.ndim != 2 or seen.shape[1:] != (2,) or seen.shape != wanted.shape or len(seen) < 3:
        received = f"positions {list(seen.shape)} for targets {list(wanted.shape)}"
        raise refusal("calibration", received, "three or more points [N, 2]")
    if not (np.isfinite(seen).all() and np.isfinite(wanted).all()):
        raise refusal(
            "calibration", "a position that is nan or infinite", "finite ones; leave it out"
        )
    design = np.column_stack([seen, np.ones(len(seen))])
    sizes = np.linalg.svd(seen - seen.mean(axis=0), compute_uv=False)
    if sizes[1] < MIN_SPREAD_RATIO * max(sizes[0], MIN_SPREAD):
        raise refusal(
            "calibration",
            "measurements on one point or line",
            "an eye that followed the targets; calibrate again",
        )
    affine = np.linalg.lstsq(design, wanted, rcond=None)[0].T
    return Calibration(affine, wanted, seen, _angle_deg(design @ affine.T, wanted, display))


def _angle_deg(a: Floats, b: Floats, display: DisplayGeometry) -> Floats:
    """Angles [N] between the directions of normalised positions [N, 2], degrees."""
    half_x = np.tan(np.radians(display.horizontal_fov_deg) / 2)
    half = np.array([half_x, half_x * display.height_px / display.width_px])

    def directions(position: Floats) -> Floats:
        return np.column_stack([half * (2 * position - 1), np.ones(len(position))])

    u, v = directions(a), directions(b)
    cross = np.linalg.norm(np.cross(u, v), axis=1)
    return np.asarray(np.degrees(np.arctan2(cross, (u * v).sum(axis=1))))


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    """The calibration as JSON."""
    return {
        "affine": calibration.affine.tolist(),
        "residual_deg": {
            "mean": round(float(calibration.residual_deg.mean()), 4),
            "max": round(float(calibration.residual_deg.max()), 4),
        },
        "points": [
            {"target": target, "measured": measured, "residual_deg": round(residual, 4)}
            for target, measured, residual in zip(
                calibration.targets.tolist(),
                calibration.measured.tolist(),
                calibration.residual_deg.tolist(),
                strict=True,
            )
        ],
    }


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write the calibration as JSON, complete or not at all."""
    text = json.dumps(calibration_json(calibration), indent=1)
    with atomic_write(Path(path)) as file:
        file.write(f"{text}\n".encode())


def read_calibration(path: str | Path) -> Calibration:
    """Read what :func:`write_calibration` wrote, or the viewer's download.

    Raises InputError for any other file. Only ``affine`` is needed.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        received = f"no file that can be read ({error.strerror})"
        raise refusal(path, received, "a calibration as the viewer saves it") from None
    except (ValueError, RecursionError):
        raise refusal(path, "no JSON", "a calibration as the viewer saves it") from None
    try:
        affine = np.array(values["affine"], dtype=np.float64)
        points = values.get("points", [])
        targets, measured = (
            np.array([p[key] for p in points], dtype=np.float64).reshape(-1, 2)
            for key in ("target", "measured")
        )
        residual = np.array([p["residual_deg"] for p in points], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        received = "JSON without an affine map, or with other points"
        raise refusal(path, received, "affine [2, 3], as the viewer saves it") from None
    if affine.shape != (2, 3) or not np.isfinite(affine).all():
        raise refusal(path, f"affine {list(affine.shape)}", "affine [2, 3] of finite numbers")
    if abs(np.linalg.det(affine[:, :2])) < MIN_DETERMINANT:
        raise refusal(path, "a map onto one line", "one that can be undone; calibrate again")
    return Calibration(affine, targets, measured, residual)
