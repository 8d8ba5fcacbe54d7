"""ColorVideoVDP by its authors' package cvvdp; it does not use the gaze."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..config import InputError
from .base import Metric, Reference, Settings, needs
from .vdp import Predictor, describe, import_predictor, load_predictor

_unavailable = needs("pycvvdp", package="cvvdp", extra="cvvdp", import_it=import_predictor)


@lru_cache(maxsize=4)
def load_cvvdp(
    height: int, width: int, fov_deg: float | None = None, device: str | torch.device = "cpu"
) -> Predictor:
    """Load the predictor of video quality in colour, in JOD: 10 is equal, lower is worse.

    Source: Mantiuk, Hanji, Ashraf, Asano and Chapiro 2024, "ColorVideoVDP: A visual difference
    predictor for image, video and display distortions". JOD are just-objectionable differences. It
    treats every place as if the eye looked there, so unlike FovVideoVDP it penalises losses in the
    periphery that the eye would not see.

    Args:
        height: see :func:`deepfovea.metrics.vdp.load_predictor`.
        width: likewise.
        fov_deg: likewise.
        device: likewise.

    Raises:
        InputError: the package is not installed.
    """
    missing = _unavailable(Settings())
    if missing:
        raise InputError(f"ColorVideoVDP {missing}")
    from pycvvdp import cvvdp, vvdp_display_geometry

    return load_predictor(cvvdp, vvdp_display_geometry, height, width, fov_deg, device)


def cvvdp_jod(prediction: Tensor, reference: Reference) -> float:
    """ColorVideoVDP of a clip, uint8 [T, 3, H, W], in JOD."""
    settings = reference.settings
    predictor = load_cvvdp(*prediction.shape[-2:], settings.fov_deg, settings.device)
    return predictor.jod(prediction, reference.frames, None, reference.frames_per_second)


CVVDP = Metric(
    name="cvvdp",
    label="ColorVideoVDP",
    better="higher",
    digits=2,
    definition="Mantiuk et al. 2024, without gaze",
    unit="JOD",
    scope="clip",
    function=cvvdp_jod,
    default=False,  # it takes half a minute on one processor for 24 frames of 852x480
    unavailable=_unavailable,
    details=describe(load_cvvdp),
)
