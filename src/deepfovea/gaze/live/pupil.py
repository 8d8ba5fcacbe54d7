"""Receives gaze from Pupil Labs Neon or Invisible, by their realtime API (RTSP and HTTP).

The gaze is in pixels of the scene camera, which moves with the head. So a calibration is needed to
map it to the video, and it is right only while the head is still.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import struct
import threading
import time
from typing import Any

from ...config import InputError
from ..track import Size
from .clock import RoundTripClock
from .sample import Deliver, Malformed, Reading, axes

_log = logging.getLogger(__name__)

PORT = 8080  # of the realtime API (docs.pupil-labs.com, Real-time API)
_SCENE_CAMERA = {"1": (1080, 1088), "2": (1200, 1600)}
"""Height and width by the version of the hardware: 1 Invisible, 2 Neon
(docs.pupil-labs.com, Data streams: Scene video)."""
# All of these are our choice.
_ECHOES = 20  # round trips for one offset, as the device answers in whole milliseconds
_BETWEEN_ECHOES_SECONDS = 0.001  # the wait between two round trips
_ECHO_SECONDS = 10.0  # the time between two measurements of the offset
_TRY_AGAIN_SECONDS = 1.0  # the wait after the connection or a measurement failed
_ANSWER_SECONDS = 5.0  # the longest wait for an answer of the device
_STOP_SECONDS = 0.05  # the longest time until the thread notices that it must end

_ONE_POINT, _TWO_POINTS = struct.Struct("!ffB"), struct.Struct("!ffBff")
"""Packets of gaze: x, y and worn; if there are two points, the second one follows
(pupil-labs-realtime-api 1.9, streaming/gaze.py)."""
_WORN = 255


class PupilSource:
    """Follows a Companion device: the one at ``host``, or the first one found on the network.

    It waits for the device, also after it was lost. Raises InputError if the client is missing.
    """

    def __init__(self, host: str, port: int = PORT) -> None:
        self._host, self._port = host, port
        self.title = f"Pupil Labs device at {host}:{port}" if host else "Pupil Labs device"
        try:
            import pupil_labs.realtime_api as api
        except (ImportError, OSError) as error:
            raise InputError(
                f"gaze from Pupil Labs: pupil-labs-realtime-api is missing ({error}); "
                "pip install 'deepfovea[live]' brings it"
            ) from None
        self._api: Any = api

    def run(self, deliver: Deliver, malformed: Malformed, stop: threading.Event) -> None:
        """Receive until ``stop`` is set."""
        for name in ("aiortsp", "pupil_labs"):  # these log every attempt; we report what matters
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False
        asyncio.run(self._run(deliver, malformed, stop))

    async def _run(self, deliver: Deliver, malformed: Malformed, stop: threading.Event) -> None:
        task = asyncio.ensure_future(self._follow_for_ever(deliver, malformed))
        while not stop.is_set():
            await asyncio.sleep(_STOP_SECONDS)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _follow_for_ever(self, deliver: Deliver, malformed: Malformed) -> None:
        while True:
            try:
                await self._follow(deliver, malformed)
                _log.warning("%s: lost; waiting for it", self.title)
            except Exception as error:  # from HTTP, RTSP, JSON or the client's models
                _log.info("%s: %s; waiting for it", self.title, error)
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _follow(self, deliver: Deliver, malformed: Malformed) -> None:
        host, port = self._host, self._port
        if not host:
            async with self._api.Network() as network:
                found = await network.wait_for_new_device(timeout_seconds=_ANSWER_SECONDS)
            if found is None:
                raise ConnectionError("none found")
            host, port = found.addresses[0], found.port
        async with self._api.Device(host, port) as device:
            status = await asyncio.wait_for(device.get_status(), _ANSWER_SECONDS)
        sensor = status.direct_gaze_sensor()
        if sensor is None or sensor.url is None:
            raise ConnectionError("it sends no gaze")
        clock = RoundTripClock()
        echoes = asyncio.ensure_future(self._measure(clock, host, status.phone.time_echo_port))
        to_norm = axes("px", _scene_size(status.hardware.version))
        _log.info("%s: connected", self.title)
        try:
            async for data in self._api.receive_raw_rtsp_data(sensor.url):
                received = time.perf_counter()
                try:
                    x, y, worn = unpack(bytes(data.raw))
                except ValueError as error:
                    malformed(str(error))
                    continue
                tracker = data.timestamp_unix_seconds
                own = clock.to_own(tracker)
                deliver(Reading(*to_norm(x, y), worn, received, tracker, own))
        finally:
            echoes.cancel()

    async def _measure(self, clock: RoundTripClock, host: str, port: int | None) -> None:
        """Measure the offset of the device's clock to ours again and again, by its time echo."""
        from pupil_labs.realtime_api.time_echo import TimeOffsetEstimator

        while port is not None:
            with contextlib.suppress(Exception):  # the next attempt comes soon
                echoes = TimeOffsetEstimator(host, port).estimate(
                    # whole milliseconds, rounded down as on the device, so that errors cancel
                    _ECHOES,
                    _BETWEEN_ECHOES_SECONDS,
                    time_fn_ms=lambda: int(1e3 * time.perf_counter()),
                )
                estimate = await asyncio.wait_for(echoes, _ANSWER_SECONDS)
                if estimate is not None:
                    offset = 1e-3 * estimate.time_offset_ms.mean  # ours minus the device's
                    clock.add(time.perf_counter() - offset, offset)
            measured = clock.to_own(0.0) is not None
            await asyncio.sleep(_ECHO_SECONDS if measured else _TRY_AGAIN_SECONDS)


def _scene_size(version: str) -> Size:
    return _SCENE_CAMERA.get(str(version).split(".")[0], _SCENE_CAMERA["2"])


def unpack(payload: bytes) -> tuple[float, float, bool]:
    """Read x, y and whether the glasses are worn from a packet's payload.

    Every kind of gaze packet begins with x, y (float32) and worn (255), big endian. A packet of 17
    bytes has one point for each eye, of which we take the mean. Raises ValueError if it is shorter
    than 9 bytes.
    """
    if len(payload) < _ONE_POINT.size:
        raise ValueError(f"a packet of {len(payload)} bytes, not {_ONE_POINT.size} or more")
    x, y, worn = _ONE_POINT.unpack_from(payload)
    if len(payload) == _TWO_POINTS.size:
        _, _, _, x2, y2 = _TWO_POINTS.unpack(payload)
        x, y = (x + x2) / 2, (y + y2) / 2
    return x, y, worn == _WORN and math.isfinite(x) and math.isfinite(y)
