"""Traces rays at selected pixels, and computes the motion vectors of the surfaces they hit.

Legend: h, w the low resolution; N selected pixels; places (x, y) in low-resolution pixels, origin
at the centre of the top-left pixel.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .scene import FIELD_OF_VIEW, ball_to_world, camera_to_world

AREA = 0.5
"""Side of the square over which a sample is averaged, low-resolution pixels. It is two output
pixels, as published."""
NEAR, FAR = 0.01, 1000.0


def radiance(
    scene: Any, camera: Any, places: np.ndarray, paths: int, side: float, seed: int
) -> np.ndarray:
    """Linear RGB [N, 3] at places [N, 2], in pixels of the camera's film.

    Each is the mean of ``paths`` paths spread over a square with this side.
    """
    width, height = camera.film().size()
    count = len(places) * paths
    sampler = mi.load_dict({"type": "independent"})
    sampler.seed(seed, count)
    within = sampler.next_2d() - 0.5
    which = dr.arange(mi.UInt32, count) // paths
    x, y = (
        dr.gather(mi.Float, mi.Float(places[:, axis].astype(np.float32)), which) for axis in (0, 1)
    )
    film = mi.Point2f((x + side * within.x + 0.5) / width, (y + side * within.y + 0.5) / height)
    ray, weight = camera.sample_ray_differential(0.0, sampler.next_1d(), film, sampler.next_2d())
    color, _, _ = scene.integrator().sample(scene, sampler, ray)
    rgb = dr.select(dr.isfinite(weight * color), weight * color, 0.0)
    return np.stack(
        [np.array(channel).reshape(-1, paths).mean(1) for channel in (rgb.x, rgb.y, rgb.z)], 1
    )


def motion(scene: Any, camera: Any, t: int, jitter: tuple[float, float]) -> np.ndarray:
    """Motion [2, h, w] in pixels of the camera's film, from a point's position one frame ago.

    Each pixel has one primary hit. Points on the ball move with it; all others are at rest.
    """
    width, height = camera.film().size()
    y, x = np.mgrid[:height, :width]
    places = np.stack([x, y], -1).reshape(-1, 2) + np.asarray(jitter)
    film = mi.Point2f(
        mi.Float(((places[:, 0] + 0.5) / width).astype(np.float32)),
        mi.Float(((places[:, 1] + 0.5) / height).astype(np.float32)),
    )
    ray, _ = camera.sample_ray_differential(0.0, 0.5, film, mi.Point2f(0.5))
    hit = scene.ray_intersect(ray)
    points = np.array(hit.p).reshape(3, -1).T.astype(np.float64)
    ball = next(shape for shape in scene.shapes() if shape.id() == "ball")
    on_ball = np.array(hit.shape == mi.ShapePtr(ball)).reshape(-1)
    moved = ball_to_world(t - 1) @ np.linalg.inv(ball_to_world(t))
    before = points.copy()
    before[on_ball] = points[on_ball] @ moved[:3, :3].T + moved[:3, 3]
    was = project(before, t - 1, height, width)
    # The present position is that of the ray itself, which is exact; its projection is not.
    vectors: np.ndarray = (was - places).T.reshape(2, height, width).astype(np.float32)
    return vectors


def project(points: np.ndarray, t: int, height: int, width: int) -> np.ndarray:
    """Project points [N, 3] of the world to pixels [N, 2] of an h × w image of frame t."""
    local = np.concatenate([points, np.ones((len(points), 1))], 1)
    local = local @ np.linalg.inv(camera_to_world(t)).T
    # The camera looks along z, and x points to the left.
    focal = width / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    depth = local[:, 2].clip(NEAR, FAR)
    return np.stack(
        [
            width / 2 - focal * local[:, 0] / depth - 0.5,
            height / 2 - focal * local[:, 1] / depth - 0.5,
        ],
        1,
    )
