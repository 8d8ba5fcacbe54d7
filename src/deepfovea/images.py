"""Pictures to look at: frames with the gaze marked, panels side by side, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from .config import InputError

PANEL_WIDTH = 640
"""Largest width in pixels of one panel of a comparison: three are as wide as Full HD."""

ROWS = 64
"""Rows of a picture that :func:`to_image` converts at once, so that they stay in the processor's
cache. Our choice."""


def read_picture(path: Path) -> np.ndarray:
    """Read a photograph as uint8 [H, W, 3], rotated as its metadata says.

    Raises:
        InputError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({error}); leave it out") from None


def to_levels(frame: Tensor) -> Tensor:
    """Numbers in [0, 1], others are clamped, to levels of 8 bits, uint8, on their device."""
    return (frame * 255.0 + 0.5).clamp(0.0, 255.0).to(torch.uint8)


def to_image(frame: Tensor) -> np.ndarray:
    """Float [3, H, W] in [0, 1] to uint8 [H, W, 3], which is a view of planes [3, H, W]."""
    if frame.is_cuda:  # a quarter of the bytes travels
        there: np.ndarray = to_levels(frame).cpu().numpy().transpose(1, 2, 0)
        return there
    # By NumPy, as PyTorch's threads would take processors from the generator.
    planes = frame.cpu().numpy()
    image = np.empty(planes.shape, np.uint8)
    levels = np.empty((len(planes), ROWS, planes.shape[2]), np.float32)
    for top in range(0, planes.shape[1], ROWS):
        rows = planes[:, top : top + ROWS]
        part = np.multiply(rows, np.float32(255.0), out=levels[:, : rows.shape[1]])
        part += np.float32(0.5)
        np.clip(part, 0.5, 255.5, out=part)
        image[:, top : top + ROWS] = part
    shown: np.ndarray = image.transpose(1, 2, 0)
    return shown


def resize_frame(frame: Tensor, height: int, width: int) -> Tensor:
    """Resize [3, h, w]: by averaging to a smaller size, by repeating pixels to a larger one."""
    if height < frame.shape[-2]:
        return F.interpolate(frame[None], (height, width), mode="bilinear", antialias=True)[0]
    return F.interpolate(frame[None], (height, width), mode="nearest-exact")[0]


def mark_gaze(frame: Tensor, x: float, y: float, radius: float) -> Tensor:
    """Draw a ring at a point (pixels of the frame [3, H, W]): white, with a black rim."""
    height, width = frame.shape[-2:]
    rows = torch.arange(height, device=frame.device, dtype=torch.float32)[:, None] - y
    columns = torch.arange(width, device=frame.device, dtype=torch.float32) - x
    distance = (torch.hypot(columns, rows) - radius).abs()
    marked = torch.where(distance < 3.0, torch.zeros_like(frame), frame)
    return torch.where(distance < 1.5, torch.ones_like(frame), marked)


def side_by_side_panels(
    samples: Tensor, frame: Tensor, truth: Tensor | None, gaze_px: tuple[float, float] | None
) -> np.ndarray:
    """Samples | reconstruction | original, each at most 640 pixels wide, the gaze ringed.

    Args:
        samples: [3, h, w].
        frame: [3, H, W].
        truth: [3, H, W] or None.
        gaze_px: in pixels of ``samples``; None: no ring.

    Returns:
        uint8 [height, 2 or 3 × width, 3], even sizes.
    """
    height, width = frame.shape[-2:]
    width_shown = max(2, min(PANEL_WIDTH, width) // 2 * 2)
    height_shown = max(2, round(height * width_shown / width) // 2 * 2)
    panels = [
        resize_frame(p.cpu(), height_shown, width_shown)
        for p in (samples, frame, truth)
        if p is not None
    ]
    grow = width_shown / samples.shape[-1]
    if gaze_px is not None:
        x, y = ((c + 0.5) * grow - 0.5 for c in gaze_px)
        panels[0] = mark_gaze(panels[0], x, y, max(8.0, 5.0 * grow))
    return to_image(torch.cat(panels, -1))


def prediction_grid(samples: Tensor, prediction: Tensor, label: Tensor) -> np.ndarray:
    """A grid of one clip, a row for each frame: input, prediction and label.

    Values beyond [0, 1] are clamped, and none is stretched, so that pictures can be compared.

    Args:
        samples: [T, 3, h, w], 0 where not sampled.
        prediction: [T, 3, H, W].
        label: [T, 3, H, W].
    """
    rows = [
        tuple(frame.detach().float().cpu() for frame in frames)
        for frames in zip(samples, prediction, label, strict=True)
    ]
    return contact_sheet(rows, ("input", "prediction", "label"), min(480, label.shape[-1]))


def contact_sheet(
    rows: Sequence[Sequence[Tensor]], columns: Sequence[str], width: int = 480
) -> np.ndarray:
    """A labelled grid of frames.

    Args:
        rows: frames [3, H, W], as many in each row as there are columns.
        columns: the headings of the columns.
        width: width of one frame on the sheet, pixels.
    """
    height = round(width * rows[0][0].shape[-2] / rows[0][0].shape[-1])
    gap, title = 6, 30
    sheet = Image.new(
        "RGB",
        (len(columns) * (width + gap) + gap, title + len(rows) * (height + gap)),
        (24, 24, 24),
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for column, name in enumerate(columns):
        left = gap + column * (width + gap)
        draw.text((left + 4, 5), name, fill=(235, 235, 235), font=font)
        for row, frames in enumerate(rows):
            shown = to_image(resize_frame(frames[column].cpu(), height, width))
            sheet.paste(Image.fromarray(shown), (left, title + row * (height + gap)))
    return np.asarray(sheet)
