"""One viewer: wish -> frame -> samples -> reconstruction -> message, in a thread of its own.

The loop looks at the newest wish each time it can make a frame, and at most two frames are on
their way to the eye: what is late is dropped, never queued.
"""

from __future__ import annotations

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
from PIL import Image
from torch import Tensor

from ..config import InputError
from ..files_to_files import pad, to_tensor
from ..fovea import downsample
from ..gaze import DisplayGeometry, GazeTrack, read_track
from ..images import to_image
from ..metrics.pixel import psnr
from ..reconstructor import Model, Reconstructor
from .batcher import Delay, Seen
from .player import Player
from .request import VIEWS, Wish, change

IN_FLIGHT = 2
MOST_STEPS = 100  # that were asked for while a frame was made
DECODING_PATIENCE = 0.25  # seconds spent on frames that will not be shown
JPEG_QUALITY = 95  # 4:4:4; 3 ms for 768x1024 where WebP takes 25 and PNG 90

_log = logging.getLogger(__name__)

Send = Callable[[str | bytes], None]
"""Hands a message to the client and returns when it is on its way; ConnectionError if gone."""


class Loaded(NamedTuple):
    """A generator and who runs it, as shown to people ("PyTorch, cpu")."""

    model: Model
    engine: str


@dataclass
class Offer:
    """What all viewers of a server share.

    videos: path and name by identifier; models: names, the first is the default; load: turns a
    name into a model, called once for each.
    """

    videos: Mapping[str, tuple[Path, str]]
    models: Sequence[str]
    load: Callable[[str], Loaded]
    turn: threading.Lock = field(default_factory=threading.Lock)
    _loaded: dict[str, Loaded] = field(default_factory=dict)

    def model(self, name: str) -> Loaded:
        """A model, loaded on first use."""
        with self.turn:
            if name not in self._loaded:
                self._loaded[name] = self.load(name)
            return self._loaded[name]


