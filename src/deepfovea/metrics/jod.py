"""FovVideoVDP through the optional package pyfvvdp, whose licence is CC BY-NC 4.0."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ..config import InputError
from .base import Metric, Reference, Settings

Jod = Callable[[Tensor, Tensor, Tensor, float], float]
"""(video uint8 [T,3,H,W], truth uint8 [T,3,H,W], gaze_px [T,2] of H × W, frames/s) -> JOD."""


def load_jod(
    height: int, width: int, fov_deg: float | None = None, device: str | torch.device = "cpu"
) -> tuple[Jod, str]:
    """Foveated video quality in just-objectionable differences: 10 is equal, lower is worse.

    One JOD less is worse for 75 % of observers; very bad video may fall below 0. Mantiuk et al.
    2021, "FovVideoVDP: a visible difference predictor for wide field-of-view video". It follows
    the gaze from frame to frame; the first 250 ms look back at the first frame repeated.

    Args:
        height: of the frames, pixels.
        width: likewise.
        fov_deg: horizontal angle that the frames fill, on a display with square pixels. None:
            pyfvvdp's ``standard_hmd`` (1440 × 1600 pixels, 110° along the diagonal), of which
            the frames are the middle. Luminance is that of ``standard_hmd``.

    Returns:
        The metric and pyfvvdp's own description of it, to be quoted with every figure.

    Raises:
        InputError: pyfvvdp is not installed.
    """
    missing = _unavailable(Settings())
    if missing:
        raise InputError(f"FovVideoVDP {missing}")
    from pyfvvdp import fvvdp, fvvdp_display_geometry

    geometry = None
    if fov_deg is not None:
        geometry = fvvdp_display_geometry((width, height), fov_horizontal=fov_deg)
    metric = fvvdp(
        "standard_hmd",
        display_geometry=geometry,
        foveated=True,
        quiet=True,
        device=torch.device(device),
    )
    info = metric.get_info_string().strip('"')
    if fov_deg is not None:  # it goes on to name the display whose geometry was replaced
        info = info.replace("(standard_hmd)", f"(standard_hmd at {fov_deg:g}° across)")

    @torch.inference_mode()
    def jod(video: Tensor, truth: Tensor, gaze_px: Tensor, frames_per_second: float) -> float:
        score, _ = metric.predict(
            video,
            truth,
            dim_order="FCHW",
            frames_per_second=frames_per_second,
            fixation_point=gaze_px,
        )
        return float(score)

    return jod, info


def _unavailable(settings: Settings) -> str | None:
    try:
        import pyfvvdp  # noqa: F401
    except ImportError:
        return "needs pyfvvdp (CC BY-NC 4.0), which is missing: pip install 'deepfovea[jod]'"
    return None


_loaded = lru_cache(maxsize=4)(load_jod)


def _jod(prediction: Tensor, reference: Reference) -> float:
    height, width = prediction.shape[-2:]
    settings, scale = reference.settings, reference.scale
    metric, _ = _loaded(height, width, settings.fov_deg, settings.device)
    gaze_px = (reference.gaze_px + 0.5) * scale - 0.5  # of the high resolution
    return metric(prediction, reference.frames, gaze_px, reference.frames_per_second)


def _details(settings: Settings) -> str:
    return load_jod(192, 256, settings.fov_deg)[1]


JOD = Metric(
    name="jod",
    label="FovVideoVDP",
    better="higher",
    digits=2,
    definition="Mantiuk et al. 2021, gaze frame by frame",
    unit="JOD",
    scope="clip",
    function=_jod,
    default=False,  # it takes as long as everything else together
    unavailable=_unavailable,
    details=_details,
)
