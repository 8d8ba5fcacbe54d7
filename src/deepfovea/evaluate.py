"""Clips x methods -> rows -> table: how good a reconstruction is, beside its yardsticks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint import load
from .config import PUBLISHED_DENSITY, Density, InputError
from .fill import accumulate, dis_flow, pull_push, upscale
from .fovea import reduce, sample
from .objective.metrics import psnr
from .video import find_videos, read_clip

Method = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
"""(samples [B,T,3,h,w], mask [B,T,1,h,w], state) -> frames [B,T,3,H,W], state."""

SCALE = 4


def fill_frames(samples: Tensor, mask: Tensor, state: None = None) -> tuple[Tensor, None]:
    """Baseline ``fill``: holes filled frame by frame, then bicubic ×4."""
    return upscale(pull_push(samples, mask), SCALE), None


def accumulate_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Baseline ``accumulate``: samples carried along DIS flow or none, then bicubic ×4."""
    frames, state = accumulate(samples, mask, state, flow=dis_flow)
    return upscale(frames, SCALE), state


BASELINES: dict[str, Method | None] = {
    "fill": fill_frames,
    "accumulate": accumulate_frames,
    "bicubic-all": None,  # sees all low-resolution pixels, not the samples
}


@dataclass(frozen=True)
class Row:
    """One method on one clip: psnr in dB, mean over frames; sampled, share of pixels."""

    method: str
    clip: str
    frames: int
    psnr: float
    sampled: float


def evaluate(
    root: Path,
    models: Sequence[str],
    baselines: Sequence[str],
    *,
    frames: int = 24,
    seed: int = 0,
    density: Density = PUBLISHED_DENSITY,
    blue_noise: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Score methods on every clip of a folder by the published protocol.

    The first ``frames`` frames at their own resolution (cropped to a multiple of four), reduced
    by four without antialiasing, sampled with the gaze at the centre; PSNR against the frames
    themselves: RGB, peak 1.0, clamped, mean over frames, nothing padded.

    Raises:
        InputError: nothing to evaluate, or an unknown method.
    """
    for name in baselines:
        if name not in BASELINES:
            raise InputError(f"unknown baseline {name!r}: expected one of {sorted(BASELINES)}")
    methods: dict[str, Method | None] = {name: BASELINES[name] for name in baselines}
    methods |= {name: load(name) for name in models}
    if not methods:
        raise InputError("no methods: received neither models nor baselines, expected at least one")
    rows = []
    for video in find_videos(root):
        clip = root.resolve().name if video == root else video.relative_to(root).as_posix()
        truth = torch.from_numpy(read_clip(video, frames)).permute(0, 3, 1, 2)[None].float() / 255.0
        height, width = (SCALE * (side // SCALE) for side in truth.shape[-2:])
        if not (height and width):
            raise InputError(f"{video}: received less than {SCALE} pixels; expected larger frames")
        truth = truth[..., :height, :width]
        low = reduce(truth, SCALE)
        center = torch.tensor([(low.shape[-1] - 1) / 2, (low.shape[-2] - 1) / 2])
        gaze = center.expand(1, low.shape[1], 2)
        samples, mask = sample(low, gaze, density, seed=seed, blue_noise=blue_noise)
        for name, method in methods.items():
            output = upscale(low, SCALE) if method is None else run(method, samples, mask)
            score = float(psnr(output, truth).mean())
            row = Row(name, clip, low.shape[1], score, float(mask.mean()))
            rows.append(row)
            if on_row:
                on_row(row)
    return rows


@torch.inference_mode()
def run(method: Method, samples: Tensor, mask: Tensor) -> Tensor:
    """A whole clip through a method, group of frames by group, the state carried."""
    group = getattr(method, "frames_per_step", 1)
    time = samples.shape[1]
    missing = -time % group
    if missing:
        samples = torch.cat([samples, samples[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        mask = torch.cat([mask, mask[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
    outputs, state = [], None
    for t in range(0, time, group):
        output, state = method(samples[:, t : t + group], mask[:, t : t + group], state)
        outputs.append(output)
    return torch.cat(outputs, 1)[:, :time]


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Mean PSNR of each method over its clips, dB."""
    names = dict.fromkeys(row.method for row in rows)
    scores = {name: [row.psnr for row in rows if row.method == name] for name in names}
    return {name: sum(values) / len(values) for name, values in scores.items()}


def to_json(rows: Sequence[Row], protocol: dict[str, Any]) -> str:
    """Rows, means and what is needed to repeat them."""
    mean = {name: {"psnr": value} for name, value in means(rows).items()}
    return json.dumps(
        {"protocol": protocol, "rows": [asdict(row) for row in rows], "mean": mean}, indent=2
    )


def to_markdown(rows: Sequence[Row]) -> str:
    """A table: a line per clip, a column per method, PSNR in dB."""
    methods = list(dict.fromkeys(row.method for row in rows))
    clips = list(dict.fromkeys(row.clip for row in rows))
    score = {(row.clip, row.method): row.psnr for row in rows}
    lines = [
        "| PSNR ↑, dB | " + " | ".join(methods) + " |",
        "|---|" + "---:|" * len(methods),
    ]
    for clip in clips:
        cells = " | ".join(f"{score[clip, method]:.2f}" for method in methods)
        lines.append(f"| {clip} | {cells} |")
    cells = " | ".join(f"**{value:.2f}**" for value in means(rows).values())
    return "\n".join([*lines, f"| **mean** | {cells} |"])
