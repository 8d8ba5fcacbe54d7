"""Baselines that fill the holes of each frame by a library and then upsample it (bicubic ×4).

Legend: n sampled pixels; h, w low resolution; H, W high resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import SCALE
from ..resample import upsample_bicubic

INPAINT_RADIUS = 3.0
"""Radius around a pixel that OpenCV uses, low-resolution pixels: that of OpenCV's own examples."""

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(samples float32 [h, w, 3] in [0, 1], known bool [h, w]) -> filled [h, w, 3]."""


def _frame_by_frame(fill: Fill, samples: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """Samples [B,T,3,h,w], mask [B,T,1,h,w] -> frames [B,T,3,H,W]; sampled pixels do not change."""
    flat, known = samples.flatten(0, 1).cpu(), mask.flatten(0, 1)[:, 0].cpu().numpy() > 0
    images = flat.permute(0, 2, 3, 1).float().numpy()
    filled = [
        np.where(k[..., None], image, fill(image, k) if k.any() else 0.0)
        for image, k in zip(images, known, strict=True)
    ]
    low = torch.from_numpy(np.stack(filled).astype(np.float32)).permute(0, 3, 1, 2)
    frames = upsample_bicubic(low.contiguous(), SCALE)
    return frames.reshape(*samples.shape[:3], *frames.shape[-2:]).to(samples.device), None


def telea_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, None]:
    """Baseline ``telea``: fast marching from the edges of each hole (Telea 2004), OpenCV."""
    import cv2

    return _frame_by_frame(_opencv(cv2.INPAINT_TELEA), samples, mask)


def navier_stokes_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, None]:
    """Baseline ``navier-stokes``: isophotes flow into the holes (Bertalmio et al. 2001), OpenCV."""
    import cv2

    return _frame_by_frame(_opencv(cv2.INPAINT_NS), samples, mask)


def _opencv(method: int) -> Fill:
    def fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
        import cv2

        holes = (~known).astype(np.uint8)
        pixels = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)  # OpenCV takes 8 bits only
        return np.asarray(cv2.inpaint(pixels, holes, INPAINT_RADIUS, method) / 255.0)

    return fill


def griddata_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, None]:
    """Baseline ``griddata-linear``: linear on a Delaunay triangulation, SciPy's ``griddata``.

    Pixels outside the convex hull of the samples get the nearest sample.
    """
    return _frame_by_frame(_griddata, samples, mask)


def _griddata(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    from scipy.interpolate import griddata
    from scipy.spatial import QhullError

    places, everywhere = np.argwhere(known), tuple(np.indices(known.shape))
    nearest: np.ndarray = griddata(places, image[known], everywhere, method="nearest")
    try:
        linear = griddata(places, image[known], everywhere, method="linear")
    except QhullError:  # fewer than three samples, or all on one line
        return nearest
    return np.where(np.isnan(linear), nearest, linear)


def natural_neighbour_frames(
    samples: Tensor, mask: Tensor, state: Any = None
) -> tuple[Tensor, None]:
    """Baseline ``natural-neighbour``: Sibson's interpolation, by the package startinpy.

    Sibson 1981, "A brief description of natural neighbour interpolation": each sample weighs as
    much as the area that the pixel's Voronoi cell would take from it. Where that area is unbounded,
    beside the convex hull of the samples and outside it, pixels get what ``griddata-linear`` gives.
    """
    return _frame_by_frame(_natural_neighbour, samples, mask)


def _natural_neighbour(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    from startinpy import DT

    filled = _griddata(image, known)
    samples, holes = np.argwhere(known).astype(float), np.argwhere(~known).astype(float)
    for channel, values in enumerate(image[known].T):
        triangulation = DT()
        triangulation.insert(np.column_stack([samples, values]))
        found = triangulation.interpolate({"method": "NNI"}, holes)
        filled[~known, channel] = np.where(np.isnan(found), filled[~known, channel], found)
    return filled


def biharmonic_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, None]:
    """Baseline ``biharmonic``: the smoothest continuation, scikit-image's ``inpaint_biharmonic``.

    Damelin and Hoang 2018, "On surface completion and image inpainting by biharmonic functions".
    """
    return _frame_by_frame(_biharmonic, samples, mask)


def _biharmonic(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    return np.asarray(inpaint_biharmonic(image, ~known, channel_axis=-1))