class Session:
    """What one viewer sees. :meth:`run` is the thread; the other methods may be called from any.

    Args:
        offer: what there is to see.
        send: takes a JSON text or a frame (:func:`pack`).
    """

    def __init__(self, offer: Offer, send: Send) -> None:
        self._offer = offer
        self._send = send
        self._condition = threading.Condition()
        self._closed = False
        self._videos = dict(offer.videos)
        self._wish = Wish(model=offer.models[0], video=next(iter(offer.videos)))
        # Below: the thread's own.
        self._done: Wish | None = None
        self._failed: Wish | None = None
        self._player: Player | None = None
        self._video = ""  # which the player has open
        self._delay: Delay | None = None
        self._model, self._engine = "", ""  # which the delay's reconstructor has
        self._track: GazeTrack | None = None
        self._track_text: str | None = None  # from which the track was read
        self._clock = (0.0, 0.0)  # at this perf_counter the video was at this second
        self._sent = 0

    def change(self, text: str) -> None:
        """Take a client's message; InputError if it cannot be understood."""
        with self._condition:
            self._wish = change(self._wish, text, self._offer.models, self._videos)
            self._condition.notify()

    def show(self, identifier: str, path: Path, name: str) -> None:
        """Show a video that only this viewer may see; it takes the place of an earlier one."""
        with self._condition:
            self._videos = {**self._offer.videos, identifier: (path, name)}
            self._wish = replace(self._wish, video=identifier, track=None)
            self._condition.notify()

    def close(self) -> None:
        """End the thread after the frame it is working on."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def run(self) -> None:
        """Make frames until closed, or until the client is gone."""
        try:
            while (wish := self._next()) is not None:
                try:
                    wish, message = self._frame(wish)
                except InputError as error:
                    self._undo(wish)
                    self._send(json.dumps({"error": " ".join(str(error).splitlines())}))
                else:
                    self._done, self._failed = wish, None
                    if message is not None:
                        self._sent += 1
                        self._send(message)
        except ConnectionError:
            pass
        except Exception:
            _log.exception("a viewer's session ended")
            raise
        finally:
            if self._player:
                self._player.close()

    def _undo(self, wish: Wish) -> None:
        """What could not be done is no longer wanted; the client is told what holds instead."""
        if self._done is None:
            self._failed = wish
            return
        with self._condition:
            now = self._wish
            if _orders(now) == _orders(wish):  # else something newer is wanted already
                self._wish = replace(self._done, gaze=now.gaze, stamp=now.stamp, shown=now.shown)
        holds = {"model": self._done.model, "video": self._done.video}
        self._send(json.dumps({"holds": holds | {"tracked": self._done.track is not None}}))

    def _next(self) -> Wish | None:
        """Wait for the moment of the next frame; None when closed."""
        with self._condition:
            while not self._closed:
                wait = self._wait_seconds(self._wish)
                if wait == 0.0:
                    return self._wish
                self._condition.wait(wait)
        return None

    def _wait_seconds(self, wish: Wish) -> float | None:
        """Until the next frame is due; None: not before something changes."""
        done, player = self._done, self._player
        if self._sent - min(wish.shown, self._sent) >= IN_FLIGHT:
            return None
        if self._failed is not None and _orders(wish) == _orders(self._failed):
            return None
        if done is None or player is None or _orders(wish) != _orders(done):
            return 0.0
        if not wish.playing:
            late = self._delay is not None and self._delay.late
            return 0.0 if late or (wish.gaze != done.gaze and wish.track is None) else None
        if wish.speed == 0.0:
            return 0.0
        frame = player.frame.pts_seconds
        due = player.ahead.pts_seconds if player.ahead else frame + player.interval
        return max(0.0, (due - self._video_now(wish)) / wish.speed)

    def _video_now(self, wish: Wish) -> float:
        wall, seconds = self._clock
        return seconds + wish.speed * (time.perf_counter() - wall)

    def _frame(self, wish: Wish) -> tuple[Wish, bytes | None]:
        """The wish as it was done, and a frame; None where the network waits for more of them."""
        player, delay = self._prepare(wish)
        started = time.perf_counter()
        scale = delay.reconstructor.model.scale
        image = to_tensor(player.frame.image)
        low = downsample(pad(image, scale), scale)
        with self._offer.turn:
            wish = self._with_newest_gaze(wish)
            made = delay(self._look(wish, player, image, low, scale))
        if made is None:
            return wish, None
        seen, result, network = made
        height, width = seen.image.shape[-2:]
        frame = result.frame[..., :height, :width].cpu()
        pictures = {"reconstruction": frame, "samples": result.samples, "original": seen.image}
        encoded = [(view, *_encode(view, pictures[view])) for view in VIEWS if view in wish.views]
        inner, outer = _radii(seen.orders, scale)
        header = {
            "number": self._sent + 1,
            "scale": scale,
            "frame": seen.number,
            "seconds": seen.pts_seconds,
            "gaze": seen.gaze,
            "stamp": seen.stamp,
            "inner": inner / width,
            "outer": outer / width,
            "sampled": float(result.mask.mean()),
            "psnr": float(psnr(frame, seen.image)),
            "model": wish.model,
            "engine": self._engine,
            "network_ms": 1e3 * network,
            "server_ms": 1e3 * (time.perf_counter() - started),
            "pictures": [[view, kind, len(data)] for view, kind, data in encoded],
        }
        return wish, pack(header, [data for _, _, data in encoded])

    def _with_newest_gaze(self, wish: Wish) -> Wish:
        """Decoding, converting and waiting for the turn took their time, and the eye moved on."""
        with self._condition:
            return replace(wish, gaze=self._wish.gaze, stamp=self._wish.stamp)

    def _look(self, wish: Wish, player: Player, image: Tensor, low: Tensor, scale: int) -> Seen:
        """The player's frame, [3,H,W] and reduced, and where the wish or the track looks in it."""
        height, width = image.shape[-2:]
        gaze, seconds = wish.gaze, player.frame.pts_seconds
        if self._track is not None:
            x, y = self._track.at(self._track.frame_times([player.number], [seconds]))[0]
            gaze = (float(x), float(y))
        gaze_px = gaze[0] * width / scale - 0.5, gaze[1] * height / scale - 0.5
        stamp = None if self._track is not None else wish.stamp
        return Seen(image, low, gaze_px, gaze, stamp, player.number, seconds, _orders(wish))

    def _prepare(self, wish: Wish) -> tuple[Player, Delay]:
        """Bring position, state and clock to where the wish wants them."""
        done, player, delay = self._done, self._player, self._delay
        cut = done is None or wish.resets != done.resets
        opened = opened_or_loaded = player is None or wish.video != self._video
        if player is None or opened:
            if wish.video not in self._videos:  # another was dropped meanwhile
                raise InputError("a video: received one that is gone; drop it again")
            player = Player(*self._videos[wish.video])
            if self._player:
                self._player.close()
            self._player, self._video = player, wish.video
            self._send(json.dumps({"video": _describe(wish.video, player)}))
        if delay is None or wish.model != self._model:
            loaded = self._offer.model(wish.model)
            self._model, self._engine = wish.model, loaded.engine
            self._delay = delay = Delay(Reconstructor(loaded.model))
            opened_or_loaded = True
        if opened or wish.track != self._track_text:
            self._track = self._track_text = None
            self._track = _parse_track(wish.track, player)
            self._track_text = wish.track
        if done is None or wish.playing != done.playing or wish.speed != done.speed:
            self._anchor()
        if done is not None and wish.seeks != done.seeks and not opened:
            player.seek(wish.seek_seconds, lambda: not self._closed and self._seeks(wish))
            self._anchor()
            cut = True
        elif done is not None and wish.steps != done.steps and not opened:
            for _ in range(min(wish.steps - done.steps, MOST_STEPS)):
                if not player.advance():
                    player.rewind()
                    cut = True
        elif wish.playing and not opened:
            cut |= self._advance(wish, player)
        if opened_or_loaded:
            _warm_up(player, delay.reconstructor, self._offer.turn)
            self._anchor()  # the video does not run on meanwhile
        if cut or opened_or_loaded:
            delay.reset()
        reconstructor = delay.reconstructor
        reconstructor.density, reconstructor.blue_noise = wish.density, wish.blue_noise
        reconstructor.geometry = _geometry(wish, player)
        return player, delay

    def _advance(self, wish: Wish, player: Player) -> bool:
        """Play on; True if the video began anew."""
        now = self._video_now(wish)
        if wish.speed == 0.0 and player.advance():
            return False
        if player.ahead is None and (
            wish.speed == 0.0 or now >= player.frame.pts_seconds + player.interval
        ):
            player.rewind()
            self._anchor()
            return True
        player.catch_up(now, DECODING_PATIENCE)
        if player.ahead is not None and player.ahead.pts_seconds <= now:
            self._anchor()
        return False

    def _anchor(self) -> None:
        assert self._player
        self._clock = (time.perf_counter(), self._player.frame.pts_seconds)

    def _seeks(self, wish: Wish) -> bool:
        return self._wish.seeks == wish.seeks and self._wish.video == wish.video


