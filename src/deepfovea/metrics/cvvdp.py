"""ColorVideoVDP through its authors' package cvvdp, which knows no gaze."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..config import InputError
from .base import Metric, Reference, Settings, needs

_unavailable = needs("pycvvdp", package="cvvdp", extra="cvvdp")


@lru_cache(maxsize=4)
def load_cvvdp(height: int, width: int, fov_deg: float | None = None, device: str = "cpu") -> Any:
    """A ``pycvvdp.cvvdp`` whose ``predict`` gives just-objectionable differences: 10 is equal.

    Mantiuk, Hanji, Ashraf, Asano and Chapiro 2024, "ColorVideoVDP: A visual difference predictor
    for image, video and display distortions". It judges every place as if the eye looked there, so
    that it counts a loss in the periphery that FovVideoVDP does not.

    Args:
        height: of the frames, pixels.
        width: likewise.
        fov_deg: horizontal angle that the frames fill; None: as pixels of ``standard_hmd``, as
            :func:`deepfovea.metrics.jod.load_jod` has it. Luminance is that of ``standard_hmd``.
        device: where it runs.

    Raises:
        InputError: the package is not installed.
    """
    missing = _unavailable(Settings())
    if missing:
        raise InputError(f"ColorVideoVDP {missing}")
    from pycvvdp import cvvdp, vvdp_display_geometry

    geometry = None
    if fov_deg is not None:
        geometry = vvdp_display_geometry((width, height), fov_horizontal=fov_deg)
    return cvvdp("standard_hmd", display_geometry=geometry, quiet=True, device=torch.device(device))


@torch.inference_mode()
def cvvdp_jod(prediction: Tensor, reference: Reference) -> float:
    """ColorVideoVDP of a clip, uint8 [T, 3, H, W], in JOD."""
    height, width = prediction.shape[-2:]
    settings = reference.settings
    metric = load_cvvdp(height, width, settings.fov_deg, settings.device)
    score, _ = metric.predict(
        prediction,
        reference.frames,
        dim_order="FCHW",
        frames_per_second=reference.frames_per_second,
    )
    return float(score)


def _details(settings: Settings) -> str:
    metric = load_cvvdp(192, 256, settings.fov_deg, settings.device)
    return str(metric.get_info_string()).strip('"')


CVVDP = Metric(
    name="cvvdp",
    label="ColorVideoVDP",
    better="higher",
    digits=2,
    definition="Mantiuk et al. 2024, without gaze",
    unit="JOD",
    scope="clip",
    function=cvvdp_jod,
    default=False,  # half a minute of a processor for 24 frames of 852x480
    unavailable=_unavailable,
    details=_details,
)
