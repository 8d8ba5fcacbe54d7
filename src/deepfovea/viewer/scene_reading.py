"""A drawn video of a page of text, for demonstrations: words, and no one's but our own.

Lengths are pixels of a frame of :data:`DESIGNED_FOR` rows; colours are RGB, 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

DESIGNED_FOR = 432
PAPER, INK, MARK = (244, 238, 222), (40, 38, 46), (176, 62, 40)
MARGIN, TITLE_SIZE, TEXT_SIZE, LINE_HEIGHT = 40, 40, 21, 31
SMOOTHING = 0.6
"""Pixels: of the Gaussian that makes drawn edges like those of a camera."""

TITLE = "Where you look"
TEXT = """You read one or two words at a time. The letters
beside them are guessed from what they might be,
and the eye jumps on, three or four times a second.

Look at a word: it is sampled almost whole. Look
at the next one: it was guessed until now, and comes
out clear within a frame or two. What you have left
stays clear for a while, as long as the network
remembers it and the page does not change.

Now keep your eye at rest and try to read the line
below without looking at it. On paper that fails, too:
the eye has a sharp spot of about two degrees, which
is as wide as your thumb at the end of your arm.

A renderer that knows where you look can leave out
most of the pixels elsewhere. Nobody reads there."""
"""Lines as they are set, our own words."""


def reading(height: int, width: int, frames: int) -> Iterator[np.ndarray]:
    """A camera that goes down a page of text and back: uint8 [H, W, 3].

    The last frame leads to the first one, so the video can be repeated.
    """
    whole = page_of_text(height, width)
    most = whole.height - height
    for number in range(frames):
        top = most * (1 - math.cos(2 * math.pi * number / frames)) / 2
        box = (0.0, top, float(width), top + height)
        yield np.asarray(whole.resize((width, height), Image.Resampling.BICUBIC, box))


def page_of_text(height: int, width: int) -> Image.Image:
    """The whole page, as wide as the frame and higher."""
    unit = height / DESIGNED_FOR
    lines = TEXT.split("\n")
    top = MARGIN + 2 * TITLE_SIZE
    rows = max(height, round(unit * (top + LINE_HEIGHT * len(lines) + MARGIN)))
    page = Image.new("RGB", (width, rows), PAPER)
    draw = ImageDraw.Draw(page)
    title = ImageFont.load_default(size=TITLE_SIZE * unit)
    draw.text((MARGIN * unit, MARGIN * unit), TITLE, fill=MARK, font=title)
    font = ImageFont.load_default(size=TEXT_SIZE * unit)
    for number, line in enumerate(lines):
        place = (MARGIN * unit, (top + LINE_HEIGHT * number) * unit)
        draw.text(place, line, fill=INK, font=font)
    return page.filter(ImageFilter.GaussianBlur(SMOOTHING))