def _warm_up(player: Player, reconstructor: Reconstructor, turn: threading.Lock) -> None:
    """Let an engine compile, which it does in its second step, before anything is shown."""
    if reconstructor.model.frames_per_step == 1:
        scale = reconstructor.model.scale
        low = downsample(pad(to_tensor(player.frame.image), scale), scale)
        with turn:
            for _ in range(2):
                next(reconstructor.stream([(low, (0.0, 0.0))]))


def pack(header: dict[str, Any], pictures: Sequence[bytes]) -> bytes:
    """One frame as one message: the header's length (uint32, little endian), JSON, pictures."""
    text = json.dumps(header).encode()
    return b"".join([struct.pack("<I", len(text)), text, *pictures])


def _orders(wish: Wish) -> Wish:
    """The wish without what changes from frame to frame."""
    return replace(wish, gaze=(0.0, 0.0), stamp=0.0, shown=0)


def _encode(view: str, picture: Tensor) -> tuple[str, bytes]:
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(to_image(picture)))
    if view == "samples":  # single pixels, which JPEG would smear
        image.save(file, "PNG", compress_level=1)
        return "image/png", file.getvalue()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "image/jpeg", file.getvalue()


def _geometry(wish: Wish, player: Player) -> DisplayGeometry:
    """The display on which the video has these pixels per degree."""
    width, height = player.reader.width, player.reader.height
    distance_px = wish.pixels_per_degree / math.radians(1)
    fov_deg = 2 * math.degrees(math.atan(width / 2 / distance_px))
    return DisplayGeometry(fov_deg, width, height)


def _radii(wish: Wish, scale: int) -> tuple[float, float]:
    """Where the fovea and the transition end, pixels of the video; 0 if all is equally dense."""
    density = wish.density
    if density.center == density.periphery:
        return 0.0, 0.0
    per_unit = wish.pixels_per_degree if density.unit == "deg" else scale
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
    """A track as ``--gaze`` reads it, through a file whose name the client does not choose."""
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
