"""Decoding: from a file to frames with their times in the file."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av

from ..wording import pluralize
from .clock import demux_video, may_break
from .container import fraction, reason_of, refuse, video_stream
from .crop import NO_CROP, Crop, container_crop
from .hardware import open_accelerated
from .pages import pages_of, read_pages


class Decoded(NamedTuple):
    """A frame of FFmpeg, and its time in the file in seconds, None if the file gives none."""

    frame: Any
    seconds: float | None
    deinterlaced: bool = False


LOSSY_ALPHA = ("vp8", "vp9", "libvpx", "libvpx-vp9", "hevc")
"""Codecs that compress alpha with loss, as a picture of its own."""


_UNTIMED = av.format.Flags.no_timestamps.value
_NO_FIELDS = ("png", "apng", "gif")
"""Codecs for which "interlaced" means stored in several passes; they have no fields."""


class Source(NamedTuple):
    """An open file and its properties.

    ``frames`` are those of the first video stream, with times by the file's own clock;
    ``container`` and ``stream`` are None if Pillow reads the file; ``still`` says whether it is a
    single picture without times; ``on_cpu`` says why the CPU decodes a video that a GPU was asked
    for.
    """

    frames: Iterator[Decoded]
    container: Any = None
    stream: Any = None
    crop: Crop = NO_CROP
    still: bool = False
    frame_count: int | None = None
    on_cpu: str = ""

    @property
    def may_break(self) -> bool:
        """Whether the clock of files of this format may start again."""
        return self.container is not None and may_break(self.container)

    @property
    def untimed(self) -> bool:
        """Whether the format has no times at all."""
        return self.container is None or bool(int(self.container.format.flags) & _UNTIMED)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec; "" if Pillow reads the file."""
        return "" if self.stream is None else self.stream.codec_context.name


@contextlib.contextmanager
def open_source(path: Path, hwaccel: str = "none") -> Iterator[Source]:
    """Open a video file or an image.

    Args:
        path: the file.
        hwaccel: one of :data:`deepfovea.config.HWACCELS`; images are decoded on the CPU.

    Raises:
        InputError: the file cannot be opened; ``frames`` raises it if it cannot be decoded.
    """
    pages = pages_of(path)
    if pages is not None:
        frames = (Decoded(*page) for page in read_pages(path, pages))
        yield Source(frames, still=len(pages) == 1, frame_count=len(pages))
        return
    opened, on_cpu = open_accelerated(path, hwaccel)
    with opened as container:
        stream = video_stream(container)
        if stream is None:
            refuse(path, "a file without video", "a file with a video stream")
        if stream.codec_context is None:
            refuse(path, "a codec that cannot be decoded", "another one; convert the file")
        kind = container.format.name
        still = kind == "image2" or kind.endswith("_pipe")
        if still:  # otherwise FFmpeg would fill the missing end of a JPEG with grey
            stream.codec_context.options = {"err_detect": "explode"}
        yield Source(
            decode(path, container, stream),
            container,
            stream,
            container_crop(path, kind, list(container.streams.video).index(stream)),
            still=still,
            frame_count=stream.frames or None,
            on_cpu=on_cpu,
        )


def decode(
    path: Path, container: Any, stream: Any, packets: Iterator[Any] | None = None
) -> Iterator[Decoded]:
    """Decode the frames of a stream; interlaced ones are deinterlaced by FFmpeg's bwdif.

    An error before the first frame is ignored, as a recording may begin between key frames. A later
    error becomes an InputError, after the frames that can be decoded. This is why PyAV's default of
    no frame threads is kept: with them, errors and the frames around them would be lost.

    Args:
        path: path of the file, for messages.
        container: the container, just opened.
        stream: the stream of the container to decode.
        packets: the packets to decode; None: all of the stream.
    """
    frames = _decode_packets(path, stream, packets or demux_video(container, stream))
    return frames if stream.codec_context.name in _NO_FIELDS else _progressive(frames, stream)


def _decode_packets(path: Path, stream: Any, packets: Iterator[Any]) -> Iterator[Decoded]:
    decoder = stream.codec_context
    with_alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(decoder.name)
    if with_alpha and stream.metadata.get("alpha_mode") == "1":
        decoder = av.CodecContext.create(with_alpha, "r")  # FFmpeg's own decoders drop alpha
    decoder.flags |= av.codec.context.Flags.unaligned.value  # crop exactly, not by 32 pixels
    count, seconds, error = 0, None, None
    while error is None or count == 0:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = decoder.decode(packet)
        except av.FFmpegError as failure:
            error, frames = failure, []
            if count:
                with contextlib.suppress(av.FFmpegError):
                    frames = decoder.decode(None)
        for frame in frames:
            count, error = count + 1, error if count else None
            ticks = frame.dts if frame.pts is None else frame.pts
            seconds = None if ticks is None else float(ticks * fraction(stream.time_base))
            yield Decoded(frame, seconds)
    if error or not count:
        reason = f" ({reason_of(error)})" if error else ""
        if not count:
            expected = "an undamaged file; repair it, or fetch or make it again"
            refuse(path, f"no frame that can be decoded{reason}", expected)
        last = "" if seconds is None else f", the last at {seconds:.3f} s"
        received = f"{pluralize(count, 'frame')}{last}, then an error{reason}"
        refuse(path, received, "an undamaged video; repair, re-encode or trim it")


def _progressive(frames: Iterable[Decoded], stream: Any) -> Iterator[Decoded]:
    """Deinterlace those frames that are interlaced; their number and their times stay the same.

    A result depends only on the frame itself, the one before and the one after it, so that a seek
    gives the same frames as decoding from the beginning.
    """
    before: Any = None
    graph: Any = None
    waiting: deque[float | None] = deque()

    def finished() -> Iterator[Decoded]:
        with contextlib.suppress(BlockingIOError, EOFError):
            while waiting:
                frame = graph.pull()
                yield Decoded(frame, waiting.popleft(), deinterlaced=True)

    for frame, seconds, _ in frames:
        if graph is None:
            if not frame.interlaced_frame:
                before = frame
                yield Decoded(frame, seconds)
                continue
            graph = _deinterlacer(frame, stream)
            if before is not None:  # the frame before is shown already, but the filter needs it
                graph.push(before)
                waiting.append(None)
        graph.push(frame)
        waiting.append(seconds)
        made = finished()
        if before is not None:
            if next(made, None) is None:
                continue
            before = None
        yield from made
    if graph is not None:
        graph.push(None)
        yield from finished()


def _deinterlacer(frame: Any, stream: Any) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(template=frame, time_base=fraction(stream.time_base))
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph
