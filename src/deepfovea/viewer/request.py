"""The request of one viewer, as a value, and the only code that reads a client's messages.

Messages are not queued. Each one changes some fields of the current request, and the session reads
only that request, however many messages have arrived.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from ..config import BEST_SAMPLING, JITTERS, PUBLISHED_DENSITY, Density, InputError
from ..gaze import DEFAULT_DISPLAY

ACCUMULATED = "accumulated"
MODEL_PREFIX = "model:"
VIEWS = ("reconstruction", "samples", "original", "filled", ACCUMULATED, "error")
"""Pictures of a frame. A model's own is ``MODEL_PREFIX`` and its name."""
MAX_TRACK_BYTES = 2**20  # of a gaze file dropped on the page: some minutes at 250/s; our choice
MAX_MESSAGE_BYTES = MAX_TRACK_BYTES + 2**18  # more, as JSON escapes the line breaks


@dataclass(frozen=True)
class ViewerRequest:
    """Everything that a viewer can request. Actions that can be repeated are counted."""

    model: str
    video: str
    gaze: tuple[float, float] = (0.5, 0.5)
    """Normalised: 0 to 1 across the frame, edge to edge."""
    timestamp: float = 0.0
    """Time of the event that set the gaze, by the client's clock, ms; returned with the frame."""
    playing: bool = True
    speed: float = 1.0
    """Factor of the video's own speed; 0 shows every frame, however long it takes."""
    density: Density = PUBLISHED_DENSITY
    pixels_per_degree: float = round(DEFAULT_DISPLAY.pixels_per_degree, 2)
    """High-resolution pixels of the video per degree; used if the density is in degrees."""
    blue_noise: bool = BEST_SAMPLING.noise == "blue"
    jitter: str = BEST_SAMPLING.jitter
    """One of ``JITTERS``; for generators that take jitter."""
    live: bool = True
    """Whether to follow the server's eye tracker, if it has one, instead of the pointer."""
    views: frozenset[str] = frozenset(VIEWS[:3])
    """The pictures to send: those that the page shows."""
    track: str | None = None
    """A gaze track as CSV, which is followed instead of the pointer."""
    steps: int = 0
    resets: int = 0
    seeks: int = 0
    seek_seconds: float = 0.0
    """Time of the last seek, s; a video that is opened starts there."""
    steps_before_seek: int = 0
    """``steps`` at the last seek, or when another video was chosen; only later steps count."""
    acknowledged: int = 0
    """Number of the last frame that the client has painted."""

    def settings(self) -> ViewerRequest:
        """The request without the fields that change from frame to frame."""
        return replace(self, gaze=(0.0, 0.0), timestamp=0.0, acknowledged=0)


def apply_message(
    request: ViewerRequest, text: str, models: Collection[str], videos: Collection[str]
) -> ViewerRequest:
    """Apply one message of a client: a JSON object of the fields to change.

    Args:
        request: the current request.
        text: for example ``{"gaze": [0.2, 0.7], "timestamp": 1234.5}``. Keys: those of
            :class:`ViewerRequest` without its counts; ``density`` as on the command line; and
            the actions ``{"step": true}``, ``{"reset": true}`` and ``{"seek": seconds}``.
        models: names that may be requested.
        videos: identifiers that may be requested.

    Returns:
        The new request.

    Raises:
        InputError: the message is anything else.
    """
    if len(text) > MAX_MESSAGE_BYTES:
        raise _input_error("a message", len(text), f"at most {MAX_MESSAGE_BYTES} characters")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise _input_error("a message", text[:80], "JSON") from None
    if not isinstance(values, dict) or not values:
        raise _input_error("a message", text[:80], "a JSON object with the fields to change")
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key == "step":
            _flag(key, value)
            changes |= {"steps": request.steps + 1, "playing": False}
        elif key == "reset":
            _flag(key, value)
            changes["resets"] = request.resets + 1
        elif key == "seek":
            changes |= {"seeks": request.seeks + 1, "seek_seconds": _number(0.0, 1e7)(key, value)}
            changes["steps_before_seek"] = request.steps
        elif key == "model":
            changes[key] = _known_name(models, key, value)
        elif key == "video":
            changes[key] = _known_name(videos, key, value)
        elif key == "views":
            changes[key] = _views(key, value, models)
        elif key in _CHECKS:
            changes[key] = _CHECKS[key](key, value)
        else:
            known = sorted([*_CHECKS, "model", "reset", "seek", "step", "video", "views"])
            raise _input_error("a key", key, f"one of {', '.join(known)}")
    if "seek" not in values and changes.get("video", request.video) != request.video:
        # Another video starts at its beginning.
        changes |= {"seek_seconds": 0.0, "steps_before_seek": request.steps}
    return replace(request, **changes)


def _number(least: float, most: float) -> Callable[[str, Any], float]:
    def check(key: str, value: Any) -> float:
        if type(value) in (int, float) and least <= value <= most:  # nan fails, infinity too
            return float(value)
        raise _input_error(key, value, f"a number from {least:g} to {most:g}")

    return check


def _flag(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _input_error(key, value, "true or false")


def _gaze(key: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise _input_error(key, value, "two numbers")
    check = _number(-4.0, 5.0)  # a pointer may leave the frame
    return check(key, value[0]), check(key, value[1])


def _density(key: str, value: Any) -> Density:
    if not isinstance(value, str):
        raise _input_error(key, value, "text as for --density")
    density = Density.parse(value[:200])
    numbers = (density.center, density.periphery, density.inner, density.outer)
    if not all(map(math.isfinite, numbers)) or density.outer > 1e6:
        raise _input_error(key, value, "numbers of a display's size")
    return density


def _views(key: str, value: Any, models: Collection[str]) -> frozenset[str]:
    known = (*VIEWS, *(MODEL_PREFIX + name for name in models))
    if isinstance(value, list) and value and all(view in known for view in value):
        return frozenset(value)
    raise _input_error(key, value, f"some of {', '.join(known)}")


def _jitter(key: str, value: Any) -> str:
    if isinstance(value, str) and value in JITTERS:
        return value
    raise _input_error(key, value, f"one of {', '.join(JITTERS)}")


def _track(key: str, value: Any) -> str | None:
    if value is None:
        return None
    with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair
        if isinstance(value, str) and len(value.encode()) <= MAX_TRACK_BYTES:
            return value
    raise _input_error(key, value, f"CSV text of at most {MAX_TRACK_BYTES} bytes, or null")


def _known_name(names: Collection[str], key: str, value: Any) -> str:
    if isinstance(value, str) and value in names:
        return value
    raise _input_error(key, value, "one that the server has named")


def _acknowledged(key: str, value: Any) -> int:
    return int(_number(0, 2**53)(key, value))


def _input_error(what: str, value: Any, expected: str) -> InputError:
    received = type(value).__name__ if isinstance(value, list | dict) else repr(value)[:80]
    return InputError(f"{what}: received {received}; expected {expected}")


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "gaze": _gaze,
    "timestamp": _number(0.0, 1e15),
    "playing": _flag,
    "speed": _number(0.0, 8.0),
    "density": _density,
    "pixels_per_degree": _number(1.0, 1000.0),
    "blue_noise": _flag,
    "jitter": _jitter,
    "live": _flag,
    "track": _track,
    "acknowledged": _acknowledged,
}
