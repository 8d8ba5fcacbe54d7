"""Ordered batches: item k + 1 of a video follows item k in the same place of the batch.

So the recurrent state of one batch continues in the next.
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

    The videos of epoch 0 in a random order, then those of epoch 1 in another, and so on; each place
    plays one video from its first item to its last and then takes the next video that no place
    has. So every batch is full, every item comes exactly once per epoch, and places may be in
    different epochs. Whether a place begins a new video is said by the item itself
    (:class:`deepfovea.reds.items.PublishedItem`, ``is_clip_start``).

    Args:
        items_per_video: how many items each video has; they are numbered video by video, and
            item i of epoch e has the index ``i + e * sum(items_per_video)``.
        batch_size: items of one batch of this process.
        seed: with the epoch it decides the order of the videos.
        start: number of the first batch that is wanted; what comes after it does not depend on
            where one starts.
        process: number of this process, which has the places ``process * batch_size`` and following
            of a batch of ``processes * batch_size``.
        processes: how many share one batch.

    Yields:
        ``batch_size`` indices, as a PyTorch ``batch_sampler`` does.
    """
    if batch_size < 1 or not 0 <= process < processes or min(items_per_video, default=0) < 1:
        raise ValueError(
            f"received a batch of {batch_size}, process {process} of {processes} and items per "
            f"video {list(items_per_video)[:8]}; expected at least one of each"
        )
    videos = _videos(items_per_video, seed)
    playing: list[Iterator[int]] = [iter(())] * (batch_size * processes)
    number = 0
    while True:
        batch = []
        for place, items in enumerate(playing):
            index = next(items, None)
            if index is None:
                playing[place] = iter(next(videos))
                index = next(playing[place])
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
