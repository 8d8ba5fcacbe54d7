"""Optical flow: the type of estimators, warping by a flow, and the estimator DIS of OpenCV."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .config import InputError
from .resample import bilinear_sample, pixel_grid

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""(previous [B,3,h,w], current [B,3,h,w]) -> backward flow [B,2,h,w] in pixels (x, y)."""

MIN_DIS_SIDE = 12
"""Smallest side in pixels of images that OpenCV's DIS accepts."""


def backward_warp(image: Tensor, flow: Tensor) -> Tensor:
    """Read, for every pixel p, the value of ``image`` at p + flow(p), bilinear, border repeated.

    Args:
        image: [B, C, h, w].
        flow: [B, 2, h, w] in pixels, (x, y).

    Returns:
        [B, C, h, w].
    """
    # The grid is made for the image, not for the flow, as several flows often warp one image: then
    # an exported graph makes the grid once.
    return bilinear_sample(flow + pixel_grid(image, *image.shape[-2:]), image)


def dis_flow(previous: Tensor, current: Tensor) -> Tensor:
    """Backward optical flow by dense inverse search (Kroeger et al. 2016), from OpenCV.

    Args:
        previous: [B, 3, h, w] in [0, 1].
        current: [B, 3, h, w] in [0, 1].

    Returns:
        [B, 2, h, w] pixels: ``previous`` at p + flow(p) shows what ``current`` shows at p.

    Raises:
        InputError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError(
            "DIS optical flow needs OpenCV, which is missing: pip install 'deepfovea[eval]'"
        ) from None
    if max(current.shape[-2:]) < MIN_DIS_SIDE:
        return torch.zeros_like(current[:, :2])
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601

    def gray(image: Tensor) -> np.ndarray:
        pixels = image.detach().permute(1, 2, 0).float().cpu().numpy() @ weights
        return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    flows = [solver.calc(gray(c), gray(p), None) for p, c in zip(previous, current, strict=True)]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(previous)
