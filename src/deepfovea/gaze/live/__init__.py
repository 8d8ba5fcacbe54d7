"""Gaze from a live eye tracker.

A source (lsl, pupil, datagram: JSON and OSC over UDP) receives readings in a thread. clock converts
their times to our clock. live_gaze keeps the newest reading and says where to look; on a loss the
gaze is held and then returns to the centre, as in recorded tracks. saccade predicts landing points,
calibration maps the tracker's positions to the video, and recording writes the gaze of each frame.
"""

from .calibration import (
    POINTS,
    Calibration,
    calibration_json,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from .live_gaze import FORMS, LiveCounts, LiveGaze
from .recording import GazeRecording
from .sample import GazeEstimate, LiveSample

__all__ = [
    "FORMS",
    "POINTS",
    "Calibration",
    "GazeEstimate",
    "GazeRecording",
    "LiveCounts",
    "LiveGaze",
    "LiveSample",
    "calibration_json",
    "fit_calibration",
    "read_calibration",
    "write_calibration",
]
