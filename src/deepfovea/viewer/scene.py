"""A drawn video for demonstrations: free of rights, without people, the same in every run.

Positions are shares of the frame's width or height; lengths are pixels of a frame of
:data:`DESIGNED_FOR` rows; colours are RGB, 0 to 255. All of them were chosen by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

DESIGNED_FOR = 432
"""Rows of the frame for which the lengths are given; for other frames they are scaled."""
PAN_SHARE = 0.2
"""How far the camera pans, as a share of the frame's width."""
SEED = 3
"""Seed of the random houses and their windows."""

HORIZON = 0.68
SKY_TOP, SKY_LOW, SKY_CURVE = (28, 34, 84), (250, 158, 96), 1.3
"""Colours at the top and at the bottom, and the power of the height that mixes them."""
SUN_PLACE, SUN_RADIUS, SUN_COLOUR = (0.36, 0.5), 46, (255, 226, 164)

HOUSES = (
    ((120, 92, 122), (40, 120)),
    ((72, 62, 100), (60, 190)),
    ((36, 38, 66), (40, 250)),
)
"""Colour and range of heights of each row of houses, the farthest first."""
FIRST_HOUSE, HOUSE_WIDTHS, HOUSE_GAPS = -20, (34, 84), (0, 14)
MAST_SHARE, MAST_HEIGHT, MAST_WIDTH = 0.4, 26, 3
"""Share of the houses that have a mast, except those of the nearest row, and its size."""
WINDOW_WIDTH, WINDOW_HEIGHT, LIT_SHARE = 4, 6, 0.6
WINDOW_ROWS, WINDOW_COLUMNS = (8, 10, 12), (6, 8, 11)
"""Positions of windows in a house: the first one, the margin at the end, and their distance."""
LIGHT, LIGHT_TINT = (150, 255), (1.0, 0.82, 0.45)
"""Range of the brightness of a lit window, and the share of each colour in it."""

REFLECTION = (0.55, 0.6, 0.72)
"""Share of each colour that the water reflects."""
WAVES = ((4, 2.7), (2, 1.1))
"""Amplitude and length (over 2π) of the waves that shift the rows of the water."""
SMOOTHING = 0.6
"""Standard deviation, pixels, of the Gaussian that makes drawn edges as soft as a camera's."""

SIGN_X, SIGN_Y = (0.47, 0.83), (0.49, 0.62)
SIGN_COLOUR, SIGN_FRAME_COLOUR, SIGN_FRAME_WIDTH = (13, 59, 58), (95, 227, 208), 3
LEG_OFFSETS, LEG_WIDTH, LEG_HEIGHT, LEG_COLOUR = (30, -36), 6, 40, (24, 26, 36)
"""The sign's legs; the first offset counts from its left side, the second from its right side."""
TEXT, TEXT_COLOUR, TEXT_SIZE, TEXT_SIGN_WIDTH = "DeepFovea++", (225, 255, 250), 31, 0.36 * 640
"""The sign's text, and its font size on a sign of this width."""


def harbour(height: int, width: int, frames: int) -> Iterator[np.ndarray]:
    """Frames of a camera that pans over :func:`skyline` and back, with a sign: uint8 [H, W, 3].

    The last frame leads to the first one, so that the video can be repeated.
    """
    pan = round(PAN_SHARE * width)
    wide = skyline(height, width + pan)
    for number in range(frames):
        left = round(pan * (1 - math.cos(2 * math.pi * number / frames)) / 2)
        yield with_sign(wide.crop((left, 0, left + width, height)))


def skyline(height: int, width: int) -> Image.Image:
    """A harbour at dusk: gradients, straight edges and small lights."""
    random = np.random.default_rng(SEED)
    unit = height / DESIGNED_FOR
    rise = np.linspace(0, 1, height)[:, None, None]
    top, low = (np.array(colour, dtype=np.float64) for colour in (SKY_TOP, SKY_LOW))
    sky = Image.fromarray(
        np.broadcast_to(top + (low - top) * rise**SKY_CURVE, (height, width, 3)).astype(np.uint8)
    )
    draw = ImageDraw.Draw(sky)
    horizon = int(HORIZON * height)
    x, y = int(SUN_PLACE[0] * width), int(SUN_PLACE[1] * height)
    radius = SUN_RADIUS * unit
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=SUN_COLOUR)
    for row, (colour, heights) in enumerate(HOUSES, 1):
        left = FIRST_HOUSE * unit
        while left < width:
            across = unit * int(random.integers(*HOUSE_WIDTHS))
            up = unit * int(random.integers(*heights))
            draw.rectangle([left, horizon - up, left + across, horizon], fill=colour)
            if row == len(HOUSES):
                _windows(draw, random, left, horizon - up, across, up, unit)
            elif random.random() < MAST_SHARE:
                mast, roof = left + across // 2, horizon - up
                line = [mast, roof - MAST_HEIGHT * unit, mast, roof]
                draw.line(line, fill=colour, width=round(MAST_WIDTH * unit))
            left += across + unit * int(random.integers(*HOUSE_GAPS))
    picture = np.asarray(sky).astype(float)
    depth = height - horizon
    mirrored = picture[horizon - depth : horizon][::-1] * REFLECTION
    for row in range(depth):
        shift = int(unit * sum(most * np.sin(row / unit / length) for most, length in WAVES))
        picture[horizon + row] = np.roll(mirrored[row], shift, axis=0)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(SMOOTHING)
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
    """Draw the lit windows of a house."""
    top, bottom, down = WINDOW_ROWS
    first, last, aside = WINDOW_COLUMNS
    for row in range(top, int(up / unit) - bottom, down):
        for column in range(first, int(across / unit) - last, aside):
            if random.random() < LIT_SHARE:
                light = int(random.integers(*LIGHT))
                red, green, blue = (int(share * light) for share in LIGHT_TINT)
                x, y = left + column * unit, roof + row * unit
                box = [x, y, x + WINDOW_WIDTH * unit, y + WINDOW_HEIGHT * unit]
                draw.rectangle(box, fill=(red, green, blue))


def with_sign(picture: Image.Image) -> np.ndarray:
    """Draw a sign into the picture, at the same place in every frame."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    unit = height / DESIGNED_FOR
    left, right = (int(share * width) for share in SIGN_X)
    top, bottom = (int(share * height) for share in SIGN_Y)
    for side, offset in zip((left, right), LEG_OFFSETS, strict=True):
        leg = side + offset * unit
        foot = [leg, bottom, leg + LEG_WIDTH * unit, bottom + LEG_HEIGHT * unit]
        draw.rectangle(foot, fill=LEG_COLOUR)
    frame = round(SIGN_FRAME_WIDTH * unit)
    box = [left, top, right, bottom]
    draw.rectangle(box, fill=SIGN_COLOUR, outline=SIGN_FRAME_COLOUR, width=frame)
    font = ImageFont.load_default(size=TEXT_SIZE * (right - left) / TEXT_SIGN_WIDTH)
    middle = ((left + right) / 2, (top + bottom) / 2)
    draw.text(middle, TEXT, fill=TEXT_COLOUR, font=font, anchor="mm")
    return np.asarray(picture)
