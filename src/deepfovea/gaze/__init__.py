"""Where the eye looks: fixed points, recorded tracks, synthetic saccades, display geometry.

The data path of a recorded track is table (a file as named columns) -> formats (which columns
hold what) -> clock (times as those of the video) -> read (checks) -> track (positions at frames).
"""

from .geometry import DEFAULT_DISPLAY, DisplayGeometry
from .read import read_track
from .synthetic import random_point, synthetic
from .track import UNITS, GazeTrack, center, fixed, from_pixels, parse_point, to_pixels

__all__ = [
    "DEFAULT_DISPLAY",
    "UNITS",
    "DisplayGeometry",
    "GazeTrack",
    "center",
    "fixed",
    "from_pixels",
    "parse_point",
    "random_point",
    "read_track",
    "synthetic",
    "to_pixels",
]
