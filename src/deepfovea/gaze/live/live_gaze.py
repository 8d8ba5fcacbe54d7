"""Follows a live eye tracker: the newest sample, its time, and where to sample now."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np

from ...config import InputError
from ..geometry import DEFAULT_DISPLAY, DisplayGeometry
from ..track import HOLD_SECONDS, MIN_CONFIDENCE, GazeTrack, Size, refusal
from .calibration import Calibration
from .clock import OneWayClock
from .datagram import DatagramSource, parse_json, parse_osc
from .saccade import PredictionError, SaccadeDetector
from .sample import Deliver, GazeEstimate, LiveSample, Malformed, Reading, axes

_log = logging.getLogger(__name__)

KEEP_SECONDS = 0.5  # twice what holding (100 ms) and returning (150 ms) need
KEEP_SAMPLES = 16  # at least, for the step of a slow tracker; our choice
MAX_PORT = 65535  # a port number has 16 bits (RFC 768)
FORMS = "lsl[:NAME] | pupil[:HOST[:PORT]] | udp:[HOST:]PORT | osc:[HOST:]PORT"
_JOIN_SECONDS = 5.0  # the longest wait until a source has ended; our choice
_LATER_SECONDS = 1e-6  # between samples with equal times, to keep their order; our choice
_BEFORE_SECONDS = 1e-3  # from an added invalid sample to the first one; our choice


class Source(Protocol):
    """Receives readings from one kind of tracker."""

    title: str

    def run(self, deliver: Deliver, malformed: Malformed, stop: threading.Event) -> None:
        """Receive in the calling thread until ``stop`` is set; reconnect after every loss."""


class LiveCounts(NamedTuple):
    """How many samples have arrived, and how many of them could not be used."""

    received: int = 0
    lost: int = 0  # blinks, low confidence, no eye; they are counted in received, too
    malformed: int = 0
    out_of_order: int = 0  # older than the newest, or with times of another clock


class LiveGaze:
    """Follows a live eye tracker in a thread of its own.

        with deepfovea.LiveGaze("udp:5005") as gaze:
            shown = reconstructor(frame, gaze.pixels(height, width))

    On a blink, a loss or a low confidence the gaze is held and then returns to the centre, exactly
    as :meth:`GazeTrack.at` does with the same samples. A source that vanishes counts as a loss, and
    is followed again when it returns. Memory is constant.

    Args:
        source: ``lsl`` (the first stream of type Gaze) or ``lsl:NAME``; ``pupil`` (found on the
            network) or ``pupil:HOST``; ``udp:PORT`` for JSON and ``osc:PORT`` for Open Sound
            Control, on 127.0.0.1 unless a host is given, as in ``udp:0.0.0.0:5005``.
        units: unit of the positions, one of :data:`deepfovea.gaze.UNITS`; by default the one that
            the stream states, else norm. Not for Pupil Labs.
        screen_size: (height, width) of the screen or camera, in pixels; the unit px needs it.
        offset_seconds: added to the tracker's times; negative for a delay that its times do not
            include. A sample is never newer than its arrival.
        min_confidence: a confidence below it makes a sample invalid.
        calibration: from the tracker's positions to those in the video; with None the video is
            assumed to fill the tracker's screen.
        predict_landing: during a saccade, return its predicted landing point. The prediction has an
            error, see :attr:`prediction_error`.
        display: converts velocities and errors to degrees.

    Raises:
        InputError: the source or the unit is unknown, the port is in use, or a package is missing.
    """

    def __init__(
        self,
        source: str,
        *,
        units: str | None = None,
        screen_size: Size | None = None,
        offset_seconds: float = 0.0,
        min_confidence: float = MIN_CONFIDENCE,
        calibration: Calibration | None = None,
        predict_landing: bool = False,
        display: DisplayGeometry = DEFAULT_DISPLAY,
    ) -> None:
        self.calibration = calibration
        self.display = display
        self._offset = offset_seconds
        self._predict = predict_landing
        self._detector = SaccadeDetector(display)
        self._clock = OneWayClock()
        self._condition = threading.Condition()
        self._samples: deque[LiveSample] = deque()
        self._received = self._lost = self._malformed = self._out_of_order = 0
        self._stop = threading.Event()
        self._source = make_source(source, units, screen_size, min_confidence)
        self._thread = threading.Thread(target=self._run, name="gaze", daemon=True)
        self._thread.start()

    @property
    def title(self) -> str:
        """A description of the source for messages."""
        return self._source.title

    @property
    def port(self) -> int | None:
        """The UDP port, None for other sources; port 0 in the source selects a free one."""
        return self._source.port if isinstance(self._source, DatagramSource) else None

    @property
    def newest(self) -> LiveSample | None:
        """The newest sample, valid or not; None before the first."""
        with self._condition:
            return self._samples[-1] if self._samples else None

    @property
    def counts(self) -> LiveCounts:
        """The number of samples so far."""
        with self._condition:
            return LiveCounts(self._received, self._lost, self._malformed, self._out_of_order)

    @property
    def prediction_error(self) -> PredictionError:
        """Mean error of the predicted landing points so far, beside that without prediction."""
        with self._condition:
            return self._detector.error

    def look(self, now: float | None = None) -> GazeEstimate:
        """Say where to sample a frame: at the newest sample, or held, returning or predicted.

        ``now`` is a time of ``time.perf_counter``; None: the present.
        """
        with self._condition:
            now = time.perf_counter() if now is None else now
            if not self._samples:
                return GazeEstimate((0.5, 0.5), now, None)
            newest = self._samples[-1]
            landing = self._detector.landing
            # An older sample means that the tracker was lost in the saccade.
            fresh = now - newest.own_seconds < HOLD_SECONDS
            if self._predict and landing is not None and fresh:
                return GazeEstimate(landing, now, newest, predicted=True)
            if newest.valid and 0.0 <= now - newest.own_seconds < HOLD_SECONDS:
                # Equals GazeTrack.at, but without building arrays of all samples, which takes 2 ms.
                return GazeEstimate(newest.position, now, newest)
            samples = list(self._samples)
        x, y = _track(samples).at([now])[0].tolist()
        return GazeEstimate((x, y), now, newest)

    def pixels(self, height: int, width: int) -> tuple[float, float]:
        """Return where to look now, in px of a height x width frame."""
        x, y = self.look().position
        return x * width - 0.5, y * height - 0.5

    def measured(self, seconds: float) -> tuple[float, float, int]:
        """Return the median uncalibrated position of the last seconds, and the number of samples.

        It is for a calibration. Only valid samples of at most the last half second count. Raises
        InputError if there is none.
        """
        since = time.perf_counter() - seconds
        with self._condition:
            seen = [s.measured for s in self._samples if s.valid and s.own_seconds >= since]
        if not seen:
            raise refusal(self.title, "no valid sample", "an eye that is seen; look at the target")
        x, y = np.median(np.array(seen), axis=0).tolist()
        return x, y, len(seen)

    def wait(self, timeout_seconds: float, after: LiveSample | None = None) -> LiveSample | None:
        """Wait for a sample other than ``after``; None if there is none within the time."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._samples and self._samples[-1] is not after, timeout_seconds
            )
            newest = self._samples[-1] if self._samples else None
            return newest if newest is not after else None

    def close(self) -> None:
        """Stop following the tracker; the samples remain available."""
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def __enter__(self) -> LiveGaze:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._source.run(self._deliver, self._refuse, self._stop)
        except Exception:
            _log.exception("%s: no longer followed", self.title)

    def _refuse(self, reason: str) -> None:
        with self._condition:
            self._malformed += 1
            first = self._malformed == 1
        if first:  # later ones are only counted
            _log.warning("%s: malformed: %s; such packets are passed over", self.title, reason)

    def _deliver(self, reading: Reading) -> None:
        with self._condition:
            self._received += 1
            sample = self._place(reading)
            if sample is None:
                self._out_of_order += 1
                return
            self._lost += not sample.valid
            self._samples.append(sample)
            oldest = sample.own_seconds - KEEP_SECONDS
            while len(self._samples) > KEEP_SAMPLES and self._samples[0].own_seconds < oldest:
                self._samples.popleft()
            self._detector.add(sample)
            self._condition.notify_all()

    def _place(self, reading: Reading) -> LiveSample | None:
        """The sample with its time on our clock; None if a newer one has arrived before it."""
        newest = self._samples[-1] if self._samples else None
        tracker, received = reading.tracker_seconds, reading.received_seconds
        own = reading.own_seconds
        if own is None and tracker is not None:
            own = self._clock.to_own(tracker, received)
            if own is None:
                return None
        own = min(received, received if own is None else own + self._offset)
        if newest is not None and own <= newest.own_seconds:
            before = newest.tracker_seconds
            if tracker is not None and before is not None and tracker <= before:
                return None
            # Two came in one packet, or the offset has changed.
            own = newest.own_seconds + _LATER_SECONDS
        measured = reading.x, reading.y
        valid = reading.valid and all(map(math.isfinite, measured))
        position = self.calibration(*measured) if valid and self.calibration else measured
        return LiveSample(position, measured, valid, own, received, tracker)


