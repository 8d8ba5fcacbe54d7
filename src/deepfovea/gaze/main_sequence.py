"""The course of a saccade: its duration by amplitude, and its position over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .track import Floats

SACCADE_SECONDS, SACCADE_SECONDS_PER_DEG = 0.021, 0.0022
"""Duration of a saccade with amplitude 0, and the time that each degree adds: Carpenter 1988,
"Movements of the Eyes" (D = 2.2 A + 21, in milliseconds and degrees)."""


def saccade_seconds(amplitude_deg: ArrayLike) -> Floats:
    """The usual duration of saccades, s; amplitudes in degrees of visual angle, of any shape."""
    return np.asarray(SACCADE_SECONDS + SACCADE_SECONDS_PER_DEG * np.asarray(amplitude_deg))


def minimum_jerk(phase: ArrayLike) -> Floats:
    """The share of the distance, 0 to 1, covered after a share of the time, 0 to 1; any shape.

    10 τ³ − 15 τ⁴ + 6 τ⁵: Flash and Hogan 1985, "The coordination of arm movements: an
    experimentally confirmed mathematical model", a movement between two points at rest.
    """
    phase = np.asarray(phase, dtype=np.float64)
    return np.asarray(phase**3 * (10 - 15 * phase + 6 * phase**2))
