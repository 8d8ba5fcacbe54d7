"""One viewer: request -> frame -> samples -> reconstruction -> message, in a thread of its own.

Before each frame, the loop reads the newest request. At most two frames are under way to the page
and not yet painted. Frames of the video that are late are skipped, never queued.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config import BEST_SAMPLING, InputError, Sampling
from ..files_to_files import pad, to_tensor
from ..fill import pull_push
from ..fovea import downsample, jitter_sequence
from ..gaze import DisplayGeometry, GazeTrack, read_track
from ..gaze.live import GazeEstimate, LiveGaze
from ..gaze.track import HOLD_SECONDS
from ..images import to_image
from ..metrics.pixel import psnr
from ..reconstructor import Input, Reconstructor
from ..resample import pixel_grid, sampling_grid, upsample_bicubic
from ..runtime.engine import Engine
from .batcher import FrameBatcher, PendingFrame
from .live import LiveViewing, describe
from .methods import OtherMethods
from .player import Player
from .request import MODEL_PREFIX, ViewerRequest, apply_message
from .thumbnail import thumbnail

# All are our choice.
MAX_IN_FLIGHT = 2  # frames that are sent and not yet painted
MAX_STEPS_AT_ONCE = 100  # steps of a video that were requested while one frame was made
LIVE_POLL_SECONDS = 0.002  # while paused; a new sample waits half of it on average
FILL_EVERY = 8  # frames between two measurements of pull-push, which takes time
ERROR_GAIN = 4.0  # factor of the errors in their map
CATCH_UP_SECONDS = 0.25  # longest time of decoding frames that will not be shown
JPEG_QUALITY = 95  # with 4:4:4; 3 ms for 768x1024, where WebP takes 25 and PNG 90

_log = logging.getLogger(__name__)

Send = Callable[[str | bytes], None]
"""Sends a message to the client and waits until it is sent; ConnectionError if the client left."""


class LoadedModel(NamedTuple):
    """A generator with its engine, and the text that names engine and device on the page."""

    model: Engine
    engine: str


@dataclass
class Catalog:
    """The videos and models that all viewers of a server share.

    Args:
        videos: path and displayed name, by identifier.
        models: names; the first is the default.
        load: loads the model of a name; called once for each.
        sampling: the sampling with which a page starts.
        inference_lock: held while a network runs, so that only one runs at a time.
        live: the eye tracker that all viewers follow, None without one.
    """

    videos: Mapping[str, tuple[Path, str]]
    models: Sequence[str]
    load: Callable[[str], LoadedModel]
    sampling: Sampling = BEST_SAMPLING
    inference_lock: threading.Lock = field(default_factory=threading.Lock)
    live: LiveViewing | None = None
    _loaded: dict[str, LoadedModel] = field(default_factory=dict)
    _thumbnails: dict[str, bytes] = field(default_factory=dict, init=False)
    _thumbnail_lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def model(self, name: str) -> LoadedModel:
        """A model, loaded on first use."""
        with self.inference_lock:
            if name not in self._loaded:
                self._loaded[name] = self.load(name)
            return self._loaded[name]

    def thumbnail(self, identifier: str) -> bytes:
        """A video's small picture, a JPEG, drawn on first use.

        Raises:
            InputError: the video cannot be read.
            KeyError: there is no video of this identifier.
        """
        path, name = self.videos[identifier]
        with self._thumbnail_lock:  # one at a time, as each decodes
            if identifier not in self._thumbnails:
                self._thumbnails[identifier] = thumbnail(path, name)
            return self._thumbnails[identifier]


class Session:
    """One viewer. :meth:`run` is its thread; the other methods may be called from any thread.

    Args:
        catalog: videos and models.
        send: called with a JSON text or with a frame (:func:`pack`).
    """

    def __init__(self, catalog: Catalog, send: Send) -> None:
        self._catalog = catalog
        self._send = send
        self._condition = threading.Condition()
        self._closed = False
        self._videos = dict(catalog.videos)
        self._request = ViewerRequest(
            model=catalog.models[0],
            video=next(iter(catalog.videos)),
            blue_noise=catalog.sampling.noise == "blue",
            jitter=catalog.sampling.jitter,
        )
        # Only the thread uses the following.
        self._applied: ViewerRequest | None = None
        self._failed: ViewerRequest | None = None
        self._player: Player | None = None
        self._video = ""  # the identifier of the player's video
        self._batcher: FrameBatcher | None = None
        self._model, self._engine = "", ""  # those of the batcher's reconstructor
        self._methods = OtherMethods(lambda name: catalog.model(name).model)
        self._track: GazeTrack | None = None
        self._track_text: str | None = None  # the text from which the track was read
        self._clock = (0.0, 0.0)  # a time of perf_counter, and the video's time then, seconds
        self._sent_count = 0
        self._sent: PendingFrame | None = None  # the last frame sent

    def apply_message(self, text: str) -> None:
        """Change the request; InputError if the message is invalid."""
        with self._condition:
            self._request = apply_message(self._request, text, self._catalog.models, self._videos)
            self._condition.notify()

    def add_video(self, identifier: str, path: Path, name: str) -> None:
        """Show a video that only this viewer has; it replaces one added earlier."""
        with self._condition:
            self._videos = {**self._catalog.videos, identifier: (path, name)}
            self._request = replace(
                self._request,
                video=identifier,
                track=None,
                seek_seconds=0.0,
                steps_before_seek=self._request.steps,
            )
            self._condition.notify()

    def close(self) -> None:
        """End the thread after the frame it is working on."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def run(self) -> None:
        """Make and send frames until the session is closed or the client has left."""
        try:
            while (request := self._next_request()) is not None:
                try:
                    request, message = self._render(request)
                except InputError as error:
                    self._revert(request)
                    self._send(json.dumps({"error": " ".join(str(error).splitlines())}))
                else:
                    self._applied, self._failed = request, None
                    if message is not None:
                        self._sent_count += 1
                        self._send(message)
                        self._record()
        except ConnectionError:
            pass
        except Exception:
            _log.exception("a viewer's session ended")
            with contextlib.suppress(ConnectionError):
                self._send(json.dumps({"error": "the server failed; its terminal says why"}))
            raise
        finally:
            if self._player:
                self._player.close()

    def _revert(self, request: ViewerRequest) -> None:
        """Go back to the last request that worked, and tell the client which that is."""
        if self._applied is None:
            self._failed = request
            return
        with self._condition:
            newest = self._request
            if newest.settings() == request.settings():  # otherwise a newer one can be tried
                self._request = replace(
                    self._applied,
                    gaze=newest.gaze,
                    timestamp=newest.timestamp,
                    acknowledged=newest.acknowledged,
                )
        applied = self._applied
        current = {"model": applied.model, "video": applied.video, "views": [*applied.views]}
        self._send(json.dumps({"current": current | {"tracked": applied.track is not None}}))

    def _next_request(self) -> ViewerRequest | None:
        """Wait until the next frame is due, and return the newest request; None when closed."""
        with self._condition:
            while not self._closed:
                wait = self._wait_seconds(self._request)
                if wait == 0.0:
                    return self._request
                self._condition.wait(wait)
        return None

    def _record(self) -> None:
        """Record the gaze of the frame just sent, for ``--record-gaze``."""
        sent, live = self._sent, self._catalog.live
        if sent is not None and live is not None:
            live.record(self._video, sent.pts_seconds, sent.gaze, sent.look)

    def _followed(self, request: ViewerRequest) -> LiveGaze | None:
        """The tracker that the request follows; None if it follows a track or the pointer."""
        live = self._catalog.live
        if live is None or not request.live or request.track is not None:
            return None
        return live.gaze

    def _wait_seconds(self, request: ViewerRequest) -> float | None:
        """Seconds until the next frame is due; None if none is due until something changes."""
        applied, player = self._applied, self._player
        if self._sent_count - min(request.acknowledged, self._sent_count) >= MAX_IN_FLIGHT:
            return None
        if self._failed is not None and request.settings() == self._failed.settings():
            return None
        if applied is None or player is None or request.settings() != applied.settings():
            return 0.0
        if not request.playing:
            late = self._batcher is not None and self._batcher.is_late
            gaze = self._followed(request)
            if gaze is not None:
                look = self._sent.look if self._sent else None
                return 0.0 if late or _has_moved(gaze, look) else LIVE_POLL_SECONDS
            return 0.0 if late or (request.gaze != applied.gaze and request.track is None) else None
        if request.speed == 0.0:
            return 0.0
        frame = player.frame.pts_seconds
        due = player.next_frame.pts_seconds if player.next_frame else frame + player.interval
        return max(0.0, (due - self._video_seconds(request)) / request.speed)

    def _video_seconds(self, request: ViewerRequest) -> float:
        wall, seconds = self._clock
        return seconds + request.speed * (time.perf_counter() - wall)

    def _render(self, request: ViewerRequest) -> tuple[ViewerRequest, bytes | None]:
        """Make a frame.

        Returns:
            The request as it was applied, and the message with the frame; None while the network
            waits for more frames.
        """
        player, batcher = self._prepare(request)
        started = time.perf_counter()
        scale = batcher.reconstructor.engine.scale
        image = to_tensor(player.frame.image)
        offset = _grid_offset(request, batcher.reconstructor)
        low = downsample(pad(image, scale), scale, offset)
        with self._catalog.inference_lock:
            request = self._with_newest_gaze(request)
            pending = self._pending_frame(request, player, image, low, scale)
            jitter = None if offset is None else (float(offset[0]), float(offset[1]))
            finished = batcher(pending._replace(jitter=jitter))
            if finished is None:
                return request, None
            others = self._methods.frames(finished.pending, finished.result.mask)
        pending, result, network = finished
        self._sent = pending
        height, width = pending.image.shape[-2:]
        frame = result.frame[..., :height, :width].cpu()
        pictures = {"reconstruction": frame, "samples": result.samples, "original": pending.image}
        pictures |= {MODEL_PREFIX + request.model: frame, **others}
        if "filled" in request.views or self._sent_count % FILL_EVERY == 0:
            filled = _fill(result.samples, result.mask, pending.jitter)[..., :height, :width]
            pictures["filled"] = others["filled"] = filled
        if "error" in request.views:
            pictures["error"] = (ERROR_GAIN * (frame - pending.image).abs()).clamp(max=1.0)
        encoded = [
            (view, *_encode(view, picture))
            for view, picture in pictures.items()
            if view in request.views
        ]
        inner, outer = _ring_radii(pending.settings, scale)
        header = {
            "number": self._sent_count + 1,
            "scale": scale,
            "size": [width, height],
            "frame": pending.number,
            "seconds": pending.pts_seconds,
            "gaze": pending.gaze,
            "timestamp": pending.timestamp,
            "live": pending.look and describe(pending.look),
            "inner": inner / width,
            "outer": outer / width,
            "sampled": float(result.mask.mean()),
            "psnr": float(psnr(frame, pending.image)),
            "psnr_of": {view: float(psnr(made, pending.image)) for view, made in others.items()},
            "model": request.model,
            "engine": self._engine,
            "jitter": pending.jitter,
            "network_ms": 1e3 * network,
            "server_ms": 1e3 * (time.perf_counter() - started),
            "pictures": [[view, kind, len(data)] for view, kind, data in encoded],
        }
        return request, pack(header, [data for _, _, data in encoded])

    def _with_newest_gaze(self, request: ViewerRequest) -> ViewerRequest:
        """Take over the newest gaze, as it may have moved during decoding and while waiting."""
        with self._condition:
            return replace(request, gaze=self._request.gaze, timestamp=self._request.timestamp)

    def _pending_frame(
        self, request: ViewerRequest, player: Player, image: Tensor, low: Tensor, scale: int
    ) -> PendingFrame:
        """The player's frame, [3,H,W] and downsampled, with the gaze of the request or track."""
        height, width = image.shape[-2:]
        gaze, seconds, look = request.gaze, player.frame.pts_seconds, None
        if self._track is not None:
            if self._track.frame_rate is not None:  # the track counts frames
                player.counted_frame_number()
            x, y = self._track.at(self._track.frame_times([player.frame_number], [seconds]))[0]
            gaze = (float(x), float(y))
        elif (live := self._followed(request)) is not None:
            look = live.look()  # as late as possible before sampling
            gaze = look.position
        gaze_px = gaze[0] * width / scale - 0.5, gaze[1] * height / scale - 0.5
        pointed = self._track is None and look is None
        timestamp = request.timestamp if pointed else None
        number, settings = player.frame_number, request.settings()
        return PendingFrame(
            image, low, gaze_px, gaze, timestamp, number, seconds, settings, look=look
        )

    def _prepare(self, request: ViewerRequest) -> tuple[Player, FrameBatcher]:
        """Set the position, the state and the clock as the request asks for."""
        applied = self._applied
        player, opened = self._open(request)
        restart = applied is None or request.resets != applied.resets
        if opened or request.track != self._track_text:
            self._track = self._track_text = None
            self._track = _parse_track(request.track, player)
            self._track_text = request.track
        if applied is None or request.playing != applied.playing or request.speed != applied.speed:
            self._restart_clock()
        sought = opened or (applied is not None and request.seeks != applied.seeks)
        if sought:
            player.seek(
                request.seek_seconds, lambda: not self._closed and self._is_newest_seek(request)
            )
            self._restart_clock()
            restart = True
        # Only steps after the last seek count, even if both came while one frame was made.
        stepped = max(applied.steps if applied else 0, request.steps_before_seek)
        steps = min(request.steps - stepped, MAX_STEPS_AT_ONCE)
        for _ in range(steps):
            if not player.advance():
                player.rewind()
        if request.playing and not sought and not steps:
            self._advance(request, player)
        batcher = self._load(request, player)
        scale = batcher.reconstructor.engine.scale
        if self._methods.open(request.views, request.model, scale) or restart:
            batcher.reset()
            self._methods.reset()
        reconstructor = batcher.reconstructor
        reconstructor.density, reconstructor.blue_noise = request.density, request.blue_noise
        reconstructor.geometry = _display_geometry(request, player)
        return player, batcher

    def _open(self, request: ViewerRequest) -> tuple[Player, bool]:
        """The player of the requested video, and whether it was opened just now."""
        if self._player is not None and request.video == self._video:
            return self._player, False
        if request.video not in self._videos:  # a newer upload has replaced it
            raise InputError("a video: received one that is gone; drop it again")
        player = Player(*self._videos[request.video])
        if self._player:
            self._player.close()
        self._player, self._video = player, request.video
        self._batcher = None  # its state and its waiting frames belong to the other video
        self._send(json.dumps({"video": _describe(request.video, player)}))
        return player, True

    def _load(self, request: ViewerRequest, player: Player) -> FrameBatcher:
        """A batcher with the requested model; a new one, warmed up, for each model and video."""
        if self._batcher is None or request.model != self._model:
            loaded = self._catalog.model(request.model)
            batcher = FrameBatcher(Reconstructor(loaded.model))
            lock = self._catalog.inference_lock
            _warm_up(request, player, batcher.reconstructor, lock)
            batcher.reset()
            self._methods.reset()
            self._batcher, self._model, self._engine = batcher, request.model, loaded.engine
            self._restart_clock()  # as the video does not play during the warm-up
        return self._batcher

    def _advance(self, request: ViewerRequest, player: Player) -> None:
        """Go on playing, from the beginning after the end; the network's state continues."""
        now = self._video_seconds(request)
        if request.speed == 0.0 and player.advance():
            return
        if player.next_frame is None and (
            request.speed == 0.0 or now >= player.frame.pts_seconds + player.interval
        ):
            player.rewind()
            self._restart_clock()
            return
        player.catch_up(now, CATCH_UP_SECONDS)
        if player.next_frame is not None and player.next_frame.pts_seconds <= now:
            self._restart_clock()

    def _restart_clock(self) -> None:
        assert self._player
        self._clock = (time.perf_counter(), self._player.frame.pts_seconds)

    def _is_newest_seek(self, request: ViewerRequest) -> bool:
        return self._request.seeks == request.seeks and self._request.video == request.video


