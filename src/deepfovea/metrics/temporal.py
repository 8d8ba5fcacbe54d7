"""Temporal metrics: errors between consecutive frames, which no single frame shows.

Each function compares one pair of consecutive frames, the earlier one first; the value of a clip is
the mean over its pairs. Frames are [3, H, W], sRGB in [0, 1].
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from ..config import InputError
from ..flow import FlowEstimator, backward_warp
from ..losses.flow import clip_flow, flow_estimator
from .base import Metric, Reference, Settings, needs


def true_flow(earlier: Tensor, later: Tensor, estimator: FlowEstimator) -> tuple[Tensor, Tensor]:
    """Estimate the flow between two true frames, and the occlusion, for :func:`e_warp`.

    Returns:
        The flow [2, H, W] in pixels, from the earlier frame to the later one, and the occlusion
        [1, H, W], True where a pixel is not visible in the later frame
        (:func:`deepfovea.losses.flow.occlusion_mask`).
    """
    clip = earlier.new_empty((1, 2, *earlier.shape))
    clip[0, 0], clip[0, 1] = earlier, later
    flow, occlusion = clip_flow(clip, estimator)
    return flow[0, 0], occlusion[0, 0]


def e_warp(earlier: Tensor, later: Tensor, flow: Tensor, occlusion: Tensor) -> float:
    """Warping error E_warp, 0 to 1, lower is steadier; blur lowers it too.

    It is the mean squared difference, over the visible pixels and the channels, between the earlier
    frame and the later one warped back onto it along the *true* motion (Lai, Huang, Wang,
    Shechtman, Yumer and Yang 2018, "Learning blind video temporal consistency", as in their
    evaluate_WarpError.py).

    Args:
        earlier: a frame of the video that is scored; clamped to [0, 1] first.
        later: the frame after it.
        flow: the flow of the true frames, from :func:`true_flow`.
        occlusion: likewise.

    Returns:
        The error; 0 if no pixel is visible, as in their code.
    """
    warped = backward_warp(later[None].clamp(0.0, 1.0), flow[None])[0]
    visible = ~occlusion
    error = (warped - earlier.clamp(0.0, 1.0)).square() * visible
    return float(error.double().sum() / (visible.sum() * len(error)).clamp(min=1))


FARNEBACK: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,  # pixels
    "iterations": 3,
    "poly_n": 5,  # pixels
    "poly_sigma": 1.2,  # pixels
    "flags": 0,
}
"""The arguments for OpenCV in TecoGAN's metrics.py."""
CROP_MARGIN, CROP_MULTIPLE = 8, 32
"""TecoGAN's crop_8x8 cuts off at least this margin in pixels, so that the rest is a multiple of the
second number."""


def farneback_flow(earlier: Tensor, later: Tensor) -> np.ndarray:
    """The flow for :func:`t_of`: Farnebäck 2003 with TecoGAN's settings, on 8-bit grey frames.

    Returns:
        [H, W, 2] in pixels, from the earlier frame to the later one.

    Raises:
        InputError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError(
            "tOF needs OpenCV, which is missing: pip install 'deepfovea[eval]'"
        ) from None

    def gray(frame: Tensor) -> np.ndarray:
        rgb = (frame.clamp(0.0, 1.0) * 255.0 + 0.5).byte().permute(1, 2, 0).contiguous()
        return np.asarray(cv2.cvtColor(rgb.cpu().numpy(), cv2.COLOR_RGB2GRAY))

    return np.asarray(
        cv2.calcOpticalFlowFarneback(gray(earlier), gray(later), flow=None, **FARNEBACK)
    )


def t_of(flow: np.ndarray, true_flow: np.ndarray) -> float:
    """tOF, pixels, 0 or more, lower is better: how far the motion differs from the true motion.

    It is the mean length of the difference of two flows (Chu, Xie, Mayer, Leal-Taixé and Thuerey
    2020, "Learning temporal coherence via self-supervision for GAN-based video generation",
    as in TecoGAN's metrics.py, which leaves out a border of 8 to 24 pixels).

    Args:
        flow: [H, W, 2] from :func:`farneback_flow`, of the video that is scored.
        true_flow: likewise, of the true frames.
    """
    middle = tuple(map(_inner, flow.shape[:2]))
    return float(np.linalg.norm(flow[middle] - true_flow[middle], axis=-1).mean())


def _inner(side: int) -> slice:
    """The middle part of a side: the largest multiple of 32 that leaves 8 pixels at each end."""
    kept = (side - 2 * CROP_MARGIN) // CROP_MULTIPLE * CROP_MULTIPLE
    start = (side - kept) // 2
    return slice(start, start + kept) if kept > 0 else slice(None)


def t_lpips(distance: float, true_distance: float) -> float:
    """tLPIPS (tLP), 0 or more, lower is better: the change between frames against the true change.

    It is 100 · |LPIPS(out_t-1, out_t) - LPIPS(truth_t-1, truth_t)| (Chu et al. 2020, see
    :func:`t_of`).

    Args:
        distance: LPIPS between two consecutive frames of the video that is scored.
        true_distance: LPIPS between the same true frames.
    """
    return 100.0 * abs(distance - true_distance)


_needs_opencv = needs("cv2", package="OpenCV", extra="eval")
_estimator = lru_cache(maxsize=1)(flow_estimator)


def _unavailable(settings: Settings) -> str | None:
    missing = _needs_opencv(settings)
    if missing is None:  # an unknown estimator, or one without its weights, is an error
        _estimator(settings.flow, settings.flow_weights)
    return missing


def _true_flow(reference: Reference) -> tuple[Tensor, Tensor]:
    settings = reference.settings
    earlier, later = reference.frames
    return true_flow(earlier, later, _estimator(settings.flow, settings.flow_weights))


def _e_warp(prediction: Tensor, reference: Reference) -> float:
    earlier, later = prediction
    return e_warp(earlier, later, *reference.cached(_true_flow))


def _true_e_warp(reference: Reference) -> float:
    return _e_warp(reference.frames, reference)


def _true_farneback(reference: Reference) -> np.ndarray:
    return farneback_flow(*reference.frames)


def _t_of(prediction: Tensor, reference: Reference) -> float:
    return t_of(farneback_flow(*prediction), reference.cached(_true_farneback))


E_WARP = Metric(
    name="e_warp",
    label="E_warp",
    better="lower",
    digits=5,
    definition="Lai et al. 2018; flow and occlusion from the true frames",
    scope="pair",
    function=_e_warp,
    group="temporal",
    unavailable=_unavailable,
)
E_WARP_ORIGINAL = Metric(
    name="e_warp_original",
    label="E_warp of the original",
    better="lower",
    digits=5,
    definition="that of the true frames",
    scope="pair",
    function=lambda prediction, reference: reference.cached(_true_e_warp),
    group="temporal",
    table="none",
    unavailable=_unavailable,
)
T_OF = Metric(
    name="t_of",
    label="tOF",
    better="lower",
    digits=3,
    definition="Chu et al. 2020 (TecoGAN), Farneback flow",
    unit="px",
    scope="pair",
    function=_t_of,
    group="temporal",
    unavailable=_needs_opencv,
)
