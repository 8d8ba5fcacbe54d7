"""Training clips from photographs: a camera moves over a photograph, and an object in front of it.

The true motion in videos is not known. In these clips it is known exactly, also where it is fast,
and their detail has not suffered from video compression.

Legend: T frames, S side of the square crop, s = S / scale side at low resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import InputError

# All of these are our choice; no experiment of docs/research/log.md varies them.
STILL_SHARE = 0.15
"""Share of layers that do not move at all, as many cameras are fixed."""
SPEED_PX = (0.1, 14.0)
"""Range of the speeds of translation, high-resolution pixels per frame, drawn log-uniformly: from a
camera that hardly moves to one that crosses a crop of 256 in 18 frames."""
TURN_RAD = 0.006
"""Standard deviation of the rotation per frame, radians: a third of a degree."""
ZOOM = 0.004
"""Standard deviation of the logarithm of the change of scale per frame."""
SMOOTHNESS = 0.9
"""Share of a frame's velocity that the next frame keeps."""
TURNING_SHARE = 0.5
"""Share of the moving layers that also rotate and zoom."""
PICTURE_SCALES = (0.5, 1.0)
"""Range of the factors by which photographs are made smaller."""
MIDDLE = (0.3, 0.7)
"""Range, as shares of a photograph's sides, of the centre of a clip or an object."""
INITIAL_TURN_RAD = 0.1
"""Standard deviation of the camera's angle in its first frame, radians: six degrees."""
OBJECT_SHARE = 0.6
"""Share of clips with an object in front."""
OBJECT_RADII = (0.1, 0.35)
"""Range of the mean radius of objects, as shares of the crop's side."""
OBJECT_PLACE = 0.4
"""Largest distance of an object from the centre of the crop in the middle frame, per axis, as a
share of the crop's side."""
OUTLINE_WAVES, OUTLINE_AMPLITUDE = 5, 0.25
"""Number of waves that form the outline of an object, and the standard deviation of the amplitude
of the first wave, as a share of the mean radius; for wave k it is divided by k."""

Affine = NDArray[np.float64]
"""A 3 × 3 matrix from pixels (x, y, 1) of a frame to pixels of a photograph."""


@dataclass(frozen=True)
class AnimatedClip:
    """The frames, uint8 [T,S,S,3], and their motion, float32 [T,2,s,s].

    The motion leads from each low-resolution pixel to where it was one frame ago, (x, y) in
    low-resolution pixels. The first frame has motion too, as if a frame had been before it.
    """

    frames: NDArray[np.uint8]
    motion: NDArray[np.float32]


def animate(
    background: NDArray[np.uint8],
    foreground: NDArray[np.uint8],
    frames: int,
    side: int,
    rng: np.random.Generator,
    scale: int = 4,
) -> AnimatedClip:
    """Move a camera over one photograph, and in most clips a piece of another in front of it.

    Args:
        background: [H, W, 3], any size.
        foreground: [H', W', 3], from which a rounded piece is cut.
        frames: T.
        side: S, pixels, a multiple of the scale.
        rng: decides all random choices.
        scale: S / s.

    Raises:
        InputError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError(
            "clips from photographs need OpenCV, which is missing: pip install 'deepfovea[train]'"
        ) from None

    def view(picture: NDArray[np.uint8], to_picture: Affine, border: int) -> NDArray[np.uint8]:
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        seen: NDArray[np.uint8] = cv2.warpAffine(
            picture, to_picture[:2], (side, side), flags=flags, borderMode=border
        )
        return seen

    def shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Making it smaller hides the blur of its camera; it stays at least as large as the crop.
        least = side / min(picture.shape[:2])
        factor = max(float(rng.uniform(*PICTURE_SCALES)), min(least, 1.0))
        smaller: NDArray[np.uint8] = cv2.resize(
            picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA
        )
        return smaller

    scene = shrunk(background)
    path = _path(scene.shape[0], scene.shape[1], frames + 1, side, rng)
    layers: list[tuple[NDArray[np.uint8], list[Affine], NDArray[np.uint8] | None]]
    layers = [(scene, path, None)]
    if rng.random() < OBJECT_SHARE:
        piece = shrunk(foreground)
        shape = _blob(piece.shape[0], piece.shape[1], side, rng)
        layers.append((piece, _object_path(shape, frames + 1, side, rng), shape))

    made = np.empty((frames, side, side, 3), np.uint8)
    motion = np.empty((frames, 2, side // scale, side // scale), np.float32)
    for t in range(frames):
        for picture, to_picture, outline in layers:
            current, previous = to_picture[t + 1], to_picture[t]
            seen = view(picture, current, cv2.BORDER_REFLECT_101)
            layer_motion = _motion(current, previous, side, scale)
            if outline is None:
                made[t], motion[t] = seen, layer_motion
                continue
            opacity = view(outline, current, cv2.BORDER_CONSTANT)
            share = opacity[..., None].astype(np.float32) / 255.0
            made[t] = (share * seen + (1.0 - share) * made[t] + 0.5).astype(np.uint8)
            # A low-resolution pixel is the mean of the pixels in the middle of its block.
            half = scale // 2
            covered = opacity[half::scale, half::scale] >= 128
            motion[t] = np.where(covered, layer_motion, motion[t])
    return AnimatedClip(made, motion)


def _walk(frames: int, deviation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Positions of a point whose velocity changes smoothly and at random: [T], from 0 on."""
    velocity, place = rng.normal(0.0, deviation), np.zeros(frames)
    for t in range(1, frames):
        kick = rng.normal(0.0, deviation)
        velocity = SMOOTHNESS * velocity + (1.0 - SMOOTHNESS**2) ** 0.5 * kick
        place[t] = place[t - 1] + velocity
    return place


