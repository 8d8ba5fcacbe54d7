"""The clips of an evaluation: the first frames of a video, which workers read ahead."""

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
    """The true frames of a clip, uint8 [T, H, W, 3], H and W multiples of four; times [T] in
    seconds."""

    name: str
    frames: np.ndarray
    times: np.ndarray
    frames_per_second: float
    height: int  # height of the video before cropping to a multiple of four
    width: int  # likewise
    frame_count: int | None = None  # of the whole video, if its file states it
    path: Path | None = None  # the file or folder

    def frame(self, t: int) -> Tensor:
        """Frame number ``t``, [3, H, W] in [0, 1]."""
        return torch.from_numpy(self.frames[t]).permute(2, 0, 1).float() / 255.0

    def low(self, jitter: Tensor | None = None) -> Tensor:
        """The clip at the low resolution, [T, 3, h, w], with the jitter [T, 2] if it is given."""
        offsets = [None] * len(self.frames) if jitter is None else list(jitter)
        return torch.stack(
            [downsample(self.frame(t), SCALE, offset) for t, offset in enumerate(offsets)]
        )

    def motion(self, jitter: Tensor | None = None) -> Tensor:
        """Read the motion at the samples from files beside the images of the clip.

        Args:
            jitter: [T, 2], the offsets of the sampling grid; None: no jitter.

        Returns:
            [T, 2, h, w] in low-resolution pixels, as :class:`deepfovea.generators.Generator` takes
            it; 0 for the first frame; unknown vectors are filled from those around.

        Raises:
            InputError: the clip is not a folder of images, a frame has no motion, or a file has
                another size.
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
        """Lines about differences between the clip and the request."""
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
    """A clip that cannot be used, with the reason in one line."""

    name: str
    reason: str


def read(video: Path, name: str, count: int) -> ReferenceClip | Unreadable:
    """Read the first ``count`` frames of a video, or all if there are fewer."""
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
    """Read videos (path, name) in this order; worker processes decode them ahead."""
    files: Any = _Files(videos, count)
    ahead = 1 if workers else None
    loader: DataLoader[ReferenceClip | Unreadable] = DataLoader(
        files, batch_size=None, num_workers=workers, prefetch_factor=ahead, collate_fn=_as_is
    )
    return iter(loader)


def _as_is(item: Any) -> Any:
    return item
