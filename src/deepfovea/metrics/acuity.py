"""The eye's acuity by eccentricity, which weights the pixels in foveated metrics."""

from __future__ import annotations

import math

from torch import Tensor

from ..gaze import DEFAULT_DISPLAY, DisplayGeometry
from .base import Reference

CT0, ALPHA, E2_DEG = 1.0 / 64.0, 0.106, 2.3
"""Smallest contrast threshold; its growth with spatial frequency, degrees per cycle; and the
eccentricity in degrees at which acuity is half of that in the fovea: the fit of Geisler and Perry
1998."""


def cutoff_frequency(eccentricity_deg: Tensor) -> Tensor:
    """The highest visible spatial frequency at full contrast, cycles per degree.

    By Geisler and Perry 1998, "A real-time foveated multiresolution system for low-bandwidth video
    communication", the contrast threshold at frequency f and eccentricity e is
    CT(f, e) = CT0 · exp(α f (e + e2) / e2). It reaches 1, full contrast, at
    f = e2 · ln(1 / CT0) / (α (e + e2)), which is 39 cycles per degree in the fovea.
    """
    return E2_DEG * math.log(1.0 / CT0) / (ALPHA * (eccentricity_deg + E2_DEG))


def acuity_weights(reference: Reference) -> Tensor:
    """The weight of every pixel of the first frame of a reference, [H, W].

    It is the square of the local bandwidth, min(cutoff frequency, Nyquist frequency of the
    display)², which is the number of independent samples per unit of area that display and eye let
    through. The foveal signal-to-noise ratio of Lee, Pattichis and Bovik 2002, "Foveated video
    quality assessment", weights squared errors in this way. The frames fill ``settings.fov_deg``,
    or 40° if that is not given.
    """
    height, width = reference.frames.shape[-2:]
    fov_deg = reference.settings.fov_deg or DEFAULT_DISPLAY.horizontal_fov_deg
    display = DisplayGeometry(fov_deg, width, height)
    gaze_px = reference.output_gaze_px[0]
    cutoff = cutoff_frequency(display.eccentricity_deg(gaze_px, height, width))
    return cutoff.clamp(max=display.pixels_per_degree / 2.0).square()


def acuity_mean(values: Tensor, reference: Reference) -> float:
    """The mean of a map, weighted by :func:`acuity_weights`.

    Args:
        values: [H, W], or smaller by the same margin on all sides.
        reference: the map belongs to its first frame.
    """
    weights = reference.cached(acuity_weights)
    margin = (weights.shape[-1] - values.shape[-1]) // 2
    height, width = values.shape
    weights = weights[margin : margin + height, margin : margin + width].double()
    return float((values.double() * weights).sum() / weights.sum())
