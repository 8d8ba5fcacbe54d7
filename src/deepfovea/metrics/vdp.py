"""The display that FovVideoVDP and ColorVideoVDP assume, and how to call their packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .base import Settings

DISPLAY = "standard_hmd"
"""A display that both packages describe: 1440 × 1600 pixels, 110° along the diagonal, 100 cd/m².
Its luminance is always used; its size only if no field of view is given."""
DESCRIBED_SIZE = (192, 256)
"""Height and width of the predictor whose description is quoted; the description is the same for
all sizes."""

_BARE_NAMES = ("interp", "third_party", "third_party.cpuinfo")
"""Modules in the folders of both packages, which these import as top-level modules."""


class Predictor(NamedTuple):
    """A visual difference predictor for one size of frames, and its description of itself."""

    jod: Callable[[Tensor, Tensor, Tensor | None, float], float]
    """(video uint8 [T,3,H,W], truth uint8 [T,3,H,W], gaze_px [T,2] of H × W, frames/s) -> JOD."""
    info: str
    """Its settings, which its authors ask to quote with every figure."""


def import_predictor(name: str) -> ModuleType:
    """Import ``pyfvvdp`` or ``pycvvdp`` so that both can be used in one process.

    Each of them puts its folder on Python's path and imports :data:`_BARE_NAMES` from there. The
    second one would get the modules of the first, and fail. Raises ImportError if the package is
    missing.
    """
    if sys.modules.get(name) is not None:
        return sys.modules[name]
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    path = list(sys.path)
    others = {bare: sys.modules.pop(bare) for bare in _BARE_NAMES if bare in sys.modules}
    sys.path.insert(0, str(Path(spec.origin).parent))
    try:
        return import_module(name)
    finally:
        sys.path[:] = path
        for bare in _BARE_NAMES:
            sys.modules.pop(bare, None)
        sys.modules.update(others)


def load_predictor(
    make: Callable[..., Any],
    make_geometry: Callable[..., Any],
    height: int,
    width: int,
    fov_deg: float | None,
    device: str | torch.device,
    **settings: Any,
) -> Predictor:
    """A predictor of one of the packages, for frames of one size.

    Args:
        make: the package's class of predictors.
        make_geometry: the package's class of display geometries.
        height: height of the frames, pixels.
        width: their width, pixels.
        fov_deg: horizontal angle that the frames fill, degrees, on a display with square pixels.
            None: the frames are in the middle of :data:`DISPLAY`.
        device: the device that computes.
        settings: further arguments of ``make``.
    """
    geometry = None if fov_deg is None else make_geometry((width, height), fov_horizontal=fov_deg)
    predictor = make(
        DISPLAY, display_geometry=geometry, quiet=True, device=torch.device(device), **settings
    )
    info = str(predictor.get_info_string()).strip('"')
    if fov_deg is not None:  # the text still names the display whose geometry was replaced
        info = info.replace(f"({DISPLAY})", f"({DISPLAY} at {fov_deg:g}° across)")

    @torch.inference_mode()
    def jod(
        video: Tensor, truth: Tensor, gaze_px: Tensor | None, frames_per_second: float
    ) -> float:
        fixation = {} if gaze_px is None else {"fixation_point": gaze_px}
        score, _ = predictor.predict(
            video, truth, dim_order="FCHW", frames_per_second=frames_per_second, **fixation
        )
        return float(score)

    return Predictor(jod, info)


def describe(load: Callable[..., Predictor]) -> Callable[[Settings], str]:
    """Make the attribute :attr:`Metric.details` of a predictor.

    If a field of view is given, the pixels per degree are left out of the text, as they differ with
    the size of the frames.
    """

    def details(settings: Settings) -> str:
        info = load(*DESCRIBED_SIZE, settings.fov_deg).info
        return info if settings.fov_deg is None else re.sub(r"[\d.]+ \[pix/deg\], ", "", info)

    return details
