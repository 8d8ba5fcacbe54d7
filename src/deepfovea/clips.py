"""Folders of videos decoded once, so that training reads at random at no cost."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from .config import InputError
from .video import VideoReader, find_videos


@dataclass(frozen=True)
class Source:
    """One video: its name and its frames, a memory-mapped uint8 array [N, H, W, 3]."""

    name: str
    frames: np.ndarray


def open_sources(root: Path, cache: Path) -> list[Source]:
    """Decode every video once into a memory-mapped array; later calls only open these.

    Random access into a compressed video costs far more than a training step can hide; the
    arrays cost disk (1.2 MB per 854×480 frame) and next to no time.
    """
    videos = find_videos(root)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{cache}: no folder for frames ({error.strerror}); choose another"
        ) from None
    cached = [(video, cache / f"{_fingerprint(video)}.npy") for video in videos]
    missing = [pair for pair in cached if not pair[1].exists()]
    for video, file in track(missing, description="decoding", disable=not missing):
        _decode(video, file)
    return [
        Source(str(video.relative_to(root)), np.load(file, mmap_mode="r")) for video, file in cached
    ]


def _fingerprint(video: Path) -> str:
    # The names and sizes of all files: an edited folder is decoded anew.
    files = sorted(video.iterdir()) if video.is_dir() else [video]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr((str(video.resolve()), stats)).encode()).hexdigest()[:24]


def _decode(video: Path, file: Path) -> None:
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    count = 0
    try:
        with VideoReader(video) as reader, temporary.open("wb") as out:
            # The header is rewritten once the number of frames is known; its length is fixed.
            out.write(b"\0" * 128)
            for frame in reader:
                out.write(np.ascontiguousarray(frame.image[..., :3]).tobytes())
                count += 1
            shape = (count, reader.height, reader.width, 3)
            header = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
            out.seek(0)
            out.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little"))
            out.write(header.ljust(117).encode() + b"\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
