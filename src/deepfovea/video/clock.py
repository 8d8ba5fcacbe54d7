"""Continuous times for files whose clock starts again: joined streams, counters that wrap.

The times are those of FFmpeg's command line for such files (``-dts_delta_threshold``): where the
decoding time of a stream jumps, all later times get an offset so that they continue.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

MAX_STEP_BACK_SECONDS = 0.1
"""A jump back by more is a break of the clock, as in FFmpeg's ``ts_discontinuity_detect``."""

MAX_STEP_AHEAD_SECONDS = 10.0
"""A jump ahead by more is a break, too: FFmpeg's default of ``-dts_delta_threshold``."""

_DISCONTINUOUS = av.format.Flags.ts_discont.value
_DISCONTINUOUS_FORMATS = ("flv",)  # recorders append to such files; FFmpeg does not correct them


class Clock:
    """Offsets by which the times of all streams of a file continue where its clock breaks.

    Every break begins an epoch, which has one offset for all streams, so that they stay in sync.
    Around a break the packets of several streams are mixed, so each stream enters an epoch by
    itself.
    """

    def __init__(self) -> None:
        self.offsets = [Fraction(0)]
        self._epoch: dict[int, int] = {}
        self._last: dict[int, tuple[Fraction, Fraction]] = {}  # when a packet began and ended

    def correct(self, packet: Any) -> None:
        """Correct the times of a packet. Call it for all packets in the order of the file."""
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
    """Whether the clock of files of this format may start again."""
    name = container.format.name
    return bool(int(container.format.flags) & _DISCONTINUOUS) or name in _DISCONTINUOUS_FORMATS


def demux(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream with continuous times."""
    if not may_break(container):
        yield from container.demux(stream)
        return
    clock = Clock()
    for packet in container.demux(*_timed(container)):
        clock.correct(packet)
        if packet.stream.index == stream.index:
            yield packet


def demux_video(container: Any, stream: Any) -> Iterator[Any]:
    """As :func:`demux`, but without the times that FFmpeg makes up for AVI, which are unordered."""
    container.flags &= ~av.container.Flags.gen_pts.value
    return demux(container, stream)


def scan(container: Any, stream: Any) -> tuple[int, int]:
    """Count the packets of a stream and the breaks of the file's clock, without decoding."""
    clock, count = Clock(), 0
    for packet in container.demux(*_timed(container)):
        clock.correct(packet)
        count += packet.stream.index == stream.index and packet.size > 0
    return count, len(clock.offsets) - 1


def frame_times(container: Any, stream: Any) -> list[float]:
    """The times of a stream's frames in seconds, sorted; empty if the file does not state them."""
    times: set[float] = set()
    for packet in demux_video(container, stream):
        if packet.size and packet.pts is None and times:
            return []
        if packet.size and packet.pts is not None:
            times.add(float(packet.pts * _exact(stream.time_base)))
    return sorted(times)


def _timed(container: Any) -> list[Any]:
    """The video and audio streams: the first of them that reaches a break shows it."""
    timed = [*container.streams.video, *container.streams.audio]
    return [stream for stream in timed if not stream.disposition & Disposition.attached_pic]


def _exact(value: Any) -> Fraction:
    return Fraction(value.numerator, value.denominator)
