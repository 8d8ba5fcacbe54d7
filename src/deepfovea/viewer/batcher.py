"""Collects as many frames as the network takes at a time, and returns its frames one by one."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from torch import Tensor

from ..gaze.live import GazeEstimate
from ..reconstructor import Gaze, Input, Reconstructed, Reconstructor
from .request import ViewerRequest


class PendingFrame(NamedTuple):
    """A frame that waits for the network.

    ``image`` [3, H, W] and ``low`` [3, h, w] in [0, 1]; ``gaze`` normalised; ``timestamp`` of the
    client's event that set the gaze, ms, None if a track or a tracker set it; ``number`` and
    ``pts_seconds`` of the frame in the video; ``settings``: see :meth:`ViewerRequest.settings`;
    ``jitter`` of ``low``, low-resolution pixels; ``look``: the estimate of a live tracker, None
    without one.
    """

    image: Tensor
    low: Tensor
    gaze_px: Gaze
    gaze: tuple[float, float]
    timestamp: float | None
    number: int
    pts_seconds: float
    settings: ViewerRequest
    jitter: tuple[float, float] | None = None
    look: GazeEstimate | None = None


class FinishedFrame(NamedTuple):
    """A frame and its reconstruction; ``seconds`` is its share of the network's time."""

    pending: PendingFrame
    result: Reconstructed
    seconds: float


class FrameBatcher:
    """Takes one frame per call and returns one.

    If the network takes single frames, it is the same frame. If the network takes n frames at a
    time, each comes n - 1 calls later; a gaze-contingent display with this network has this delay.
    """

    def __init__(self, reconstructor: Reconstructor) -> None:
        self.reconstructor = reconstructor
        self.reset()

    def reset(self) -> None:
        """Begin a new video; frames that were not returned yet are discarded."""
        self.reconstructor.reset()
        self._waiting: list[PendingFrame] = []
        self._ready: deque[FinishedFrame] = deque()
        self.is_late = False

    def __call__(self, pending: PendingFrame) -> FinishedFrame | None:
        """Take a frame and return the next finished one; None while the first ones are collected.

        Afterwards ``is_late`` says whether the returned frame is older than the one just taken.
        """
        self._waiting.append(pending)
        count = self.reconstructor.engine.frames_per_step
        if len(self._waiting) == count:
            started = time.perf_counter()
            results = list(
                self.reconstructor.stream(
                    Input(each.low, each.gaze_px, jitter=each.jitter) for each in self._waiting
                )
            )
            seconds_each = (time.perf_counter() - started) / count
            pairs = zip(self._waiting, results, strict=True)
            self._ready.extend(FinishedFrame(*pair, seconds_each) for pair in pairs)
            self._waiting = []
        finished = self._ready.popleft() if self._ready else None
        self.is_late = finished is None or _content(finished.pending) != _content(pending)
        return finished


def _content(pending: PendingFrame) -> tuple[object, ...]:
    return pending.number, pending.gaze, pending.settings
