"""A drawn video of striped balls that roll over each other: many motions, and things hidden.

Lengths are shares of the frame's height; colours are RGB, 0 to 1. All of them are chosen by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

SEED, BALLS = 5, 10
RADII, SPREAD = (0.07, 0.17), (0.42, 0.34)
"""Of the balls; and how far from the middle they go, in shares of the frame's width and height."""
ROUNDS = (1, 2)
"""How often a ball goes round in one video, and turns about itself."""
STRIPES = 5.0
COLOURS = np.array(
    [
        [[0.93, 0.42, 0.22], [0.98, 0.87, 0.70]],
        [[0.10, 0.44, 0.56], [0.76, 0.91, 0.87]],
        [[0.44, 0.24, 0.56], [0.96, 0.79, 0.33]],
        [[0.18, 0.53, 0.30], [0.93, 0.93, 0.80]],
    ],
    np.float32,
)
"""Pairs of which a ball has its stripes."""
LIGHT = (-0.5, -0.62, 0.6)
"""Direction to the light: right, down, towards the eye."""
AMBIENT = 0.35
FLOOR, FLOOR_CONTRAST, TILE = (0.33, 0.36, 0.42), 0.25, 0.11
SHADOW, SHADOW_OFFSET = 0.55, 0.035
REACH = 1.8
"""Of a ball and its shadow, in radii."""
EDGE = 1.2
"""Pixels over which an edge fades, as with a camera."""


def balls(height: int, width: int, frames: int) -> Iterator[np.ndarray]:
    """Balls on a tiled floor, seen from above: uint8 [H, W, 3].

    The last frame leads to the first one, so the video can be repeated.
    """
    random = np.random.default_rng(SEED)
    radii = np.sort(random.uniform(*RADII, BALLS))
    phases = random.uniform(0, 2 * math.pi, (BALLS, 3))
    rounds = random.choice(ROUNDS, (BALLS, 3)) * random.choice((-1, 1), (BALLS, 3))
    y, x = np.mgrid[:height, :width].astype(np.float32) / height
    floor = _floor(x, y)
    for number in range(frames):
        turn = phases + rounds * (2 * math.pi * number / frames)
        picture = floor.copy()
        for ball, (radius, angle) in enumerate(zip(radii, turn, strict=True)):
            centre = (
                width / height * (0.5 + SPREAD[0] * math.cos(angle[0])),
                0.5 + SPREAD[1] * math.sin(angle[1]),
            )
            _paint(picture, centre, radius, angle[2], COLOURS[ball % len(COLOURS)])
        yield (255 * picture.clip(0, 1) + 0.5).astype(np.uint8)


def _floor(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tiles, [H, W, 3]."""
    waves = np.sin(math.pi * x / TILE) * np.sin(math.pi * y / TILE)
    tiles = np.tanh(8 * waves)[..., None] * FLOOR_CONTRAST
    grain = 0.12 * np.sin(61 * x + 7 * np.sin(23 * y))[..., None]
    tiled: np.ndarray = np.asarray(FLOOR, np.float32) * (1 + tiles + grain).astype(np.float32)
    return tiled


def _paint(
    frame: np.ndarray, centre: tuple[float, float], radius: float, angle: float, colours: np.ndarray
) -> None:
    """One ball and its shadow, into the frame [H, W, 3]; only the part that they cover."""
    height, width = frame.shape[:2]
    first, last = (
        [round(height * (place + side * radius * REACH)) for place in centre] for side in (-1, 1)
    )
    left, top = (max(0, place) for place in first)
    right, bottom = min(width, last[0]), min(height, last[1])
    picture = frame[top:bottom, left:right]
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / height
    across, down = (x - centre[0]) / radius, (y - centre[1]) / radius
    offset = SHADOW_OFFSET / radius
    beside = np.hypot(across - offset, down - offset)
    picture *= 1 - (1 - SHADOW) * np.clip((1.05 - beside) * 6, 0, 1)[..., None]
    distance = np.hypot(across, down)
    inside = np.clip((1 - distance) * radius * height / EDGE + 0.5, 0, 1)[..., None]
    up = np.sqrt(np.clip(1 - distance**2, 0, 1))
    # The stripes lie around an axis in the plane of the picture, and turn about it.
    stripe = np.sin(STRIPES * (np.arctan2(down, up + 1e-6) + angle) + 2 * across)
    share = (0.5 + 0.5 * np.tanh(6 * stripe))[..., None]
    colour = share * colours[0] + (1 - share) * colours[1]
    light = np.asarray(LIGHT) / np.linalg.norm(LIGHT)
    facing = np.clip(across * light[0] + down * light[1] + up * light[2], 0, 1)
    shade = AMBIENT + (1 - AMBIENT) * facing[..., None]
    picture += inside * (colour * shade - picture)
