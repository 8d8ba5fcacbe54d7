"""The published table (L1, L2, PSNR, SSIM), computed as published and computed correctly."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import SCALE, InputError
from ..fovea import downsample
from ..generators import Network
from ..io.decoded_cache import Source
from ..metrics.pixel import psnr, ssim
from ..metrics.published import published_psnr, published_ssim
from ..video import find_videos, read_clip
from ..wording import pluralize
from .items import FRAMES, OVERLAP, SIZE, PublishedItems, has_an_item
from .splits import split_folder

REDS_FRAMES = 100
"""Number of frames of every video of REDS (Nah et al. 2019)."""

NOTE = (
    "As published: the peak of PSNR is the largest value of the prediction, SSIM is one global "
    "correlation per item of six frames, black padding is scored, nothing is clamped; comparable "
    "with nothing else. Correct: peak 1.0, clamped to [0, 1], SSIM in 11 × 11 Gaussian windows of "
    "sigma 1.5, means over the frames, each once, without padding."
)

_log = logging.getLogger(__name__)

OnItem = Callable[[str, Tensor, Tensor, Tensor], None]
"""A function that receives a video's name, and the samples [6, 3, h, w], prediction and label
[6, 3, H, W] of one item."""


@dataclass(frozen=True)
class Scores:
    """l1: mean absolute error; l2: mean squared error; psnr: in dB; ssim: at most 1."""

    l1: float
    l2: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Row:
    """The scores of one video: ``published`` are means over its items, ``correct`` over its frames.

    ``sampled`` is the share of its low-resolution pixels, without padding, that were sampled.
    """

    video: str
    items: int
    frames: int
    sampled: float
    published: Scores
    correct: Scores


def validate(
    data: Path,
    network: Network,
    *,
    split: str = "val",
    state: Literal["reset", "carry", "item"] = "reset",
    frames: int = REDS_FRAMES,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    skip_unreadable: bool = False,
    on_row: Callable[[Row], None] | None = None,
    on_first_item: OnItem | None = None,
) -> list[Row]:
    """Score a generator on every video of a split by the published protocol.

    Videos are cut into the items of :class:`deepfovea.reds.items.PublishedItems`; the state
    after one item is the state before the next.

    Args:
        data: a data set with splits, such as REDS, or any folder of videos.
        network: the generator, on the device where it is to run.
        split: see :func:`deepfovea.reds.splits.split_folder`.
        state: the state before a video's first item: ``reset``, a new one; ``carry``, the last
            one of the video before; ``item``, a new one, also before every other item, which the
            published code does on several GPUs.
        frames: number of frames of every video, from its first on.
        size: height and width of an item at high resolution.
        seed: decides gaze and masks.
        skip_unreadable: see :func:`deepfovea.io.decoded_cache.open_sources`.
        on_row: called after every video.
        on_first_item: called with the first item of every video, see :data:`OnItem`.

    Raises:
        InputError: there is nothing to score, a frame cannot be read, or the generator does not
            fit the items.
    """
    if network.scale != SCALE or FRAMES % network.frames_per_step:
        raise InputError(
            f"the published items enlarge {FRAMES} frames by {SCALE}; received a model that "
            f"enlarges {network.frames_per_step} by {network.scale}; choose another"
        )
    root = split_folder(data, split)
    rows: list[Row] = []
    carried: Any = None
    for path in find_videos(root):
        name = root.resolve().name if path == root else path.relative_to(root).as_posix()
        try:
            video = Source(name, read_clip(path, frames, skip_unreadable=skip_unreadable))
        except InputError as error:
            if not skip_unreadable:
                raise
            _log.warning("%s; the video is left out", error)
            continue
        if not has_an_item(video):
            continue
        items = PublishedItems([video], seed, size)
        before = carried if state == "carry" else None
        row, carried = score_video(
            network, items, before, every_item=state == "item", on_first_item=on_first_item
        )
        rows.append(row)
        if on_row:
            on_row(row)
    if not rows:
        raise InputError(f"{root}: no video of at least {FRAMES} frames; expected one at least")
    return rows


@torch.inference_mode()
def score_video(
    network: Network,
    items: PublishedItems,
    state: Any = None,
    *,
    every_item: bool = False,
    on_first_item: OnItem | None = None,
) -> tuple[Row, Any]:
    """Score a generator on the items of one video, and return the row and the last state.

    With ``every_item``, each item begins with a new state.
    """
    device = next(network.parameters()).device
    published: list[Tensor] = []  # [4] per item
    correct: list[Tensor] = []  # [4, frames of an item that are new]
    known: list[Tensor] = []  # share of the pixels of an item that are no padding
    for item in (items[k] for k in range(len(items))):
        truth = item["frames"].to(device)[None].float() / 255.0
        mask = item["mask"].to(device)[None].float()
        before = None if every_item else state
        samples = downsample(truth) * mask
        output, state = network(samples, mask, before)
        if on_first_item and item["is_clip_start"]:
            on_first_item(items.sources[0].name, samples[0], output[0], truth[0])
        difference = output - truth
        published.append(
            torch.stack(
                [
                    difference.abs().mean(),
                    difference.square().mean(),
                    published_psnr(output, truth),
                    published_ssim(output, truth),
                ]
            )
        )
        top, left, height, width = item["valid_region"].tolist()
        new = (
            0 if item["is_clip_start"] else OVERLAP
        )  # the first frame that was not in the item before
        shown = output[0, new:, :, top : top + height, left : left + width].clamp(0.0, 1.0)
        truth = truth[0, new:, :, top : top + height, left : left + width]
        difference = shown - truth
        correct.append(
            torch.stack(
                [
                    difference.abs().mean((-3, -2, -1)),
                    difference.square().mean((-3, -2, -1)),
                    psnr(shown, truth),
                    ssim(shown, truth),
                ]
            )
        )
        known.append(mask.sum() / mask.shape[1] / (height * width / SCALE**2))
    frames = torch.cat(correct, 1)
    row = Row(
        items.sources[0].name,
        len(items),
        frames.shape[1],
        float(torch.stack(known).mean()),
        Scores(*torch.stack(published).mean(0).tolist()),
        Scores(*frames.mean(1).tolist()),
    )
    return row, state


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean of each score over videos; for videos of one length also the mean over all items."""
    columns = zip(*map(astuple, scores), strict=True)
    return Scores(*(sum(column) / len(scores) for column in columns))


def to_json(rows: Sequence[Row], protocol: dict[str, Any]) -> str:
    """Means, rows and the protocol as JSON; values that are not finite become null."""
    table = {
        "protocol": protocol,
        "note": NOTE,
        "mean": {
            "as published, not comparable": asdict(mean_scores([r.published for r in rows])),
            "correct": asdict(mean_scores([r.correct for r in rows])),
        },
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(_finite(table), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(rows: Sequence[Row], title: str) -> str:
    """The table with the scores as published and the correct ones, and a note on the difference."""
    lines = [f"| {title} | L1 ↓ | L2 ↓ | PSNR ↑, dB | SSIM ↑ |", "|---|---:|---:|---:|---:|"]
    for name, scores in (
        ("as published, **not comparable**", mean_scores([r.published for r in rows])),
        ("**correct**", mean_scores([r.correct for r in rows])),
    ):
        cells = f"{scores.l1:.4f} | {scores.l2:.4f} | {scores.psnr:.2f} | {scores.ssim:.4f}"
        lines.append(f"| {name} | {cells} |")
    frames = sum(row.frames for row in rows)
    return "\n".join(
        [*lines, "", f"{pluralize(len(rows), 'video')}, {pluralize(frames, 'frame')}. {NOTE}"]
    )
