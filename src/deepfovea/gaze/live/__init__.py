"""Gaze from a live eye tracker.

A source (lsl, pupil, datagram: JSON and OSC over UDP) receives readings in a thread; clock gives
them their time on ours; live_gaze keeps the newest and says where to look, held and returned as
in recorded tracks; saccade guesses landing points; calibration maps the tracker's positions to the
video; recording writes what frames were made with.
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
