"""Frames wait until the network has as many as it takes at a time, then for their turn."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from torch import Tensor

from ..reconstructor import Gaze, Reconstructed, Reconstructor
from .request import Wish


class Seen(NamedTuple):
    """A frame as it was looked at: image [3,H,W], low [3,h,w], where, when, for which event."""

    image: Tensor
    low: Tensor
    gaze_px: Gaze
    gaze: tuple[float, float]
    stamp: float | None
    number: int
    pts_seconds: float
    orders: Wish


class Made(NamedTuple):
    """What became of it; ``seconds`` of network are its share of those that all took together."""

    seen: Seen
    result: Reconstructed
    seconds: float


class Delay:
    """For each frame that goes in one comes out: itself where the network takes single frames.

    A network that takes n frames at a time shows each n - 1 frames late, at the pace at which
    they were looked at: that is what such a network costs a gaze-contingent display.
    """

    def __init__(self, reconstructor: Reconstructor) -> None:
        self.reconstructor = reconstructor
        self.reset()

    def reset(self) -> None:
        """Begin a new video: what has not come out is forgotten."""
        self.reconstructor.reset()
        self._waiting: list[Seen] = []
        self._ready: deque[Made] = deque()
        self.late = False

    def __call__(self, seen: Seen) -> Made | None:
        """Take a frame, give the one whose turn it is; None while the first are gathered.

        ``late`` then says whether what came out is older than what was asked for last.
        """
        self._waiting.append(seen)
        count = self.reconstructor.model.frames_per_step
        if len(self._waiting) == count:
            started = time.perf_counter()
            results = list(self.reconstructor.stream((s.low, s.gaze_px) for s in self._waiting))
            share = (time.perf_counter() - started) / count
            pairs = zip(self._waiting, results, strict=True)
            self._ready.extend(Made(was, result, share) for was, result in pairs)
            self._waiting = []
        made = self._ready.popleft() if self._ready else None
        self.late = made is None or _asked(made.seen) != _asked(seen)
        return made


def _asked(seen: Seen) -> tuple[object, ...]:
    return seen.number, seen.gaze, seen.orders
