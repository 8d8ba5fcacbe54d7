"""Contact sheets: samples | fill | methods | original | error maps, a few frames of a clip."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..config import InputError
from ..images import contact_sheet, mark_gaze, resize_frame

ROWS_PER_SHEET = 3
"""Number of frames on a sheet. Our choice."""

MAX_SHOWN_ERROR = 0.25
"""Mean absolute error of the channels that is brightest in an error map; larger ones are clamped.
Our choice."""


class Panels(NamedTuple):
    """The pictures of one frame on a sheet.

    gaze_px in pixels of ``samples`` [3, h, w]; frames [3, H, W] by method; truth [3, H, W].
    """

    gaze_px: tuple[float, float]
    samples: Tensor
    frames: dict[str, Tensor]
    truth: Tensor


def render_sheet(rows: Sequence[Panels], models: Sequence[str]) -> bytes:
    """Draw a PNG with a row per frame and, after the original, an error map per model.

    If there are no models, the first baseline other than ``fill`` is shown instead.

    Raises:
        InputError: matplotlib, which colours the error maps, is not installed.
    """
    names = list(rows[0].frames)
    plain = [name for name in names if name == "fill"]
    shown = [name for name in names if name in models]
    shown = shown or [name for name in names if name != "fill"][:1] or plain
    before = list(dict.fromkeys([*plain, *shown]))
    h, w = rows[0].samples.shape[-2:]
    grow = max(1, 480 // w)
    columns = ["samples, gaze ringed", *before, "original"]
    columns += [f"error of {_short(name)}, 0 to {MAX_SHOWN_ERROR:g}" for name in shown]
    grid = []
    for row in rows:
        x, y = ((c + 0.5) * grow - 0.5 for c in row.gaze_px)
        samples = mark_gaze(
            resize_frame(row.samples, grow * h, grow * w), x, y, max(8.0, 5.0 * grow)
        )
        frames = [row.frames[name] for name in before]
        errors = [error_map(row.frames[name], row.truth) for name in shown]
        grid.append([samples, *frames, row.truth, *errors])
    data = io.BytesIO()
    labels = [_short(column, 44) for column in columns]
    Image.fromarray(contact_sheet(grid, labels, grow * w)).save(data, "PNG")
    return data.getvalue()


def error_map(frame: Tensor, truth: Tensor) -> Tensor:
    """Show the mean absolute error of the channels as colours: [3, H, W] each -> [3, H, W]."""
    try:
        from matplotlib import colormaps
    except ImportError:
        raise InputError(
            "contact sheets need matplotlib, which is missing: pip install 'deepfovea[eval]'"
        ) from None
    error = (frame.clamp(0.0, 1.0) - truth).abs().mean(0) / MAX_SHOWN_ERROR
    colors = colormaps["inferno"](error.clamp(0.0, 1.0).numpy())[..., :3]
    return torch.from_numpy(colors).permute(2, 0, 1).float()


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]
