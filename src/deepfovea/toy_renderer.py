"""A tiny renderer with exact motion vectors: a textured background, two sprites, a moving camera.

Tests and examples use it instead of a real renderer; it shows what a renderer has to provide. It
needs NumPy only.

Legend: h, w the low resolution; all positions are in its pixels (x right, y down, origin at the
centre of the top-left pixel); t the number of a frame; [..., 2] a position (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SCALE = 4
"""Output pixels per low-resolution pixel, along each axis."""

# The appearance of the scene. All of it is our choice.
SUBSAMPLES = 3
"""Points of the scene per output pixel, along each axis."""
CELLS = 64
"""Side of the grid of random colours that makes a texture; it repeats."""
OCTAVES = ((4.0, 0.5), (1.3, 0.3), (0.6, 0.2))
"""The octaves of each texture: the size of a grid cell in low-resolution pixels, and the share of
the colour."""
CONTRAST, TINT = 1.6, 0.2
"""Contrast of the textures (factor of the difference from grey), and the strength of the tints that
tell the sprites apart."""

# The motion of the scene. All of it is our choice, so that a small frame has all kinds of motion.
CAMERA = (-1.0, 0.45)
"""Velocity of the background (x, y), low-resolution pixels per frame at speed 1."""
SHAKE_PX, SHAKE_RATES = 1.5, (1.3, 1.9)
"""Shake of the camera: amplitude in low-resolution pixels at speed 1, and radians per frame along x
and y. It changes the velocity from frame to frame, so that the motion of another frame does not
fit."""
ORBIT, ORBIT_RATE, ORBIT_APART = 0.3, 0.25, 2.5
"""Orbit of the sprites: radius as a share of the shorter side, radians per frame at speed 1, and
radians between the two."""
SPIN_RATE = 0.06
"""Rotation of the square, radians per frame at speed 1."""
SPRITE_RADII = 7
"""The shorter side divided by the radius of the disc, or by half a side of the square."""


@dataclass(frozen=True)
class ToyRenderer:
    """A scene that is known at every point and time.

    Args:
        height: h.
        width: w.
        speed: mean speed of the camera, low-resolution pixels per frame; the sprites' speeds are
            proportional to it. 0: nothing ever moves.
        seed: decides the textures.
    """

    height: int = 48
    width: int = 64
    speed: float = 1.0
    seed: int = 0

    def truth(self, t: int) -> np.ndarray:
        """The output frame [3, 4h, 4w] in [0, 1]; each pixel is the mean of its area."""
        x, y = (np.arange(SCALE * side) for side in (self.width, self.height))
        middle = np.stack(np.meshgrid(x, y), -1)
        places = (middle + 0.5) / SCALE - 0.5
        return self._mean_color(places, SUBSAMPLES, 1 / SCALE, t)

    def samples(
        self, t: int, mask: np.ndarray | None = None, jitter: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """Low-resolution samples [4, h, w], RGBA in [0, 1]; alpha is 1 where ``mask`` is not 0.

        As in the published low resolution, a sample is the mean of an area of 2 × 2 output pixels,
        here around the pixel's centre plus the jitter. Only the sampled pixels are rendered.
        """
        known = np.ones((self.height, self.width)) if mask is None else np.asarray(mask)
        rows, columns = np.nonzero(known)
        places = np.stack([columns, rows], -1) + np.asarray(jitter)
        image = np.zeros((4, self.height, self.width), np.float32)
        image[:3, rows, columns] = self._mean_color(places, 2 * SUBSAMPLES, 2 / SCALE, t)
        image[3, rows, columns] = 1.0
        return image

    def motion(
        self, t: int, jitter: tuple[float, float] = (0.0, 0.0), scale: int = 1
    ) -> np.ndarray:
        """Motion [2, scale · h, scale · w] in low-resolution pixels, at the samples' positions."""
        places, nearest = self._at_pixels(t, jitter, scale)
        previous = self._previous(places, nearest, t)
        motion: np.ndarray = (previous - places).transpose(2, 0, 1).astype(np.float32)
        return motion

    def disoccluded(
        self, t: int, jitter: tuple[float, float] = (0.0, 0.0), scale: int = 1
    ) -> np.ndarray:
        """Bool [scale · h, scale · w], True where the point was hidden or outside one frame ago."""
        places, nearest = self._at_pixels(t, jitter, scale)
        previous = self._previous(places, nearest, t)
        size = np.array([self.width, self.height])
        outside = ((previous < -0.5) | (previous > size - 0.5)).any(-1)
        hidden: np.ndarray = outside | (self._nearest(previous, t - 1) != nearest)
        return hidden

    def _at_pixels(
        self, t: int, jitter: tuple[float, float], scale: int
    ) -> tuple[np.ndarray, np.ndarray]:
        x, y = (np.arange(scale * side) for side in (self.width, self.height))
        places = (np.stack(np.meshgrid(x, y), -1) + 0.5) / scale - 0.5 + np.asarray(jitter)
        return places, self._nearest(places, t)

    def _pose(self, layer: int, t: int) -> tuple[np.ndarray, float]:
        """Centre [2] and angle of a layer on the screen; 0 is the background, 1 disc, 2 square."""
        middle = np.array([self.width - 1, self.height - 1]) / 2
        phase = self.speed * t
        camera = np.array([along * phase for along in CAMERA])
        shake = [np.sin(SHAKE_RATES[0] * t), np.cos(SHAKE_RATES[1] * t)]
        camera = camera + SHAKE_PX * self.speed * np.array(shake)
        if layer == 0:
            return middle + camera, 0.0
        around = ORBIT_RATE * phase * (3 - 2 * layer) + ORBIT_APART * layer
        radius = ORBIT * min(self.height, self.width)
        place = radius * np.array([np.cos(around), np.sin(around)])
        return middle + place, SPIN_RATE * phase * (layer - 1)

    def _local(self, places: np.ndarray, layer: int, t: int) -> np.ndarray:
        """Convert positions on the screen to a layer's own coordinates."""
        centre, angle = self._pose(layer, t)
        local: np.ndarray = (places - centre) @ _rotation(-angle).T
        return local

    def _nearest(self, places: np.ndarray, t: int) -> np.ndarray:
        """The layer that is visible at each position."""
        radius = min(self.height, self.width) / SPRITE_RADII
        disc = (self._local(places, 1, t) ** 2).sum(-1) < radius**2
        square = (np.abs(self._local(places, 2, t)) < radius).all(-1)
        return np.where(square, 2, np.where(disc, 1, 0))

    def _previous(self, places: np.ndarray, nearest: np.ndarray, t: int) -> np.ndarray:
        """Where the points that are visible at the positions were one frame ago."""
        previous = np.empty_like(places)
        for layer in range(3):
            here = nearest == layer
            centre, angle = self._pose(layer, t - 1)
            previous[here] = self._local(places[here], layer, t) @ _rotation(angle).T + centre
        return previous

    def _color(self, places: np.ndarray, t: int) -> np.ndarray:
        nearest = self._nearest(places, t)
        color = np.empty((*places.shape[:-1], 3))
        for layer in range(3):
            here = nearest == layer
            local = self._local(places[here], layer, t)
            tint = TINT * np.roll([1.0, 0.0, -1.0], layer) * (layer > 0)
            color[here] = self._texture(local, layer) + tint
        return color.clip(0.0, 1.0)

    def _texture(self, local: np.ndarray, layer: int) -> np.ndarray:
        color = np.zeros((*local.shape[:-1], 3))
        for octave, (cell, share) in enumerate(OCTAVES):
            grid = np.random.default_rng([self.seed, layer, octave]).random((CELLS, CELLS, 3))
            first = np.floor(local / cell).astype(int)
            x, y = np.moveaxis(local / cell - first, -1, 0)[..., None]
            (i, j), (k, m) = (
                np.moveaxis(first % CELLS, -1, 0),
                np.moveaxis((first + 1) % CELLS, -1, 0),
            )
            upper = (1 - x) * grid[j, i] + x * grid[j, k]
            color += share * ((1 - y) * upper + y * ((1 - x) * grid[m, i] + x * grid[m, k]))
        return CONTRAST * (color - 0.5) + 0.5

    def _mean_color(self, places: np.ndarray, count: int, side: float, t: int) -> np.ndarray:
        """Means of the colour over squares around positions [..., 2]: float32 [3, ...]."""
        offsets = side * ((np.arange(count) + 0.5) / count - 0.5)
        total = np.zeros((*places.shape[:-1], 3))
        for y in offsets:
            for x in offsets:
                total += self._color(places + np.array([x, y]), t)
        return np.moveaxis(total / count**2, -1, 0).astype(np.float32)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
