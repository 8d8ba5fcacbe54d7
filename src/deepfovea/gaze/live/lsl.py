"""Receives gaze from a stream of the Lab Streaming Layer (labstreaminglayer.org)."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...config import InputError
from ..table import NO_VALUE, NOWHERE, POSITION_UNITS, parse_name
from ..track import Size
from .sample import Axes, Deliver, Malformed, Reading, axes

_log = logging.getLogger(__name__)

# All but _CORRECTION_SECONDS are our choice.
_POLL_SECONDS = 0.1  # the longest time until the thread notices that it must end
_CONNECT_SECONDS = 2.0  # the longest wait for an answer of a stream
_FORGET_SECONDS = 2.0  # a stream that is silent for longer is no longer listed
_TRY_AGAIN_SECONDS = 0.3  # the wait after a stream was lost
_REFUSED_SECONDS = 1.0  # the wait for another stream, after one that cannot be read
_CORRECTION_SECONDS = 1.0  # liblsl measures every 5 s by itself and answers from memory
_BUFFER_SECONDS = 10  # duration of the samples that are kept while this program is busy


class Eyes(NamedTuple):
    """The channels of a stream that hold the gaze: pairs of x and y, averaged over the eyes seen.

    ``zero_is_lost``: the sender writes 0, 0 for an eye that it cannot find.
    """

    pairs: tuple[tuple[int, int], ...]
    units: str
    confidence: int | None = None
    valid: tuple[int | None, ...] = ()
    zero_is_lost: bool = False


class Labels(NamedTuple):
    """The labels that one sender gives its channels."""

    pairs: tuple[tuple[str, str], ...]
    units: str
    zero_is_lost: bool = False
    valid: tuple[str, ...] = ()


_LABELS = (
    # App-EyeLink (github.com/labstreaminglayer/App-EyeLink, eyelink.py), pixels of the screen
    Labels((("leftEyeX", "leftEyeY"), ("rightEyeX", "rightEyeY")), "px", zero_is_lost=True),
    # Pupil Capture (github.com/labstreaminglayer/App-PupilLabs, pupil_capture)
    Labels((("norm_pos_x", "norm_pos_y"),), "norm_up"),
    # names of the Tobii Pro SDK (developer.tobiipro.com, Python: GazeData)
    Labels(
        (
            ("left_gaze_point_on_display_area_x", "left_gaze_point_on_display_area_y"),
            ("right_gaze_point_on_display_area_x", "right_gaze_point_on_display_area_y"),
        ),
        "norm",
        valid=("left_gaze_point_validity", "right_gaze_point_validity"),
    ),
    Labels((("gaze_x", "gaze_y"),), ""),
    Labels((("x", "y"),), ""),
)


def find_eyes(channels: Sequence[dict[str, str]]) -> Eyes | None:
    """Find the gaze among channels by their metadata; None if it cannot be found.

    Each channel has a ``label``, ``type``, ``eye`` and ``unit``. The gaze is in channels of the
    types ScreenX and ScreenY of the XDF specification (github.com/sccn/xdf/wiki/Gaze-Meta-Data);
    else in those with the labels of a known sender; else in the channels of a stream with just two.
    """
    types = [channel.get("type", "").lower() for channel in channels]
    names = [parse_name(channel.get("label", ""))[0] for channel in channels]
    stated = [
        POSITION_UNITS.get(channel.get("unit", "").lower())
        or POSITION_UNITS.get(parse_name(channel.get("label", ""))[1], "")
        for channel in channels
    ]
    confidence = next(
        (i for i, (t, n) in enumerate(zip(types, names, strict=True)) if "confidence" in (t, n)),
        None,
    )
    by_eye = []
    for eye in ("both", "left", "right", ""):
        pair = [
            next(
                (
                    i
                    for i, channel in enumerate(channels)
                    if types[i] == side and channel.get("eye", "").lower() == eye
                ),
                None,
            )
            for side in ("screenx", "screeny")
        ]
        if pair[0] is not None and pair[1] is not None:
            by_eye.append((pair[0], pair[1]))
            if eye == "both":
                break
    if by_eye:
        return Eyes(tuple(by_eye), stated[by_eye[0][0]] or "px", confidence)

    def place(label: str) -> int | None:
        name = parse_name(label)[0]
        return names.index(name) if name in names else None

    for labels in _LABELS:
        pairs, valid = [], []
        for number, (x_label, y_label) in enumerate(labels.pairs):
            x, y = place(x_label), place(y_label)
            if x is not None and y is not None:
                pairs.append((x, y))
                valid.append(place(labels.valid[number]) if labels.valid else None)
        if pairs:
            units = stated[pairs[0][0]] or labels.units
            return Eyes(tuple(pairs), units, confidence, tuple(valid), labels.zero_is_lost)
    if len(channels) == 2:
        return Eyes(((0, 1),), stated[0])
    return None


def read_position(
    values: Sequence[float], eyes: Eyes, min_confidence: float
) -> tuple[float, float, bool]:
    """Return x, y in the stream's units, and whether they are valid."""
    seen = []
    for number, (x_at, y_at) in enumerate(eyes.pairs):
        x, y = values[x_at], values[y_at]
        valid_at = eyes.valid[number] if eyes.valid else None
        lost = not (abs(x) < NOWHERE and abs(y) < NOWHERE) or NO_VALUE in (x, y)
        lost = lost or (eyes.zero_is_lost and x == 0 == y)
        if not lost and (valid_at is None or values[valid_at] > 0):
            seen.append((x, y))
    confident = eyes.confidence is None or values[eyes.confidence] >= min_confidence
    if not seen:
        return math.nan, math.nan, False
    return sum(x for x, _ in seen) / len(seen), sum(y for _, y in seen) / len(seen), confident