def _motion_of_camera(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The camera's x, y (pixels), angle (radians) and logarithm of scale: [T, 4]."""
    if rng.random() < STILL_SHARE:
        return np.zeros((frames, 4))
    speed = np.exp(rng.uniform(*np.log(SPEED_PX)))
    direction, calm = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 1.0)
    steady = speed * np.arange(frames) * calm
    wander = [_walk(frames, speed * (1.0 - calm) / 2.0**0.5, rng) for _ in range(2)]
    x, y = steady * np.cos(direction) + wander[0], steady * np.sin(direction) + wander[1]
    turns = rng.random() < TURNING_SHARE
    angle = _walk(frames, TURN_RAD if turns else 0.0, rng)
    return np.stack([x, y, angle, _walk(frames, ZOOM if turns else 0.0, rng)], 1)


def _affine(x: float, y: float, angle: float, scale: float, side: int) -> Affine:
    """The map from a frame, rotated and scaled about its centre, to a photograph at (x, y)."""
    cos, sin, middle = scale * np.cos(angle), scale * np.sin(angle), (side - 1) / 2.0
    turn = np.array([[cos, -sin, x], [sin, cos, y], [0.0, 0.0, 1.0]])
    to_middle = np.array([[1.0, 0.0, -middle], [0.0, 1.0, -middle], [0.0, 0.0, 1.0]])
    affine: Affine = turn @ to_middle
    return affine


def _path(
    height: int, width: int, frames: int, side: int, rng: np.random.Generator
) -> list[Affine]:
    x, y = rng.uniform(*MIDDLE) * width, rng.uniform(*MIDDLE) * height
    angle = rng.normal(0.0, INITIAL_TURN_RAD)
    return [
        _affine(x + dx, y + dy, angle + turn, float(np.exp(zoom)), side)
        for dx, dy, turn, zoom in _motion_of_camera(frames, rng)
    ]


def _blob(height: int, width: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The opacity of an object in a photograph: 255 inside, 0 outside, soft over two pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    middle = rng.uniform(*MIDDLE, 2) * (width, height)
    x, y = x - middle[0], y - middle[1]
    radius = rng.uniform(*OBJECT_RADII) * side
    angle = np.arctan2(y, x)
    edge = radius * sum(
        (
            rng.normal(0.0, OUTLINE_AMPLITUDE) / k * np.cos(k * angle + rng.uniform(0.0, 6.3))
            for k in range(1, OUTLINE_WAVES + 1)
        ),
        start=np.ones_like(angle),
    )
    opacity: NDArray[np.uint8] = (
        255.0 * ((edge - np.hypot(x, y)) / 2.0 + 0.5).clip(0.0, 1.0)
    ).astype(np.uint8)
    return opacity


def _object_path(
    shape: NDArray[np.uint8], frames: int, side: int, rng: np.random.Generator
) -> list[Affine]:
    rows, columns = np.nonzero(shape)
    if not len(rows):
        rows, columns = np.array([0]), np.array([0])
    # In the middle frame the object is certainly inside the crop.
    place = rng.uniform(-OBJECT_PLACE, OBJECT_PLACE, 2) * side
    moves = _motion_of_camera(frames, rng)
    moves = moves - moves[frames // 2]
    return [
        _affine(
            columns.mean() - place[0] + dx,
            rows.mean() - place[1] + dy,
            turn,
            float(np.exp(zoom)),
            side,
        )
        for dx, dy, turn, zoom in moves
    ]


def _motion(current: Affine, previous: Affine, side: int, scale: int) -> NDArray[np.float32]:
    """Low-resolution motion [2, s, s] from a frame to the one before."""
    back = np.linalg.inv(previous) @ current
    places = scale * np.arange(side // scale) + (scale - 1) / 2.0
    x, y = np.meshgrid(places, places)
    moved = np.tensordot(back[:2], np.stack([x, y, np.ones_like(x)]), 1)
    motion: NDArray[np.float32] = ((moved - np.stack([x, y])) / scale).astype(np.float32)
    return motion
