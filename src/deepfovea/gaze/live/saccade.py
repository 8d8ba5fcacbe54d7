"""Detects saccades while they happen, and predicts where they will land.

During a saccade the gaze moves so fast that a frame sampled at the present gaze is always late. A
frame sampled at the landing point is right when the eye arrives. The error of the prediction is
measured.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from ..geometry import DEFAULT_DISPLAY, DisplayGeometry
from ..main_sequence import minimum_jerk, saccade_seconds
from ..track import Floats
from .sample import LiveSample

ONSET_DEG_PER_SECOND = 80.0
END_DEG_PER_SECOND = 40.0
"""Velocity thresholds (I-VT: Salvucci & Goldberg 2000, Identifying fixations and saccades), two of
them, degrees per second, so that noise near one does not split a saccade. The values are our
choice."""

# All of these are our choice; docs/live-gaze.md has the resulting errors.
VELOCITY_SPAN_SECONDS = 0.012
"""Time over which a line is fitted for the velocity; over a shorter one, noise would dominate."""
LONGEST_SACCADE_SECONDS = 0.15
"""A longer movement is not a saccade; one of 40° takes 0.11 s (:func:`saccade_seconds`)."""
HISTORY_SECONDS = 0.2
"""How long samples are kept: enough for the longest saccade and the fixation before it."""
FIXATION_SECONDS = (0.015, 0.040)
"""From and to this time before the onset, the eye rested at the start of the saccade."""
FEWEST_SAMPLES, MOST_SAMPLES = 3, 16
"""Number of samples of a saccade with which the prediction begins, and the largest number that the
fit uses, at even distances."""
MIN_NOISE_DEG = 0.03
"""Smallest assumed noise, so that a tracker that hides its noise is not trusted too much."""
_AMPLITUDES_DEG = np.geomspace(0.5, 40.0, 60)
_BEGINS_SECONDS = np.linspace(-0.004, 0.004, 9)
"""The grid of the fit: amplitudes, and onsets around the one that fits the newest sample."""
_USUAL_DEG, _USUAL_SPREAD = 4.0, 0.8
"""Prior of the amplitudes: log-normal with this median and this deviation of the logarithm."""
_PHASES = np.linspace(0.0, 1.0, 501)
_PROFILE = minimum_jerk(_PHASES)


class PredictionError(NamedTuple):
    """Mean distances in degrees from where saccades ended, with the prediction and without it."""

    saccades: int
    predicted_deg: float
    newest_deg: float  # the distance of the newest sample at the same moments


class SaccadeDetector:
    """Detects saccades by velocity, and predicts their landing points by a ballistic fit.

    The fit assumes that the displacement along the saccade is a minimum-jerk movement (Flash &
    Hogan 1985) that lasts 21 ms + 2.2 ms per degree (Carpenter 1988). Its unknowns are amplitude
    and onset; the result is their mean, weighted by how likely they are under the noise of the
    fixation before. Degrees are those at the centre of the display.

    Attributes: ``in_saccade``; ``landing``, normalised, None where nothing is predicted.
    """

    def __init__(self, display: DisplayGeometry = DEFAULT_DISPLAY) -> None:
        self._frame_deg = (
            display.width_px / display.pixels_per_degree,
            display.height_px / display.pixels_per_degree,
        )
        self._history: deque[tuple[float, float, float]] = deque()  # s, deg, deg
        self._onset = 0.0
        self.in_saccade = False
        self.landing: tuple[float, float] | None = None
        self._guesses: list[tuple[Floats, Floats]] = []  # landing, newest; deg
        self._saccades, self._count, self._sums = 0, 0, np.zeros(2)

    @property
    def error(self) -> PredictionError:
        """The error of all predictions so far; nan before the first scored saccade."""
        mean = self._sums / self._count if self._count else np.full(2, np.nan)
        return PredictionError(self._saccades, float(mean[0]), float(mean[1]))

    def add(self, sample: LiveSample) -> None:
        """Add the next sample. A lost one ends a saccade, which is then not scored."""
        if not sample.valid:
            self._history.clear()
            self._end(None)
            return
        now = sample.own_seconds
        x, y = (part * size for part, size in zip(sample.position, self._frame_deg, strict=True))
        self._history.append((now, x, y))
        while now - self._history[0][0] > HISTORY_SECONDS:
            self._history.popleft()
        speed = self._speed()
        if self.in_saccade and (
            speed < END_DEG_PER_SECOND or now - self._onset > LONGEST_SACCADE_SECONDS
        ):
            self._end(np.array([x, y]))
        elif not self.in_saccade and speed > ONSET_DEG_PER_SECOND:
            self.in_saccade, self._onset = True, now
        if self.in_saccade:
            self._predict()

    def _speed(self) -> float:
        """Degrees per second: the slope of the newest samples, of at least two."""
        now, x, y = self._history[-1]
        recent: list[tuple[float, float, float]] = []
        for t, x0, y0 in reversed(self._history):
            if len(recent) > 1 and now - t > VELOCITY_SPAN_SECONDS:
                break
            recent.append((t - now, x0 - x, y0 - y))
        mean = sum(t for t, _, _ in recent) / len(recent)
        spread = sum((t - mean) ** 2 for t, _, _ in recent)
        if spread == 0.0:
            return 0.0
        slope_x = sum((t - mean) * dx for t, dx, _ in recent) / spread
        slope_y = sum((t - mean) * dy for t, _, dy in recent) / spread
        return math.hypot(slope_x, slope_y)

    def _predict(self) -> None:
        track = np.array(self._history)
        time, position = track[:, 0], track[:, 1:]
        before = self._onset - time
        rest = position[(before >= FIXATION_SECONDS[0]) & (before <= FIXATION_SECONDS[1])]
        moving = before <= VELOCITY_SPAN_SECONDS  # the onset is detected one span late
        if not len(rest) or moving.sum() < FEWEST_SAMPLES:
            return
        origin = rest.mean(axis=0)
        chosen = np.unique(np.linspace(0, moving.sum() - 1, MOST_SAMPLES).astype(int))
        time, moved = time[moving][chosen], position[moving][chosen] - origin
        reach = float(np.hypot(*moved[-1]))
        if reach < _AMPLITUDES_DEG[0]:
            return
        direction = moved[-1] / reach
        noise = max(MIN_NOISE_DEG, float(rest.std(axis=0).mean()) if len(rest) > 2 else 0.0)
        landing = origin + fit_amplitude(time, moved @ direction, noise) * direction
        self.landing = (
            float(landing[0] / self._frame_deg[0]),
            float(landing[1] / self._frame_deg[1]),
        )
        self._guesses.append((landing, position[-1]))

    def _end(self, landed: Floats | None) -> None:
        if landed is not None and self._guesses:
            self._saccades += 1
            self._count += len(self._guesses)
            for guess in self._guesses:
                self._sums += [np.hypot(*(point - landed)) for point in guess]
        self._guesses = []
        self.in_saccade, self.landing = False, None


def fit_amplitude(time: Floats, moved: Floats, noise: float) -> float:
    """Return the expected amplitude, degrees, of a saccade that has begun.

    It is the mean over a grid of amplitudes and onsets, weighted by likelihood and a wide prior.

    Args:
        time: [N], s, increasing.
        moved: [N] degrees from where the eye rested, along the saccade.
        noise: standard deviation of ``moved``, degrees.
    """
    amplitude = _AMPLITUDES_DEG
    length = saccade_seconds(amplitude)
    phase_now = np.interp(moved[-1] / amplitude, _PROFILE, _PHASES)
    begin = (time[-1] - phase_now * length)[:, None] + _BEGINS_SECONDS  # [A, B]
    phase = (time - begin[..., None]) / length[:, None, None]  # [A, B, N]
    model = amplitude[:, None, None] * np.interp(phase, _PHASES, _PROFILE)
    misfit = ((model - moved) ** 2).sum(axis=2) / noise**2
    prior = (np.log(amplitude / _USUAL_DEG) / _USUAL_SPREAD) ** 2
    cost = misfit + prior[:, None]
    weight = np.exp(-0.5 * (cost - cost.min())).sum(axis=1)
    return float(weight @ amplitude / weight.sum())
