"""Receives gaze in UDP packets: JSON or Open Sound Control, as game engines send them.

A malformed packet is counted and has no other effect.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...config import InputError
from .sample import Axes, Deliver, Malformed, Reading

MAX_PACKET_BYTES = 65536  # the length field of UDP has 16 bits (RFC 768)
RECEIVE_BUFFER_BYTES = 2**20  # our choice: seconds of a fast tracker, while this program is busy
_STOP_SECONDS = 0.1  # our choice: the longest time until the thread notices that it must end


class Message(NamedTuple):
    """One gaze sample in a packet, in the units of the sender."""

    x: float
    y: float
    valid: bool
    tracker_seconds: float | None


Parse = Callable[[bytes, float], Iterator[Message]]
"""(packet, smallest confidence) -> its messages; raises ValueError if it is malformed."""


class DatagramSource:
    """Listens on a UDP port. Raises InputError if the port cannot be opened."""

    def __init__(
        self, name: str, host: str, port: int, parse: Parse, to_norm: Axes, min_confidence: float
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"gaze: cannot listen on UDP {host} port {port} ({reason}); choose another port"
            ) from None
        self._socket.settimeout(_STOP_SECONDS)
        self.port: int = self._socket.getsockname()[1]
        self.title = f"{name} on {host} port {self.port}"
        self._parse, self._to_norm, self._min_confidence = parse, to_norm, min_confidence

    def run(self, deliver: Deliver, malformed: Malformed, stop: threading.Event) -> None:
        """Receive until ``stop`` is set."""
        with self._socket:
            while not stop.is_set():
                try:
                    packet = self._socket.recv(MAX_PACKET_BYTES)
                except TimeoutError:
                    continue
                except ConnectionError:  # on Windows, if an answer to an earlier packet was refused
                    continue
                received = time.perf_counter()
                try:
                    messages = list(self._parse(packet, self._min_confidence))
                except ValueError as error:
                    malformed(str(error))
                    continue
                for x, y, valid, tracker in messages:
                    deliver(Reading(*self._to_norm(x, y), valid, received, tracker))


def parse_json(packet: bytes, min_confidence: float) -> Iterator[Message]:
    """Read a JSON object, or a list of them, with the names of our CSV files.

    These are ``x`` and ``y``, and optionally ``time`` (seconds of the sender's clock),
    ``confidence`` (0 to 1), ``valid`` and ``blink``. If ``valid`` is false, x and y may be missing
    or null. Other names are ignored. Raises ValueError for anything else.
    """
    try:
        values = json.loads(packet)
    except RecursionError:
        raise ValueError("JSON nested too deeply, not an object with x and y") from None
    for item in values if isinstance(values, list) else [values]:
        if not isinstance(item, dict):
            raise ValueError(f"{type(item).__name__} in JSON, not an object with x and y")
        valid = _flag(item, "valid", True) and not _flag(item, "blink", False)
        confidence = _number(item, "confidence")
        valid = valid and (confidence is None or confidence >= min_confidence)
        x, y = _number(item, "x"), _number(item, "y")
        if valid and (x is None or y is None):
            raise ValueError(
                "an object without x or y that says neither valid: false nor blink: true"
            )
        x, y = math.nan if x is None else x, math.nan if y is None else y
        yield Message(x, y, valid, _time(_number(item, "time")))


def parse_osc(packet: bytes, min_confidence: float) -> Iterator[Message]:
    """Read OSC messages whose address ends in ``/gaze``: x, y[, time[, confidence]].

    Bundles are read too; messages with other addresses are ignored. Raises ValueError for data that
    is not OSC and for other arguments.
    """
    from pythonosc.osc_packet import OscPacket

    try:
        messages = [timed.message for timed in OscPacket(packet).messages]
    except Exception as error:  # the parser raises what its struct and its lists raise
        raise ValueError(f"no OSC ({error})") from None
    for message in messages:
        if not message.address.rstrip("/").endswith("/gaze"):
            continue
        numbers = [value for value in message.params if type(value) in (int, float)]
        if len(numbers) != len(message.params) or not 2 <= len(numbers) <= 4:
            raise ValueError(
                f"{message.address} with {len(message.params)} arguments, not the numbers x, y, "
                "time and confidence, of which the last two may be missing"
            )
        x, y, *rest = map(float, numbers)
        confidence = rest[1] if len(rest) > 1 else 1.0
        yield Message(x, y, confidence >= min_confidence, _time(rest[0] if rest else None))


def _time(seconds: float | None) -> float | None:
    if seconds is not None and not math.isfinite(seconds):
        raise ValueError(f"the time {seconds}, not finite seconds")
    return seconds


def _number(item: dict[str, Any], name: str) -> float | None:
    value = item.get(name)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise ValueError(f"{name} of {value!r:.40}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} of more digits than a number may have") from None


def _flag(item: dict[str, Any], name: str, default: bool) -> bool:
    value = item.get(name, default)
    if value in (True, False):  # 1 and 0 too
        return bool(value)
    raise ValueError(f"{name} of {value!r:.40}, neither true nor false")