def _has_moved(gaze: LiveGaze, look: GazeEstimate | None) -> bool:
    """Whether a paused frame has to be made again, as the gaze is another one."""
    newest = gaze.newest
    if newest is None:
        return look is None
    if look is None or look.sample is not newest:
        return True
    age = time.perf_counter() - newest.own_seconds
    return age > HOLD_SECONDS and gaze.look().position != look.position


def _fill(samples: Tensor, mask: Tensor, jitter: tuple[float, float] | None) -> Tensor:
    """Fill holes without a network, then upsample by four (bicubic): [3,h,w], [1,h,w] to [3,4h,4w].

    ``jitter``: the offset of the sampling grid, low-resolution pixels.
    """
    low = pull_push(samples, mask)[None].cpu()
    if jitter is None:
        return upsample_bicubic(low)[0]
    height, width = low.shape[-2:]
    offset = torch.tensor(jitter)[:, None, None]
    places = (pixel_grid(low, 4 * height, 4 * width) + 0.5) / 4 - 0.5 - offset
    grid = sampling_grid(places, height, width)
    return F.grid_sample(
        low, grid, mode="bicubic", padding_mode="border", align_corners=False
    ).clamp(0.0, 1.0)[0]


def _grid_offset(request: ViewerRequest, reconstructor: Reconstructor) -> Tensor | None:
    """The jitter [2] of the next frame; None if the generator takes none."""
    if not reconstructor.engine.network.takes_jitter:
        return None
    offsets = jitter_sequence(request.jitter, reconstructor.frames_seen, 1)
    return None if offsets is None else offsets[0]