def _track(samples: list[LiveSample]) -> GazeTrack:
    """The samples as a track; unlike in a file, a single sample is not a constant gaze."""
    if len(samples) == 1:
        samples = [
            samples[0]._replace(valid=False, own_seconds=samples[0].own_seconds - _BEFORE_SECONDS),
            samples[0],
        ]
    return GazeTrack(
        np.array([sample.own_seconds for sample in samples]),
        np.array([sample.position for sample in samples]),
        np.array([sample.valid for sample in samples]),
    )


def make_source(text: str, units: str | None, screen: Size | None, min_confidence: float) -> Source:
    """The source named by a text such as ``udp:5005``.

    Raises InputError if the text names none.
    """
    kind, _, rest = text.partition(":")
    if kind == "lsl":
        from .lsl import LslSource

        return LslSource(rest, units, screen, min_confidence)
    if kind == "pupil":
        from .pupil import PORT, PupilSource

        if units is not None:
            raise refusal("gaze units", f"{units} with {text:.100}", "none: its pixels are known")
        host, port = _host_and_port(text, rest, PORT) if rest else ("", PORT)
        return PupilSource(host, port)
    if kind in ("udp", "osc"):
        if kind == "osc":
            _need_osc()
        host, port = _host_and_port(text, rest, None)
        parse = parse_json if kind == "udp" else parse_osc
        to_norm = axes(units or "norm", screen)
        name = "JSON over UDP" if kind == "udp" else "OSC"
        return DatagramSource(name, host or "127.0.0.1", port, parse, to_norm, min_confidence)
    raise refusal("gaze", f"{text!r:.100}", FORMS)


def _host_and_port(text: str, rest: str, port: int | None) -> tuple[str, int]:
    """Split ``HOST:PORT``, or only one of them; IPv6 addresses are in brackets."""
    host, _, number = rest.rpartition(":")
    if port is not None and not (host and number.isdecimal()):
        host, number = rest, str(port)  # only a host
    if not number.isdecimal() or int(number) > MAX_PORT:
        raise refusal("gaze", f"{text!r:.100}", f"{FORMS}, PORT from 0 to {MAX_PORT}")
    return host.strip("[]"), int(number)


def _need_osc() -> None:
    from importlib.util import find_spec

    if find_spec("pythonosc") is None:
        raise InputError(
            "gaze from OSC: python-osc is missing; pip install 'deepfovea[live]' brings it"
        )
