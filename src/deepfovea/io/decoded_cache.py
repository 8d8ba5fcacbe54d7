"""Videos decoded once into arrays, so that training can read any frame at almost no cost."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..config import InputError
from ..wording import pluralize
from .atomic import atomic_write

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One video: its name and its frames, a memory-mapped uint8 array [N, H, W, 3]."""

    name: str
    frames: np.ndarray


def open_sources(root: Path, cache: Path, *, skip_unreadable: bool = False) -> list[Source]:
    """Decode every video once into a memory-mapped array; later calls only open the arrays.

    Random access into a compressed video takes too long for training. The arrays take disk space
    (1.2 MB per 854×480 frame) and hardly any time.

    Args:
        root: any folder that holds videos and folders of images, at any depth; for a data set
            with splits see :func:`deepfovea.reds.splits.split_folder`.
        cache: the folder of the arrays; it is made if it is missing.
        skip_unreadable: leave out frames, or whole videos, that cannot be read, and images of
            another size than the first of their folder; a warning names each.

    Raises:
        InputError: there are no videos; the cache cannot be written; or, without
            ``skip_unreadable``, a frame cannot be read or has another size.
    """
    from rich.progress import track

    from ..video import find_videos

    videos = find_videos(root)

    def cached(name: str) -> Path | None:
        # Incomplete videos have another name, so that they are never used as complete ones.
        kinds = (".npy", "-part.npy") if skip_unreadable else (".npy",)
        return next((f for kind in kinds if (f := cache / f"{name}{kind}").exists()), None)

    try:
        cache.mkdir(parents=True, exist_ok=True)
        names = {video: _fingerprint(video) for video in videos}
        missing = [video for video in videos if cached(names[video]) is None]
        for video in track(missing, description="decoding", disable=not missing):
            try:
                _decode(video, cache / f"{names[video]}.npy")
            except InputError as error:
                if not skip_unreadable:
                    raise
                try:
                    _decode(video, cache / f"{names[video]}-part.npy", skip_unreadable=True)
                except InputError:
                    _log.warning("%s; the video is left out", error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{cache}: no folder for frames ({reason}); choose another") from None
    sources = [
        Source(str(video.relative_to(root)), np.load(file, mmap_mode="r"))
        for video in videos
        if (file := cached(names[video]))
    ]
    if not sources:
        raise InputError(
            f"{root}: none of {pluralize(len(videos), 'video')} can be read; expected one at least"
        )
    return sources


def _fingerprint(video: Path) -> str:
    # From names, sizes and times of all files, so that an edited video is decoded again.
    files = sorted(video.iterdir()) if video.is_dir() else [video]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
    return hashlib.sha256(repr((os.path.realpath(video), stats)).encode()).hexdigest()[:24]


def _decode(video: Path, file: Path, skip_unreadable: bool = False) -> None:
    from ..video import VideoReader

    count = 0
    with VideoReader(video, skip_unreadable=skip_unreadable) as reader, atomic_write(file) as out:

        def write_header() -> None:
            # The header has the same length for every count, as NumPy leaves room for growth.
            shape = (count, reader.height, reader.width, 3)
            described = {"descr": "|u1", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(out, described)

        write_header()
        for frame in reader:
            out.write(np.ascontiguousarray(frame.image[..., :3]).tobytes())
            count += 1
        out.seek(0)
        write_header()