def _warm_up(
    request: ViewerRequest,
    player: Player,
    reconstructor: Reconstructor,
    inference_lock: threading.Lock,
) -> None:
    """Run two steps before anything is shown, as engines compile in the second step."""
    if reconstructor.engine.frames_per_step == 1:
        scale = reconstructor.engine.scale
        low = downsample(pad(to_tensor(player.frame.image), scale), scale)
        has_jitter = _grid_offset(request, reconstructor) is not None
        frame = Input(low, (0.0, 0.0), jitter=(0.0, 0.0) if has_jitter else None)
        with inference_lock:
            for _ in range(2):
                next(reconstructor.stream([frame]))


def pack(header: dict[str, Any], pictures: Sequence[bytes]) -> bytes:
    """Pack a frame into a message: length of the header (uint32, little endian), JSON, pictures."""
    text = json.dumps(header).encode()
    return b"".join([struct.pack("<I", len(text)), text, *pictures])


def _encode(view: str, picture: Tensor) -> tuple[str, bytes]:
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(to_image(picture)))
    if view == "samples":  # single pixels, which JPEG would blur
        image.save(file, "PNG", compress_level=1)
        return "image/png", file.getvalue()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "image/jpeg", file.getvalue()


def _display_geometry(request: ViewerRequest, player: Player) -> DisplayGeometry:
    """A display on which the video has the requested pixels per degree."""
    width, height = player.reader.width, player.reader.height
    distance_px = request.pixels_per_degree / math.radians(1)
    fov_deg = 2 * math.degrees(math.atan(width / 2 / distance_px))
    return DisplayGeometry(fov_deg, width, height)


