"""Converts the tracker's times to our clock, by its offset and drift.

Lab Streaming Layer measures the offset itself. For a tracker that answers requests (Pupil Labs), we
fit a line to offsets measured by round trips; for one that only sends (UDP, OSC), to the fastest
packets. Our clock is ``time.perf_counter``.
"""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np

# All of these are our choice.
BIN_SECONDS = 1.0
"""Length of the intervals, in each of which only the sample with the least delay counts."""
BINS = 120
"""Number of intervals that are kept: over two minutes the drift is assumed to be constant."""
DRIFT_AFTER_SECONDS = 10.0
"""Until then only the offset is fitted: a slope would follow the jitter of the delays."""
JUMP_SECONDS = 1.0
"""A time that differs from now by more belongs to another clock, or is too late to be useful."""
JUMP_COUNT = 10
"""After this many such times in a row, the tracker's clock is assumed to have been set."""


class OneWayClock:
    """Estimates offset and drift from the times of sending and of arrival.

    A packet arrives some delay after it was sent, so the differences of the two clocks lie above a
    line whose slope is the drift. Of all lines below them we take the one with the smallest sum of
    distances, which is an edge of their convex hull (Moon, Skelly & Towsley 1999, Estimation and
    removal of clock skew from network delay measurements). The smallest delay cannot be measured
    from one side, and is assumed to be zero. Memory is constant: a point for each of the last
    120 s.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=BINS)  # sent, least difference
        self._bin: float | None = None
        self._strange = 0
        self.offset, self.drift, self._origin = 0.0, 0.0, 0.0

    def to_own(self, sent: float, received: float) -> float | None:
        """Return our time of a sample, never after its arrival; None for one to discard.

        Args:
            sent: the tracker's time of the sample, s.
            received: our time of its arrival, s.
        """
        if self._points and abs(received - self._map(sent)) > JUMP_SECONDS:
            self._strange += 1
            if self._strange < JUMP_COUNT:
                return None
            self._points.clear()
            self._bin = None
        self._strange = 0
        if not self._points:
            self._origin = sent
        self._add(sent, received - sent)
        return min(self._map(sent), received)

    def _map(self, sent: float) -> float:
        return sent + self.offset + self.drift * (sent - self._origin)

    def _add(self, sent: float, difference: float) -> None:
        number = sent // BIN_SECONDS
        if number == self._bin and self._points:
            if difference >= self._points[-1][1]:
                return
            self._points[-1] = (sent, difference)
        else:
            self._bin = number
            self._points.append((sent, difference))
        self._fit()

    def _fit(self) -> None:
        points = sorted((sent - self._origin, difference) for sent, difference in self._points)
        if points[-1][0] - points[0][0] < DRIFT_AFTER_SECONDS:
            self.offset, self.drift = min(difference for _, difference in points), 0.0
            return
        hull: list[tuple[float, float]] = []  # the lower convex hull (Andrew 1979)
        for point in points:
            while len(hull) > 1 and _is_above(hull[-1], hull[-2], point):
                hull.pop()
            hull.append(point)
        middle = sum(sent for sent, _ in points) / len(points)
        edges = itertools.pairwise(hull)
        (t0, d0), (t1, d1) = next(edge for edge in edges if edge[1][0] >= middle)
        self.drift = (d1 - d0) / (t1 - t0)
        self.offset = d0 - self.drift * t0


def _is_above(
    point: tuple[float, float], left: tuple[float, float], right: tuple[float, float]
) -> bool:
    """Whether a point lies on or above the line between its neighbours."""
    at = (point[0] - left[0]) / (right[0] - left[0])
    return point[1] >= left[1] + at * (right[1] - left[1])


class RoundTripClock:
    """Estimates offset and drift from round trips: a line through measured offsets."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=BINS)

    def add(self, tracker: float, offset: float) -> None:
        """Take one measurement: ``offset`` is our clock minus the tracker's, s."""
        if self._points and abs(offset - self._points[-1][1]) > JUMP_SECONDS:
            self._points.clear()  # the tracker's clock was set
        self._points.append((tracker, offset))

    def to_own(self, tracker: float) -> float | None:
        """Return our time of one of the tracker's, s; None before the first measurement."""
        if not self._points:
            return None
        times, offsets = np.array(self._points).T
        middle = times.mean()
        spread = times - middle
        drift = 0.0
        if np.ptp(times) >= DRIFT_AFTER_SECONDS:
            drift = float(spread @ offsets / (spread @ spread))
        return float(tracker + offsets.mean() + drift * (tracker - middle))
