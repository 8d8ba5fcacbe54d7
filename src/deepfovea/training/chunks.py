"""The data of optimiser steps: clips, in an order that can be resumed, cut into chunks.

Legend: B clips of a batch, T frames of a chunk; h, w low resolution; H, W high resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import InputError, TrainConfig
from ..fovea import downsample
from ..reds.items import PublishedItems
from .dataset import ClipDataset
from .interrupt import outlive_signals
from .sampler import stateful_batches

RENDER_NOISE = (0.02, 0.15)
"""Range of the noise of a path tracer: standard deviation at white, as a share of white. It halves
with four times the paths. Our choice."""

MIN_SIDE = 32
"""Smallest side of a frame that the losses accept, pixels."""


class Position(NamedTuple):
    """The position in the data: number of used clips of all processes, and of used chunks of the
    current clip."""

    clip: int = 0
    chunk: int = 0


START = Position()


class Region(NamedTuple):
    """The part of the high-resolution frames without padding, in pixels; only it is scored."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, frames: Tensor, factor: int = 1) -> Tensor:
        """The region of frames [..., H / factor, W / factor]."""
        top, left, height, width = (side // factor for side in self)
        return frames[..., top : top + height, left : left + width]


class Chunk(NamedTuple):
    """Consecutive frames of the clips of a batch.

    frames [B, T, 3, H, W] in [0, 1]; low [B, T, 3, h, w]: the same at the low resolution; mask
    [B, T, 1, h, w]; samples [B, T, 3, h, w], 0 where not sampled; jitter [B, T, 2], None without
    jitter; motion [B, T, 2, h, w] and motion_trust [B, T, 1, h, w]: see
    :class:`deepfovea.training.dataset.TrainingClip`, None if no motion is known; motion_given:
    whether the generator receives the motion; previous_low [B, 3, h, w]: the low-resolution frame
    before the chunk, None at the start of a clip; is_clip_start [B], on the CPU: True where the
    recurrent state starts again; valid_region: see :class:`Region`; next_position: the position
    after this chunk.
    """

    frames: Tensor
    low: Tensor
    mask: Tensor
    samples: Tensor
    jitter: Tensor | None
    motion: Tensor | None
    motion_trust: Tensor | None
    motion_given: bool
    previous_low: Tensor | None
    is_clip_start: Tensor
    valid_region: Region
    next_position: Position


def iter_chunks(
    dataset: ClipDataset | PublishedItems,
    config: TrainConfig,
    device: torch.device,
    position: Position = START,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Chunk]:
    """Yield chunks without end; those after ``position`` do not depend on those before.

    Args:
        dataset: random clips, which are taken by their numbers; or published items, ordered by
            :func:`deepfovea.training.sampler.stateful_batches`.
        config: batch, clip, chunk and the like.
        device: device of the tensors.
        position: the position to start from.
        process: number of this process, which takes ``config.batch`` clips at a time.
        processes: number of processes that share the clips.
    """
    global_batch = config.batch * processes
    if isinstance(dataset, PublishedItems):
        order = stateful_batches(
            dataset.items_per_video,
            config.batch,
            config.seed,
            start=position.clip // global_batch,
            process=process,
            processes=processes,
        )
    else:
        order = _clip_indices(position.clip + process * config.batch, config.batch, global_batch)
    loader = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # so that the loader does not draw from the run's own
    )
    clip, first_chunk = position
    for batch in loader:
        frames = batch["frames"].to(device, non_blocking=True).float() / 255.0
        mask = batch["mask"].to(device, non_blocking=True).float()
        low = downsample(frames)
        jitter = batch["jitter"].to(device, non_blocking=True) if "jitter" in batch else None
        samples = mask * (low if jitter is None else downsample(frames, jitter=jitter))
        motion = trust = None
        if "motion" in batch:
            motion = batch["motion"].to(device, non_blocking=True)
            trust = batch["motion_trust"].to(device, non_blocking=True)
        rng = np.random.default_rng((config.seed, clip))
        motion_given = motion is not None and rng.random() < config.motion_given
        if motion_given and rng.random() < config.render_noise:
            samples = mask * _path_traced(samples, rng)
        valid_region = Region(0, 0, *frames.shape[-2:])
        if "valid_region" in batch:
            valid_region = _common_region(batch["valid_region"])
        starting = batch.get("is_clip_start", torch.ones(len(frames), dtype=torch.bool))
        chunks = config.clip // config.chunk
        for number in range(first_chunk, chunks):
            t = number * config.chunk
            part = slice(t, t + config.chunk)
            begins = number == 0 and config.state == "reset"
            yield Chunk(
                frames[:, part],
                low[:, part],
                mask[:, part],
                samples[:, part],
                None if jitter is None else jitter[:, part],
                None if motion is None else motion[:, part],
                None if trust is None else trust[:, part],
                motion_given,
                previous_low=low[:, t - 1] if t else None,
                is_clip_start=starting if begins else torch.zeros_like(starting),
                valid_region=valid_region,
                next_position=Position(clip, number + 1)
                if number + 1 < chunks
                else Position(clip + global_batch),
            )
        clip, first_chunk = clip + global_batch, 0


def _path_traced(samples: Tensor, rng: np.random.Generator) -> Tensor:
    """Samples with noise whose variance grows with the light, another strength for each clip."""
    weakest, strongest = RENDER_NOISE
    strength = weakest * (strongest / weakest) ** rng.random(len(samples))
    deviation = torch.from_numpy(strength).to(samples)[:, None, None, None, None] * samples.sqrt()
    noise = torch.from_numpy(rng.standard_normal(samples.shape, dtype=np.float32)).to(samples)
    return (samples + deviation * noise).clamp(0.0, 1.0)


def _clip_indices(first: int, share: int, step: int) -> Iterator[list[int]]:
    for start in count(first, step):
        yield list(range(start, start + share))


def _common_region(regions: Tensor) -> Region:
    """The common part of the regions of a batch, [B, 4]: top, left, height and width."""
    top, left = regions[:, :2].amax(0).tolist()
    bottom, right = (regions[:, :2] + regions[:, 2:]).amin(0).tolist()
    if min(bottom - top, right - left) < MIN_SIDE:
        raise InputError(
            f"--data: received videos of {bottom - top}x{right - left} pixels, expected at least "
            f"{MIN_SIDE}x{MIN_SIDE}; leave the small ones out"
        )
    return Region(top, left, bottom - top, right - left)
