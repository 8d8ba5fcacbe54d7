"""A drawn video for demonstrations: nobody's rights, no people, the same in every run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

DESIGNED_FOR = 432
"""Rows of the frame in whose pixels the drawing is described; others are drawn in proportion."""
PAN_SHARE = 0.2
"""Of the frame's width: how far the camera goes."""


def harbour(height: int, width: int, frames: int) -> Iterator[np.ndarray]:
    """A camera that pans over :func:`skyline` and back, a sign in front: uint8 [H, W, 3].

    The last frame leads to the first one, so the video can be repeated.
    """
    pan = round(PAN_SHARE * width)
    wide = skyline(height, width + pan)
    for number in range(frames):
        left = round(pan * (1 - math.cos(2 * math.pi * number / frames)) / 2)
        yield with_sign(wide.crop((left, 0, left + width, height)))


def skyline(height: int, width: int) -> Image.Image:
    """A harbour at dusk: gradients, straight edges and small lights."""
    random = np.random.default_rng(3)
    unit = height / DESIGNED_FOR
    rise = np.linspace(0, 1, height)[:, None, None]
    top, low = np.array([28, 34, 84.0]), np.array([250, 158, 96.0])
    sky = Image.fromarray(
        np.broadcast_to(top + (low - top) * rise**1.3, (height, width, 3)).astype(np.uint8)
    )
    draw = ImageDraw.Draw(sky)
    horizon = int(0.68 * height)
    x, y, radius = int(0.36 * width), int(0.5 * height), 46 * unit
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(255, 226, 164))
    for depth, colour, least, most in (
        (0, (120, 92, 122), 40, 120),
        (1, (72, 62, 100), 60, 190),
        (2, (36, 38, 66), 40, 250),
    ):
        left = -20 * unit
        while left < width:
            across = unit * int(random.integers(34, 84))
            up = unit * int(random.integers(least, most))
            draw.rectangle([left, horizon - up, left + across, horizon], fill=colour)
            if depth == 2:
                _windows(draw, random, left, horizon - up, across, up, unit)
            elif random.random() < 0.4:
                mast, roof = left + across // 2, horizon - up
                line = [mast, roof - 26 * unit, mast, roof]
                draw.line(line, fill=colour, width=round(3 * unit))
            left += across + unit * int(random.integers(0, 14))
    picture = np.asarray(sky).astype(float)
    depth = height - horizon
    mirrored = picture[horizon - depth : horizon][::-1] * [0.55, 0.6, 0.72]
    for row in range(depth):
        shift = int(unit * (4 * np.sin(row / unit / 2.7) + 2 * np.sin(row / unit / 1.1)))
        picture[horizon + row] = np.roll(mirrored[row], shift, axis=0)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.6)
    )


def _windows(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    left: float,
    roof: float,
    across: float,
    up: float,
    unit: float,
) -> None:
    """Lights in a house, six of ten windows lit."""
    for row in range(8, int(up / unit) - 10, 12):
        for column in range(6, int(across / unit) - 8, 11):
            if random.random() < 0.6:
                light = 150 + int(random.integers(0, 105))
                fill = (light, int(0.82 * light), int(0.45 * light))
                x, y = left + column * unit, roof + row * unit
                draw.rectangle([x, y, x + 4 * unit, y + 6 * unit], fill=fill)


def with_sign(picture: Image.Image) -> np.ndarray:
    """A sign in front, that the camera keeps in view; drawn into the picture."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    unit = height / DESIGNED_FOR
    left, right = int(0.47 * width), int(0.83 * width)
    top, bottom = int(0.49 * height), int(0.62 * height)
    for leg in (left + 30 * unit, right - 36 * unit):
        draw.rectangle([leg, bottom, leg + 6 * unit, bottom + 40 * unit], fill=(24, 26, 36))
    frame = round(3 * unit)
    box = [left, top, right, bottom]
    draw.rectangle(box, fill=(13, 59, 58), outline=(95, 227, 208), width=frame)
    font = ImageFont.load_default(size=31 * (right - left) / (0.36 * 640))
    middle = ((left + right) / 2, (top + bottom) / 2)
    draw.text(middle, "DeepFovea++", fill=(225, 255, 250), font=font, anchor="mm")
    return np.asarray(picture)
