"""One clock for a file whose own clock begins again: joined streams, counters that wrap.

Times are those of FFmpeg's command line for such files (``-dts_delta_threshold``): where the
decoding time of a stream jumps, what follows carries an offset that lets it go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

MAX_STEP_BACK_SECONDS = 0.1
"""Seconds back that are a break of the clock: FFmpeg's ``ts_discontinuity_detect``."""

MAX_STEP_AHEAD_SECONDS = 10.0
"""Seconds ahead that are one: FFmpeg's default of ``-dts_delta_threshold``."""

_DISCONTINUOUS = av.format.Flags.ts_discont.value
_DISCONTINUOUS_FORMATS = ("flv",)  # recorders append to it; FFmpeg leaves such times as they are


class Clock:
    """Offsets with which the times of all streams of one file continue where its clock breaks.

    Every break begins an epoch with an offset of its own. Around a break the packets of several
    streams lie mixed, so each stream goes from epoch to epoch by itself, but the offset of an
    epoch is one for all: what was in sync stays so.
    """

    def __init__(self) -> None:
        self.offsets = [Fraction(0)]
        self._epoch: dict[int, int] = {}
        self._last: dict[int, tuple[Fraction, Fraction]] = {}  # when a packet began and ended

    def correct(self, packet: Any) -> None:
        """Move the times of a packet; packets come as the file stores them."""
        if packet.dts is None:
            return
        stream, unit = packet.stream.index, _exact(packet.time_base)
        dts, epoch = packet.dts * unit, self._epoch.get(stream, 0)
        if stream in self._last:
            began, ended = self._last[stream]
            later = range(epoch, len(self.offsets))
            epoch = min(later, key=lambda number: abs(dts + self.offsets[number] - ended))
            time = dts + self.offsets[epoch]
            if time < began - MAX_STEP_BACK_SECONDS or time > ended + MAX_STEP_AHEAD_SECONDS:
                self.offsets.append(ended - dts)
                epoch = len(self.offsets) - 1
        self._epoch[stream] = epoch
        time = dts + self.offsets[epoch]
        self._last[stream] = time, time + (packet.duration or 0) * unit
        ticks = round(self.offsets[epoch] / unit)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks


def may_break(container: Any) -> bool:
    """Whether the clock of such a format may begin again."""
    name = container.format.name
    return bool(int(container.format.flags) & _DISCONTINUOUS) or name in _DISCONTINUOUS_FORMATS


def demux(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream on one clock."""
    if not may_break(container):
        yield from container.demux(stream)
        return
    clock = Clock()
    for packet in container.demux(*_timed(container)):
        clock.correct(packet)
        if packet.stream.index == stream.index:
            yield packet


def demux_video(container: Any, stream: Any) -> Iterator[Any]:
    """As :func:`demux`, with the file's own times: those made up for AVI are disordered."""
    container.flags &= ~av.container.Flags.gen_pts.value
    return demux(container, stream)


def scan(container: Any, stream: Any) -> tuple[int, int]:
    """How many packets a stream has, and how often the file's clock breaks; decodes nothing."""
    clock, count = Clock(), 0
    for packet in container.demux(*_timed(container)):
        clock.correct(packet)
        count += packet.stream.index == stream.index and packet.size > 0
    return count, len(clock.offsets) - 1


def frame_times(container: Any, stream: Any) -> list[float]:
    """When the frames of a stream are shown, in seconds; none where the file does not say it."""
    times: set[float] = set()
    for packet in demux_video(container, stream):
        if packet.size and packet.pts is None and times:
            return []
        if packet.size and packet.pts is not None:
            times.add(float(packet.pts * _exact(stream.time_base)))
    return sorted(times)


def _timed(container: Any) -> list[Any]:
    """The streams that keep time: a break is seen in the one that comes to it first."""
    timed = [*container.streams.video, *container.streams.audio]
    return [stream for stream in timed if not stream.disposition & Disposition.attached_pic]


def _exact(value: Any) -> Fraction:
    return Fraction(value.numerator, value.denominator)
