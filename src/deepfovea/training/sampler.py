"""Batches in which item k + 1 of a video follows item k at the same index of the batch.

So the recurrent state after one batch is the state before the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def stateful_batches(
    items_per_video: Sequence[int],
    batch_size: int,
    seed: int,
    *,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[list[int]]:
    """Yield the indices of batch after batch, without end.

    All videos form a queue: those of epoch 0 in a random order, then those of epoch 1 in another
    order, and so on. Each slot of the batch goes through one video from its first item to its last
    and then takes the next video from the queue. So every batch is full, every item comes exactly
    once per epoch, and slots may be in different epochs. The item itself says whether it begins a
    video (:class:`deepfovea.reds.items.PublishedItem`, ``is_clip_start``).

    Args:
        items_per_video: how many items each video has; they are numbered video by video, and
            item i of epoch e has the index ``i + e * sum(items_per_video)``.
        batch_size: items per batch of this process.
        seed: decides, together with the epoch, the order of the videos.
        start: number of the first batch to yield; batch n is the same for every start.
        process: number of this process. It has the slots from ``process * batch_size`` on in a
            batch of ``processes * batch_size``.
        processes: number of processes that share one batch.

    Yields:
        ``batch_size`` indices, as a PyTorch ``batch_sampler`` does.
    """
    if batch_size < 1 or not 0 <= process < processes or min(items_per_video, default=0) < 1:
        raise ValueError(
            f"received a batch of {batch_size}, process {process} of {processes} and items per "
            f"video {list(items_per_video)[:8]}; expected at least one of each"
        )
    videos = _videos(items_per_video, seed)
    slots: list[Iterator[int]] = [iter(())] * (batch_size * processes)
    number = 0
    while True:
        batch = []
        for slot, items in enumerate(slots):
            index = next(items, None)
            if index is None:
                slots[slot] = iter(next(videos))
                index = next(slots[slot])
            batch.append(index)
        if number >= start:
            yield batch[process * batch_size : (process + 1) * batch_size]
        number += 1


def _videos(items_per_video: Sequence[int], seed: int) -> Iterator[range]:
    """The indices of video after video, epoch after epoch."""
    ends = np.cumsum(items_per_video)
    epoch = 0
    while True:
        for video in np.random.default_rng((seed, epoch)).permutation(len(ends)):
            end = int(epoch * ends[-1] + ends[video])
            yield range(end - items_per_video[video], end)
        epoch += 1
