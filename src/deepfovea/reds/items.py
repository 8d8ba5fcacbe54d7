"""The published preprocessing: videos are cut into overlapping items of six frames.

Reich, Memmel and Grebe 2020 take the data set REDS. Its frames of 720 × 1280 pixels are downsampled
by four, sampled around one random gaze point per video, cropped at the sides and padded above and
below. Legend: H, W the size of a video; h = H / 4, w = W / 4.
"""

from __future__ import annotations

import logging
import zlib
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ..config import SCALE, InputError
from ..fovea import density_map, draw_mask
from ..gaze import random_point
from ..io.decoded_cache import Source
from ..wording import pluralize

FRAMES = 6
"""Number of frames of an item. This and the next two are as published (Reich, Memmel and Grebe
2020)."""

OVERLAP = 2
"""Number of frames that an item shares with the next one."""

SIZE = (768, 1024)
"""Height and width of the frames of an item, pixels."""

_log = logging.getLogger(__name__)


class PublishedItem(TypedDict):
    """One item. PyTorch's default collation stacks every value to a batch [B, …].

    frames: uint8 [6, 3, 768, 1024], black in the padding. :func:`deepfovea.fovea.downsample` turns
        them into the published low resolution, as the order of downsampling and cropping does not
        matter.
    mask: uint8 [6, 1, 192, 256], 1 where sampled, 0 in the padding.
    valid_region: int64 [4], top, left, height and width of the part of ``frames`` without padding.
    is_clip_start: bool, whether the item is the first of its video.
    """

    frames: Tensor
    mask: Tensor
    valid_region: Tensor
    is_clip_start: bool


class PublishedItems(Dataset[PublishedItem]):
    """Videos as items of the published preprocessing; an item depends only on index and seed.

    Items are numbered video by video. Each begins four frames after the one before, as two of its
    six frames overlap; frames at the end that do not fill an item are left out. An index from
    ``len(self)`` on belongs to a later epoch: the frames are the same, with new gaze and masks.

    The gaze is one point per video and epoch, uniform in [50, w − 50] × [50, h − 50]. Masks are
    drawn for every frame of every item, on the whole low-resolution frame before the crop.
    Both depend on the name of the video, but not on which other videos there are.

    Videos of other sizes than 720 × 1280 are cropped or padded with black to fit, about the centre
    and in steps of four pixels. (If H or W is not a multiple of four, its last rows or columns are
    left out first. If a side has less than 180 low-resolution pixels, the gaze may come closer to
    the border: see :func:`deepfovea.gaze.random_point`.)

    Args:
        sources: the videos; those with fewer than six frames are left out, with a warning.
        seed: decides, together with the index, all random choices.
        size: height and width of ``frames``, multiples of four.

    Attributes:
        items_per_video: for :func:`deepfovea.training.sampler.stateful_batches`.

    Raises:
        InputError: no video has six frames and 4 × 4 pixels, or the size is not usable.
    """

    def __init__(self, sources: list[Source], seed: int, size: tuple[int, int] = SIZE) -> None:
        if min(size) < SCALE or size[0] % SCALE or size[1] % SCALE:
            raise InputError(
                f"size of an item: received {size[0]}x{size[1]}; "
                f"expected positive multiples of {SCALE}"
            )
        self.sources = [source for source in sources if has_an_item(source)]
        if not self.sources:
            raise InputError(
                f"none of {pluralize(len(sources), 'video')} has {FRAMES} frames, which are "
                "one item; give longer videos"
            )
        self.seed = seed
        self.size = size
        self.items_per_video = [item_count(len(source.frames)) for source in self.sources]
        self._ends = np.cumsum(self.items_per_video)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> PublishedItem:
        if index < 0:
            raise IndexError(f"received item {index}, expected 0 or more")
        epoch, number = divmod(index, len(self))
        video = int(np.searchsorted(self._ends, number, side="right"))
        item = number - (int(self._ends[video]) - self.items_per_video[video])
        source = self.sources[video]
        start = item * (FRAMES - OVERLAP)
        images = np.array(source.frames[start : start + FRAMES])
        frames, region = crop_or_pad(torch.from_numpy(images).permute(0, 3, 1, 2), self.size, SCALE)
        height, width = (side // SCALE for side in source.frames.shape[1:3])
        key = (self.seed, epoch, zlib.crc32(source.name.encode()))
        gaze_px = random_point(key, height, width).pixels(np.zeros(FRAMES), height, width)
        mask = draw_mask(
            density_map(gaze_px, height, width)[None],
            seed=int(np.random.default_rng((*key, 1)).integers(2**32)),
            first_frame=item * FRAMES,  # the frames of the overlap are drawn again, as published
        )
        low_size = (self.size[0] // SCALE, self.size[1] // SCALE)
        mask, _ = crop_or_pad(mask[0].to(torch.uint8), low_size)
        return PublishedItem(
            frames=frames, mask=mask, valid_region=torch.tensor(region), is_clip_start=item == 0
        )


def has_an_item(source: Source) -> bool:
    """Whether a video has at least six frames of 4 × 4 pixels; if not, log a warning."""
    count, height, width = source.frames.shape[:3]
    if count >= FRAMES and min(height, width) >= SCALE:
        return True
    _log.warning(
        "%s: left out; %d frames of %dx%d pixels are too short or too small for an item",
        *(source.name, count, height, width),
    )
    return False


def item_count(frames: int) -> int:
    """The number of items of a video with so many frames."""
    return max(0, (frames - OVERLAP) // (FRAMES - OVERLAP))


def crop_or_pad(
    frames: Tensor, size: tuple[int, int], step: int = 1
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Crop or pad frames about their centre.

    Args:
        frames: [..., H, W].
        size: the new height and width, multiples of ``step``.
        step: the borders are at multiples of it, so that a step of four at full resolution gives
            the same part as a step of one at the low resolution. Rows and columns beyond the last
            multiple are left out.

    Returns:
        The frames [..., *size], 0 where padded, and (top, left, height, width) of the part without
        padding.
    """
    offsets, lengths = [], []
    for axis, new in zip((-2, -1), size, strict=True):
        old = frames.shape[axis] // step
        new //= step
        length = min(old, new)
        frames = frames.narrow(axis, (old - length) // 2 * step, length * step)
        offsets.append((new - length) // 2 * step)
        lengths.append(length * step)
    (top, left), (height, width) = offsets, lengths
    padding = (left, size[1] - width - left, top, size[0] - height - top)
    return F.pad(frames, padding), (top, left, height, width)
