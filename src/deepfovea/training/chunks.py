"""What one optimiser step sees: clips in an order that resumes, cut into chunks.

Legend: B clips of a batch, T frames of a chunk; h, w low resolution; H, W high resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import InputError, TrainConfig
from ..fovea import reduce
from ..reds.items import PublishedItems
from .dataset import ClipDataset
from .sampler import lane_batches

LEAST_SIDE = 32
"""Pixels of the smallest frame that the losses can judge."""


class Position(NamedTuple):
    """How far the data are used up: clips of all processes, and chunks of the clip under way."""

    clip: int = 0
    chunk: int = 0


START = Position()


class Region(NamedTuple):
    """What of the high-resolution frames counts, pixels: all of it but the padding."""

    top: int
    left: int
    height: int
    width: int

    def of(self, frames: Tensor, factor: int = 1) -> Tensor:
        """The region of frames [..., H / factor, W / factor]."""
        top, left, height, width = (side // factor for side in self)
        return frames[..., top : top + height, left : left + width]


class Piece(NamedTuple):
    """One chunk.

    frames [B, T, 3, H, W] in [0, 1]; low [B, T, 3, h, w], the same reduced; mask [B, T, 1, h, w];
    samples [B, T, 3, h, w], what is known; jitter [B, T, 2], None where the grid always rests;
    before [B, 3, h, w], the low-resolution frame before the chunk, None at the start of a clip;
    starts [B], on the CPU, True where the recurrent state begins anew; scored, see :class:`Region`;
    following: the position once this chunk is done.
    """

    frames: Tensor
    low: Tensor
    mask: Tensor
    samples: Tensor
    jitter: Tensor | None
    before: Tensor | None
    starts: Tensor
    scored: Region
    following: Position


def pieces(
    dataset: ClipDataset | PublishedItems,
    config: TrainConfig,
    device: torch.device,
    position: Position = START,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Piece]:
    """Chunks without end; what comes after ``position`` depends on nothing before.

    Args:
        dataset: random clips, which come by their number, or published items, which come in
            lanes (:func:`deepfovea.training.sampler.lane_batches`).
        config: batch, clip, chunk and the like.
        device: where the tensors are wanted.
        position: where to go on.
        process: number of this process, which takes ``config.batch`` clips of each round.
        processes: how many share a round.
    """
    lanes = config.batch * processes
    if isinstance(dataset, PublishedItems):
        order = lane_batches(
            dataset.items_per_video,
            config.batch,
            config.seed,
            start=position.clip // lanes,
            process=process,
            processes=processes,
        )
    else:
        order = _numbers(position.clip + process * config.batch, config.batch, lanes)
    loader = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # it draws a number at its start, not from the run's own
    )
    clip, chunk = position
    for batch in loader:
        frames = batch["frames"].to(device, non_blocking=True).float() / 255.0
        mask = batch["mask"].to(device, non_blocking=True).float()
        low = reduce(frames)
        jitter = batch["jitter"].to(device, non_blocking=True) if "jitter" in batch else None
        samples = mask * (low if jitter is None else reduce(frames, jitter=jitter))
        scored = _scored(batch["scored"]) if "scored" in batch else Region(0, 0, *frames.shape[-2:])
        first = batch.get("first", torch.ones(len(frames), dtype=torch.bool))
        chunks = config.clip // config.chunk
        for number in range(chunk, chunks):
            t = number * config.chunk
            part = slice(t, t + config.chunk)
            begins = number == 0 and config.state == "reset"
            yield Piece(
                frames[:, part],
                low[:, part],
                mask[:, part],
                samples[:, part],
                None if jitter is None else jitter[:, part],
                before=low[:, t - 1] if t else None,
                starts=first if begins else torch.zeros_like(first),
                scored=scored,
                following=Position(clip, number + 1)
                if number + 1 < chunks
                else Position(clip + lanes),
            )
        clip, chunk = clip + lanes, 0


def _numbers(first: int, share: int, step: int) -> Iterator[list[int]]:
    for start in count(first, step):
        yield list(range(start, start + share))


def _scored(regions: Tensor) -> Region:
    """What counts in every item of a batch: the common part of [B, 4] top, left, height, width."""
    top, left = regions[:, :2].amax(0).tolist()
    bottom, right = (regions[:, :2] + regions[:, 2:]).amin(0).tolist()
    if min(bottom - top, right - left) < LEAST_SIDE:
        raise InputError(
            f"--data: received videos of {bottom - top}x{right - left} pixels, expected at least "
            f"{LEAST_SIDE}x{LEAST_SIDE}; leave the small ones out"
        )
    return Region(top, left, bottom - top, right - left)