class LslSource:
    """Follows the stream with a name, or the first one of the type Gaze.

    It waits for the stream, also after it was lost. Raises InputError if pylsl is missing.
    """

    def __init__(
        self, name: str, units: str | None, screen: Size | None, min_confidence: float
    ) -> None:
        if "'" in name:
            raise InputError(f"gaze: received the stream {name!r:.100}; expected no quotes in it")
        self._predicate = f"name='{name}'" if name else "type='Gaze' or type='gaze'"
        self.title = f"LSL stream {name}" if name else "LSL stream of type Gaze"
        self._units, self._screen, self._min_confidence = units, screen, min_confidence
        self._lsl = _import()

    def run(self, deliver: Deliver, malformed: Malformed, stop: threading.Event) -> None:
        """Receive until ``stop`` is set."""
        resolver = self._lsl.ContinuousResolver(pred=self._predicate, forget_after=_FORGET_SECONDS)
        refused, was_lost = "", False
        while not stop.is_set():
            found = sorted(resolver.results(), key=lambda info: info.name())
            if not found:
                stop.wait(_POLL_SECONDS)
                continue
            try:
                inlet, eyes, to_norm = self._connect(found[0])
                was_lost = False
                self._follow(inlet, eyes, to_norm, deliver, stop)
            except (self._lsl.util.LostError, self._lsl.util.TimeoutError):
                if not was_lost:
                    _log.warning("%s: lost; waiting for it", self.title)
                was_lost = True
                stop.wait(_TRY_AGAIN_SECONDS)  # an ended stream is still listed for a while
            except InputError as error:  # reported once; another stream may come
                if str(error) != refused:
                    refused = str(error)
                    malformed(refused)
                stop.wait(_REFUSED_SECONDS)

    def _connect(self, found: Any) -> tuple[Any, Eyes, Axes]:
        # We reconnect ourselves, so that the channels of a stream that returns are read again.
        inlet = self._lsl.StreamInlet(
            found, max_buflen=_BUFFER_SECONDS, max_chunklen=1, recover=False
        )
        eyes, to_norm = self._read_info(inlet.info(timeout=_CONNECT_SECONDS))
        inlet.open_stream(timeout=_CONNECT_SECONDS)
        _log.info("%s: connected", self.title)
        return inlet, eyes, to_norm

    def _follow(
        self, inlet: Any, eyes: Eyes, to_norm: Axes, deliver: Deliver, stop: threading.Event
    ) -> None:
        lsl = self._lsl
        correction, measured = inlet.time_correction(_CONNECT_SECONDS), time.perf_counter()
        to_perf = time.perf_counter() - lsl.local_clock()
        while not stop.is_set():
            values, stamp = inlet.pull_sample(timeout=_POLL_SECONDS)
            received = time.perf_counter()
            if received - measured > _CORRECTION_SECONDS:
                correction, measured = inlet.time_correction(_CONNECT_SECONDS), received
                to_perf = time.perf_counter() - lsl.local_clock()
            if values is None:
                continue
            x, y, valid = read_position(values, eyes, self._min_confidence)
            own = stamp + correction + to_perf
            deliver(Reading(*to_norm(x, y), valid, received, stamp, own))

    def _read_info(self, info: Any) -> tuple[Eyes, Axes]:
        channels: list[dict[str, str]] = []
        channel = info.desc().child("channels").child("channel")
        while not channel.empty() and len(channels) < info.channel_count():
            channels.append(
                {key: channel.child_value(key) for key in ("label", "type", "eye", "unit")}
            )
            channel = channel.next_sibling("channel")
        channels += [{}] * (info.channel_count() - len(channels))
        eyes = find_eyes(channels)
        if info.channel_format() == self._lsl.cf_string or eyes is None:
            labels = ", ".join(channel.get("label", "?") for channel in channels)
            raise InputError(
                f"{self.title}: received the channels {labels:.200}; expected ScreenX and ScreenY "
                "as in XDF's meta-data, labels of a known tracker, or just x and y"
            )
        return eyes, axes(self._units or eyes.units or "norm", self._screen)


def _import() -> Any:
    try:
        import pylsl
    except (ImportError, RuntimeError) as error:  # without liblsl, pylsl raises RuntimeError
        raise InputError(
            f"gaze from LSL: pylsl is missing ({error}); pip install 'deepfovea[live]' brings it"
        ) from None
    return pylsl
