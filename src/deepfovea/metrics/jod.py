"""FovVideoVDP by the optional package pyfvvdp, whose licence is CC BY-NC 4.0."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..config import InputError
from .base import Metric, Reference, Settings, needs
from .vdp import Predictor, describe, import_predictor, load_predictor

_unavailable = needs(
    "pyfvvdp", package="pyfvvdp (CC BY-NC 4.0)", extra="jod", import_it=import_predictor
)


@lru_cache(maxsize=4)
def load_jod(
    height: int, width: int, fov_deg: float | None = None, device: str | torch.device = "cpu"
) -> Predictor:
    """Load the predictor of foveated video quality in JOD: 10 is equal, lower is worse.

    Source: Mantiuk et al. 2021, "FovVideoVDP: a visible difference predictor for wide
    field-of-view video". JOD are just-objectionable differences: 75 % of observers prefer a video
    with one JOD more. Very bad video may fall below 0. The predictor follows the gaze from frame to
    frame; for the first 250 ms it assumes that the first frame was there before.

    Args:
        height: see :func:`deepfovea.metrics.vdp.load_predictor`.
        width: likewise.
        fov_deg: likewise.
        device: likewise.

    Raises:
        InputError: pyfvvdp is not installed.
    """
    missing = _unavailable(Settings())
    if missing:
        raise InputError(f"FovVideoVDP {missing}")
    from pyfvvdp import fvvdp, fvvdp_display_geometry

    return load_predictor(
        fvvdp, fvvdp_display_geometry, height, width, fov_deg, device, foveated=True
    )


def _jod(prediction: Tensor, reference: Reference) -> float:
    settings = reference.settings
    predictor = load_jod(*prediction.shape[-2:], settings.fov_deg, settings.device)
    gaze_px, rate = reference.output_gaze_px, reference.frames_per_second
    return predictor.jod(prediction, reference.frames, gaze_px, rate)


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
    details=describe(load_jod),
)
