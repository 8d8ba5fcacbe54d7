"""A room of textured walls with a ball that rolls, seen by a camera that moves; built in code."""

from __future__ import annotations

from typing import Any

import mitsuba as mi
import numpy as np
from PIL import Image, ImageDraw, ImageFont

BALL_RADIUS = 0.9
FIELD_OF_VIEW = 55.0
"""Horizontal, degrees."""
SIGN = "FOVEATED\npath tracing\n1 of 5 pixels\nof 1 of 16"


def load_scene() -> Any:
    """The scene at the first frame; ``ball.to_world`` is set by :func:`place_ball`."""
    walls = {
        "floor": _rectangle([0, -1.5, 0], [1, 0, 0], -90, [6, 5], _tiles()),
        "back": _rectangle([0, 1.5, -4], [1, 0, 0], 0, [6, 3], _bricks()),
        "left": _rectangle([-6, 1.5, 0], [0, 1, 0], 90, [5, 3], _stripes()),
        "right": _rectangle([6, 1.5, 0], [0, 1, 0], -90, [5, 3], _stripes()),
        "sign": _rectangle([-0.4, 1.2, -3.9], [1, 0, 0], 0, [1.9, 1.2], _sign()),
    }
    lamp = _transform().translate([0, 4.4, 1]).rotate([1, 0, 0], 90).scale([3, 2, 1])
    return mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 5},
            "lamp": {
                "type": "rectangle",
                "to_world": lamp,
                "emitter": {"type": "area", "radiance": {"type": "rgb", "value": 9.0}},
            },
            "sky": {"type": "constant", "radiance": {"type": "rgb", "value": 0.25}},
            "box": {
                "type": "cube",
                "to_world": _transform()
                .translate([2.9, -0.6, -2.2])
                .rotate([0, 1, 0], 30)
                .scale(0.9),
                "bsdf": _diffuse(_checks()),
            },
            "ball": {"type": "sphere", "bsdf": _diffuse(_checks())},
            **walls,
        }
    )


def ball_to_world(t: int) -> np.ndarray:
    """The position and rotation of the ball at frame t: [4, 4], object to world."""
    x = -2.8 + 0.12 * t
    turn = -x / BALL_RADIUS
    rolled = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = BALL_RADIUS * rolled
    matrix[:3, 3] = [x, BALL_RADIUS - 1.5, -0.8]
    return matrix


def place_ball(scene: Any, t: int) -> None:
    """Move the ball to its position at frame t."""
    parameters = mi.traverse(scene)
    parameters["ball.to_world"] = mi.Transform4f(mi.Matrix4f(ball_to_world(t).tolist()))
    parameters.update()


def camera_to_world(t: int) -> np.ndarray:
    """The swaying camera at frame t: [4, 4]; it looks along its z axis, and y is up."""
    eye = np.array([0.05 * t - 0.5, 0.6 + 0.15 * np.sin(0.25 * t), 5.6])
    forward = np.array([0.02 * t - 0.4, 0.5, -4.0]) - eye
    forward /= np.linalg.norm(forward)
    left = np.cross([0.0, 1.0, 0.0], forward)
    left /= np.linalg.norm(left)
    matrix = np.eye(4)
    matrix[:3] = np.stack([left, np.cross(forward, left), forward, eye], 1)
    return matrix


def load_camera(height: int, width: int) -> Any:
    """A camera with a film of this size. The film is not used, but defines the pixels."""
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": FIELD_OF_VIEW,
            "fov_axis": "x",
            "film": {"type": "hdrfilm", "width": width, "height": height},
        }
    )


def place_camera(camera: Any, t: int) -> None:
    """Move the camera to its position at frame t."""
    # For a new camera Mitsuba would compile its kernels again, so this one is changed.
    parameters = mi.traverse(camera)
    parameters["to_world"] = mi.Transform4f(mi.Matrix4f(camera_to_world(t).tolist()))
    parameters.update()


def _transform() -> Any:
    return mi.ScalarTransform4f()


def _rectangle(
    center: list[float], axis: list[float], angle: float, half: list[float], texture: np.ndarray
) -> dict[str, Any]:
    return {
        "type": "rectangle",
        "to_world": _transform().translate(center).rotate(axis, angle).scale([*half, 1]),
        "bsdf": {"type": "twosided", "bsdf": _diffuse(texture)},
    }


def _diffuse(texture: np.ndarray) -> dict[str, Any]:
    bitmap = mi.Bitmap(np.ascontiguousarray(texture, np.float32))
    return {
        "type": "diffuse",
        "reflectance": {"type": "bitmap", "bitmap": bitmap, "raw": True},
    }


def _grain(height: int, width: int, color: tuple[float, float, float], seed: int) -> np.ndarray:
    """A plain colour with some fine and some coarse noise, [height, width, 3]."""
    random = np.random.default_rng(seed)
    noise = np.zeros((height, width))
    for cell in (1, 4, 16, 64):
        small = random.normal(size=(height // cell + 1, width // cell + 1))
        noise += np.kron(small, np.ones((cell, cell)))[:height, :width]
    image: np.ndarray = np.clip(np.array(color) * (1.0 + 0.09 * noise[..., None]), 0.02, 0.95)
    return image


def _tiles() -> np.ndarray:
    image = _grain(1024, 1024, (0.55, 0.47, 0.38), 1)
    y, x = np.mgrid[:1024, :1024] // 64
    image[(x + y) % 2 == 1] *= 0.55
    return image


def _bricks() -> np.ndarray:
    image = _grain(512, 1024, (0.6, 0.3, 0.22), 2)
    y, x = np.mgrid[:512, :1024]
    row = y // 32
    joint = (y % 32 < 3) | ((x + 32 * (row % 2)) % 64 < 3)
    shade = np.random.default_rng(3).uniform(0.7, 1.2, (17, 18))
    image *= shade[row, (x + 32 * (row % 2)) // 64][..., None]
    image[joint] = 0.7
    return image.clip(0.02, 0.95)


def _stripes() -> np.ndarray:
    image = _grain(512, 1024, (0.3, 0.42, 0.5), 4)
    x = np.arange(1024)
    image[:, (x // 12) % 4 == 0] *= 1.6
    return image.clip(0.02, 0.95)


def _checks() -> np.ndarray:
    image = _grain(256, 512, (0.75, 0.7, 0.2), 5)
    y, x = np.mgrid[:256, :512] // 32
    image[(x + y) % 2 == 1] = (0.1, 0.25, 0.55)
    return image


def _sign() -> np.ndarray:
    image = Image.new("RGB", (760, 480), (238, 232, 214))
    draw = ImageDraw.Draw(image)
    draw.rectangle((12, 12, 747, 467), outline=(40, 60, 120), width=8)
    font = ImageFont.load_default(84)
    draw.multiline_text((380, 240), SIGN, (30, 30, 40), font, "mm", spacing=18, align="center")
    return np.asarray(image, np.float32)[::-1] / 255