def _ring_radii(request: ViewerRequest, scale: int) -> tuple[float, float]:
    """Radii of the fovea and of the blend, pixels of the video; 0 if the density is uniform."""
    density = request.density
    if density.center == density.periphery:
        return 0.0, 0.0
    per_unit = request.pixels_per_degree if density.unit == "deg" else scale
    return density.inner * per_unit, density.outer * per_unit


def _describe(identifier: str, player: Player) -> dict[str, Any]:
    reader = player.reader
    return {
        "id": identifier,
        "name": player.name,
        "width": reader.width,
        "height": reader.height,
        "frame_rate": float(reader.frame_rate),
        "frames": reader.frame_count,
        "seconds": player.duration,
    }


def _parse_track(text: str | None, player: Player) -> GazeTrack | None:
    """Read a track as ``--gaze`` does, by way of a file whose name the client cannot choose."""
    if text is None:
        return None
    reader = player.reader
    with tempfile.TemporaryDirectory(prefix="deepfovea-track-") as folder:
        path = Path(folder, "track.csv")
        path.write_text(text, encoding="utf-8", newline="")
        try:
            return read_track(
                path,
                frame_size=(reader.height, reader.width),
                frame_rate=float(reader.frame_rate),
                frame_count=reader.frame_count,
            )
        except InputError as error:
            raise InputError(str(error).replace(str(path), "gaze track")) from None
