"""Messages before a reconstruction: its sizes and settings, and warnings of likely mistakes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import PUBLISHED_DENSITY, InputError
from ..wording import pluralize
from .options import one_line

if TYPE_CHECKING:
    from ..files_to_files import Summary
    from ..reconstructor import Reconstructor

MAX_USUAL_LOW_PIXELS = 640 * 480
"""Pixels; a larger input without --simulate is likely to be a full resolution by mistake.
Our choice."""

MIN_ESTIMATED_PIXELS = 50 * 192 * 256
"""Low-resolution pixels of all frames; for fewer, which take seconds, no time is estimated.
Our choice."""


def refuse_folder_of_videos(folder: Path) -> None:
    """Refuse a folder of videos, with a message that names the subcommand for it.

    Raises:
        InputError: the folder holds videos, or folders of images, but no images.
    """
    from ..video import find_videos
    from ..video.folder import list_images

    if not folder.is_dir() or list_images(folder):
        return
    try:
        count = len(find_videos(folder))
    except InputError:
        return  # it contains neither, which the reader reports
    raise InputError(
        f"{folder}: received a folder of videos ({count}), expected one video or a folder of "
        f"images; 'deepfovea infer {folder} -o FOLDER' reconstructs them all"
    )


def refuse_unusable_outputs(options: argparse.Namespace, *outputs: Path | None) -> None:
    """Refuse, before anything is loaded, an output that exists already or cannot be written.

    Raises:
        InputError: one exists and ``--overwrite`` is not given, or its suffix is unknown.
    """
    from ..video import checked_suffix

    for output in filter(None, outputs):
        checked_suffix(output)
        if output.exists() and not options.overwrite:
            raise InputError(
                f"{output}: received an existing output; expected a new name, or --overwrite to "
                "replace it"
            )


def quality(summary: Summary) -> str:
    """PSNR against the original, and the PSNR of a simple method; empty without an original."""
    if summary.psnr is None or summary.baseline_psnr is None:
        return ""
    return (
        f", PSNR {summary.psnr:.2f} dB against the original "
        f"(hole filling + bicubic: {summary.baseline_psnr:.2f} dB)"
    )


def describe_sampling(noise: str, jitter: str) -> str:
    """A description of how pixels were drawn, for messages."""
    drawn = "blue noise" if noise == "blue" else "independent draws"
    return drawn if jitter == "none" else f"{drawn}, {jitter} jitter"


def announce(
    options: argparse.Namespace,
    reader: Any,
    output: Path,
    reconstructor: Reconstructor,
    total: int | None,
) -> None:
    """Print sizes, the number of frames and, for long videos, an estimate of the time."""
    engine = reconstructor.engine
    scale = engine.scale
    height, width = reader.height, reader.width
    low = [-(-side // scale) if options.simulate else side for side in (height, width)]
    large = (height, width) if options.simulate else (scale * height, scale * width)
    frames = "" if total is None else f", {pluralize(total, 'frame')}"
    line = (
        f"{reader.path}: {width}x{height}{frames}; low resolution {low[1]}x{low[0]} -> "
        f"{output}: {large[1]}x{large[0]}"
    )
    if total and total * low[0] * low[1] > MIN_ESTIMATED_PIXELS:
        line += f"; about {_estimate(engine.network, low[0], low[1], total, engine.device)} or less"
    print(one_line(line), file=sys.stderr, flush=True)
    given = {
        "--gaze": options.gaze != "centre",
        "--density": options.density != PUBLISHED_DENSITY,
    }
    unused = [name for name, is_given in given.items() if is_given]
    if reader.has_alpha and unused:
        print(
            one_line(
                f"deepfovea: {reader.path} has alpha, which says what is sampled, so "
                f"{' and '.join(unused)} {'are' if len(unused) > 1 else 'is'} not used; give "
                "frames without alpha to sample them here"
            ),
            file=sys.stderr,
            flush=True,
        )
    if not options.simulate and not reader.has_alpha and low[0] * low[1] > MAX_USUAL_LOW_PIXELS:
        print(
            one_line(
                f"deepfovea: {reader.path} is taken for the low resolution, and made {scale} times "
                "larger; if it is the full resolution, stop and add --simulate"
            ),
            file=sys.stderr,
            flush=True,
        )


def _estimate(model: Any, height: int, width: int, frames: int, device: Any) -> str:
    """Estimate the time for ``frames`` frames from two steps of the model on black frames."""
    import torch

    from ..wording import format_duration

    group = model.frames_per_step
    samples = torch.zeros(1, group, 3, height, width, device=device)
    seconds = 0.0
    with torch.inference_mode():
        for _ in range(2):  # the first one may include preparations
            start = time.perf_counter()
            model(samples, samples[:, :, :1], None)[0].cpu()
            seconds = time.perf_counter() - start
    return format_duration(seconds * frames / group)
