"""The live eye tracker that all pages of a server follow: calibration and recording."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..gaze import DisplayGeometry
from ..gaze.live import (
    POINTS,
    GazeEstimate,
    GazeRecording,
    LiveGaze,
    calibration_json,
    fit_calibration,
)
from ..gaze.track import refusal

MEASURE_SECONDS = 0.4  # of gaze that are averaged for a target; our choice
MAX_REQUEST_BYTES = 2**14  # a few points take less than a thousand; our choice
MAX_SIDE = 1e5  # pixels, or pixels per degree; our choice: no display has as many
_REQUESTS = '{"measure": true}, or targets, measured, width, height and pixels_per_degree'


@dataclass
class LiveViewing:
    """A tracker, and optionally a recording of the gaze on one video.

    ``recorded_video`` is that video's identifier. Only one page can record, see ``--record-gaze``.
    """

    gaze: LiveGaze
    recording: GazeRecording | None = None
    recorded_video: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hello(self) -> dict[str, Any]:
        """The part of the first message to a page that describes the tracker."""
        return {
            "source": self.gaze.title,
            "points": POINTS,
            "recording": None if self.recording is None else self.recording.path.name,
        }

    def record(
        self,
        video: str,
        pts_seconds: float,
        position: tuple[float, float],
        look: GazeEstimate | None,
    ) -> None:
        """Record the gaze with which a frame was sampled; ``look`` is None for the pointer."""
        if self.recording is not None and video == self.recorded_video:
            with self._lock:
                self.recording.add(
                    pts_seconds, look or GazeEstimate(position, time.perf_counter(), None)
                )

    def close(self) -> None:
        """Stop the tracker, and write the recording."""
        self.gaze.close()
        if self.recording is not None:
            with self._lock:
                self.recording.close()


def describe(look: GazeEstimate) -> dict[str, Any]:
    """The part of a frame's header about the tracker.

    ``taken_unix_ms`` is the time of the sample by the system's clock, which a browser on the same
    computer can read, too.
    """
    sample = look.sample
    to_unix = time.time() - time.perf_counter()
    return {
        "valid": sample is not None and sample.valid,
        "age_ms": None if sample is None else 1e3 * (look.seconds - sample.own_seconds),
        "taken_unix_ms": None if sample is None else 1e3 * (sample.own_seconds + to_unix),
        "predicted": look.predicted,
    }


def calibrate(gaze: LiveGaze, body: bytes) -> dict[str, Any]:
    """Answer one request of a page that calibrates.

    Args:
        gaze: the tracker; it uses the new calibration from then on.
        body: JSON. ``{"measure": true}`` asks for the tracker's current gaze without calibration;
            ``{"targets": [[x, y], …], "measured": [[x, y], …], "width": …, "height": …,
            "pixels_per_degree": …}``, with the video's size, asks for a calibration.

    Raises:
        InputError: the request is something else, the tracker does not see the eye, or no
            calibration fits the points.
    """
    try:
        values = json.loads(body)
        measure = values.get("measure") is True
    except (ValueError, AttributeError, RecursionError):
        raise refusal("calibration", _shortened(body), _REQUESTS) from None
    if measure:
        x, y, count = gaze.measured(MEASURE_SECONDS)
        return {"measured": [x, y], "samples": count}
    try:
        targets, measured = (
            np.array(values[key], dtype=np.float64) for key in ("targets", "measured")
        )
        sides = [float(values[key]) for key in ("width", "height", "pixels_per_degree")]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise refusal("calibration", _shortened(body), _REQUESTS) from None
    if not all(1 <= side <= MAX_SIDE for side in sides):
        expected = f"the video's, each from 1 to {MAX_SIDE:g}"
        raise refusal("calibration", f"width, height and pixels_per_degree {sides}", expected)
    width, height, pixels_per_degree = sides
    fov = 2 * np.degrees(np.arctan(width / 2 / (pixels_per_degree / np.radians(1))))
    display = DisplayGeometry(float(fov), round(width), round(height))
    calibration = fit_calibration(measured, targets, display)
    gaze.calibration = calibration
    return calibration_json(calibration)


def _shortened(body: bytes) -> str:
    return repr(body[:80].decode(errors="replace"))
