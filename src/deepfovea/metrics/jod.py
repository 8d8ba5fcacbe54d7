"""FovVideoVDP by the optional package pyfvvdp, whose licence is CC BY-NC 4.0."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..config import InputError
from .base import Metric, Reference, Settings, needs
from .vdp import Predictor, describe, import_predictor, load_predictor

KEPT_BYTES = 2**30
"""Memory for sensitivities, bytes: 24 frames of 768×1024 need a fifth of it. Our choice."""

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

    class KeepsSensitivity(fvvdp):  # type: ignore[misc]
        """Computes the sensitivity of the eye once for all methods that are compared on a clip.

        It depends on the true frames and the gaze, not on the method, and takes half of the time.
        """

        def cached_sensitivity(self, *inputs: Any) -> Tensor:
            return _kept(super().cached_sensitivity, *inputs)

    metric = KeepsSensitivity if torch.device(device).type == "cpu" else fvvdp
    return load_predictor(
        metric, fvvdp_display_geometry, height, width, fov_deg, device, foveated=True
    )


class Kept:
    """Results of a function of tensors and numbers, found again by the content of its inputs."""

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.results: dict[bytes, Tensor] = {}
        self.bytes = 0

    def __call__(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """``function(*inputs)``, or a result of before; the caller must not change it."""
        digest = hashlib.blake2b()
        for value in inputs:
            if isinstance(value, Tensor):
                digest.update(repr((value.shape, value.dtype)).encode())
                digest.update(value.detach().cpu().contiguous().numpy().data)
            else:
                digest.update(repr(value).encode())
        key = digest.digest()
        if key not in self.results:
            result = function(*inputs)
            size = result.element_size() * result.numel()
            if self.bytes + size > self.limit_bytes:  # those of the clips before
                self.results.clear()
                self.bytes = 0
            self.results[key] = result
            self.bytes += size
        return self.results[key]


_kept = Kept()


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
