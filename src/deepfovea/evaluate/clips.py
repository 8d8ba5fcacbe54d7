"""Clips as ground truth: the first frames of a video, its size and times, read ahead by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import SCALE, InputError
from ..fovea import downsample
from ..motion import fill_motion, find_motion, read_motion
from ..video import VideoReader, list_images


@dataclass(frozen=True, eq=False)
class ReferenceClip:
    """One clip: frames uint8 [T, H, W, 3], H and W multiples of four; times [T] in seconds."""

    name: str
    frames: np.ndarray
    times: np.ndarray
    frames_per_second: float
    height: int  # of the file, before it was cropped; width likewise
    width: int
    frame_count: int | None = None  # of the whole video, where its file says it
    path: Path | None = None  # where it was read from

    def frame(self, t: int) -> Tensor:
        """Frame number ``t``, [3, H, W] in [0, 1]."""
        return torch.from_numpy(self.frames[t]).permute(2, 0, 1).float() / 255.0

    def low(self, jitter: Tensor | None = None) -> Tensor:
        """The clip reduced by four, [T, 3, h, w]: as published, or by shifted grids [T, 2]."""
        offsets = [None] * len(self.frames) if jitter is None else list(jitter)
        return torch.stack(
            [downsample(self.frame(t), SCALE, offset) for t, offset in enumerate(offsets)]
        )

    def motion(self, jitter: Tensor | None = None) -> Tensor:
        """The motion that files beside the images of the clip hold, where the samples are.

        Args:
            jitter: [T, 2] of the sampling grid; None: it rests.

        Returns:
            [T, 2, h, w] in low-resolution pixels, as :class:`deepfovea.generators.Generator` takes
            it; 0 for the first frame, unknown vectors continued from those around.

        Raises:
            InputError: no folder of images, a frame without motion, or files of another size.
        """
        if self.path is None or not self.path.is_dir():
            raise InputError(
                f"{self.name}: received a video, which holds no motion; expected a folder of "
                "images with a file of motion beside each, as docs/renderer.md has it"
            )
        count, height, width = self.frames.shape[:3]
        size = (height // SCALE, width // SCALE)
        offsets = torch.zeros(count, 2) if jitter is None else jitter
        motion = torch.zeros(count, 2, *size)
        for t, file in enumerate(find_motion(list_images(self.path)[:count], self.path)):
            if t and file:
                x, y = offsets[t].tolist()
                motion[t] = fill_motion(read_motion(file, size, jitter=(x, y))[None])[0]
        return motion

    def notes(self, asked: int) -> list[str]:
        """A line for each thing that is not as asked."""
        count, height, width = self.frames.shape[:3]
        notes = []
        if count < asked:
            notes.append(f"{self.name}: has {count} of the {asked} frames asked for; used whole")
        if (height, width) != (self.height, self.width):
            notes.append(
                f"{self.name}: {self.width}x{self.height} pixels are no multiple of {SCALE}; "
                f"cropped to {width}x{height}"
            )
        return notes


@dataclass(frozen=True)
class Unreadable:
    """A clip that cannot be used, and why, in one line."""

    name: str
    reason: str


def read(video: Path, name: str, count: int) -> ReferenceClip | Unreadable:
    """The first ``count`` frames of a video, or all if there are fewer."""
    try:
        with VideoReader(video) as reader:
            frames = list(islice(reader, count))
            height, width = (SCALE * (side // SCALE) for side in (reader.height, reader.width))
            if not (height and width):
                raise InputError(
                    f"received {reader.width}x{reader.height} pixels, less than "
                    f"{SCALE} on a side; expected larger frames"
                )
            images = np.stack([frame.image[:height, :width, :3] for frame in frames])
            times = np.array([frame.pts_seconds for frame in frames])
            rate = float(reader.frame_rate)
            size = (reader.height, reader.width)
            return ReferenceClip(name, images, times, rate, *size, reader.frame_count, video)
    except (InputError, OSError) as error:
        reason = " ".join(str(error).splitlines())
        return Unreadable(name, reason.removeprefix(f"{video}: "))


class _Files(Dataset["ReferenceClip | Unreadable"]):
    def __init__(self, videos: Sequence[tuple[Path, str]], count: int) -> None:
        self.videos, self.count = videos, count

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> ReferenceClip | Unreadable:
        return read(*self.videos[index], self.count)


def read_all(
    videos: Sequence[tuple[Path, str]], count: int, workers: int
) -> Iterator[ReferenceClip | Unreadable]:
    """Every video (path, name) in this order, decoded ahead by so many worker processes."""
    files: Any = _Files(videos, count)
    ahead = 1 if workers else None
    loader: DataLoader[ReferenceClip | Unreadable] = DataLoader(
        files, batch_size=None, num_workers=workers, prefetch_factor=ahead, collate_fn=_as_is
    )
    return iter(loader)


def _as_is(item: Any) -> Any:
    return item
