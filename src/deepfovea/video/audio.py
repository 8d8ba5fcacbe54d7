"""Sound: copies or converts an audio track of one file into another, in sync with the frames."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.stream import Disposition

from .clock import demux
from .container import EDIT_LISTS, IMAGE_SUFFIXES, open_media, refuse, video_stream
from .reader import VideoReader

_COPIED_SOUND = {
    ".mp4": "aac mp3 ac3 eac3 alac opus flac",
    ".m4v": "aac ac3 alac",
    ".mov": "aac mp3 ac3 eac3 alac pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_f32le",
    ".mkv": "aac mp3 ac3 eac3 alac opus flac vorbis dca truehd pcm_s16le pcm_s24le pcm_f32le",
    ".avi": "",  # sound in AVI cannot begin late or pause, so it is always converted
    ".webm": "opus vorbis",
}

SOUND_RATE, SOUND_BITS_PER_SECOND = 48000, 192_000
"""Samples and bits per second of converted sound. Our choice; Opus has no rate of 44100."""
PRE_ROLL_SECONDS, OPUS_PRE_ROLL_SECONDS = 0.1, 0.02
"""Seconds of sound before the first frame that are kept, as decoders need them to start: several
frames of AAC, which have 1024 samples each, and one frame of Opus, which has 20 ms by default
(opusenc). Our choice."""

_log = logging.getLogger(__name__)


class Sound(NamedTuple):
    """An audio track: its file, the time in the file of the first frame, and its number from 0."""

    path: Path
    start_seconds: float
    track: int


def find_sound(path: Path, track: int | None = None) -> Sound | None:
    """Find audio track number ``track``, from 1, or the default track; None without sound.

    The default is the first track marked as default, or the first track. Raises InputError if
    there is no such track.
    """
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        if track is not None:
            refuse(path, f"audio track {track} of images", "a video with sound")
        return None
    with open_media(path) as container:
        tracks = container.streams.audio
        if track is not None and not 1 <= track <= len(tracks):
            refuse(path, f"audio track {track} of {len(tracks)}", "a track that it has, from 1 on")
        if not tracks:
            return None
        marked = (n for n, stream in enumerate(tracks) if stream.disposition & Disposition.default)
        number = next(marked, 0) if track is None else track - 1
        if track is None and len(tracks) > 1:
            _log.warning(
                "%s: has %d audio tracks; number %d, the default, is taken; --audio-track takes "
                "another",
                *(path, len(tracks), number + 1),
            )
        if video_stream(container) is None:
            return Sound(path, (container.start_time or 0) / av.time_base, number)
    return Sound(path, VideoReader(path).start_seconds, number)


def sound_packets(sound: Sound, output: Any, suffix: str) -> Iterator[Any]:
    """Packets of an audio track for a new stream of ``output``, with times as those of the frames.

    The stream is added at once, as ``output`` must have it before its first packet.
    """
    path, start, track = sound
    container = open_media(path)
    source = container.streams.audio[track]
    name = source.codec_context.name.removesuffix("float") if source.codec_context else ""
    copied = name in _COPIED_SOUND[suffix].split()
    try:
        if copied:
            target = output.add_stream_from_template(source)
        else:
            name = {".webm": "libopus", ".avi": "libmp3lame"}.get(suffix, "aac")
            layout = "mono" if source.codec_context.channels == 1 else "stereo"
            target = output.add_stream(
                name, rate=SOUND_RATE, layout=layout, bit_rate=SOUND_BITS_PER_SECOND
            )
    except (ValueError, AttributeError, av.FFmpegError) as error:
        _log.warning("%s: the sound is left out (%s)", path, error)
        return iter(())
    # Of the sound before the first frame only what a decoder needs to start is kept, and only if
    # edit lists or Opus hide it; otherwise it would shift the frames.
    earliest = 0.0
    if suffix in EDIT_LISTS:
        earliest = -PRE_ROLL_SECONDS
    elif "opus" in name:
        earliest = -OPUS_PRE_ROLL_SECONDS

    def packets() -> Iterator[Any]:
        graph = None
        for packet in demux(container, source):
            for piece in [packet] if copied else packet.decode():
                if piece.pts is None:
                    continue
                piece.pts -= round(start / piece.time_base)
                if copied:
                    yield piece
                else:
                    graph = graph or _even_sound(piece)
                    yield from encoded(graph, piece)
        if graph is not None:
            yield from encoded(graph, None)
            yield from target.encode(None)

    def encoded(graph: Any, frame: Any) -> Iterator[Any]:
        graph.push(frame)
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                yield from target.encode(graph.pull())

    def accepted() -> Iterator[Any]:
        last = -math.inf
        try:
            for packet in packets():
                if packet.pts > last and packet.pts * packet.time_base >= earliest:
                    packet.dts, packet.stream, last = packet.pts, target, packet.pts
                    yield packet
        except (ValueError, av.FFmpegError) as error:
            _log.warning("%s: the sound ends early (%s)", path, error)

    return accepted()


def _even_sound(first: Any) -> Any:
    """A filter that resamples frames like ``first`` to 48 kHz from 0 s on and fills gaps with
    silence."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=first.sample_rate,
        format=first.format.name,
        layout=first.layout.name,
        time_base=first.time_base,
    )
    resampler = graph.add("aresample", "48000:async=1:first_pts=0")
    graph.link_nodes(source, resampler, graph.add("abuffersink")).configure()
    return graph
