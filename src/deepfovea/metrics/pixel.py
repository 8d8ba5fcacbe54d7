"""PSNR, SSIM, L1 and MSE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import InputError
from .base import Metric, Reference
from .regions import map_means

MIN_MSE = 1e-10
"""Lower bound of the mean squared error, which gives 100 dB. Our choice, far below a level of 8
bits."""


def absolute_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """The map that :func:`l1` averages, [..., C, H, W] -> [..., H, W]: means over the channels."""
    return (prediction.clamp(0.0, 1.0) - truth).abs().mean(-3)


def squared_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """The map that :func:`mse` averages, [..., C, H, W] -> [..., H, W]: means over the channels."""
    return (prediction.clamp(0.0, 1.0) - truth).square().mean(-3)


def l1(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error per frame, 0 to 1, lower is better; arguments as for :func:`psnr`."""
    return absolute_error(prediction, truth).mean((-2, -1))


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error per frame, 0 to 1, lower is better; arguments as for :func:`psnr`."""
    return squared_error(prediction, truth).mean((-2, -1))


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per frame, dB, higher is better; RGB, peak 1.0.

    Args:
        prediction: [..., C, H, W]; clamped to [0, 1] first, as a screen would show it.
        truth: [..., C, H, W] in [0, 1].

    Returns:
        [...]; at most 100, also for equal frames, so that means stay finite.
    """
    return psnr_from_mse(mse(prediction, truth))


def psnr_from_mse(mse: Tensor) -> Tensor:
    """PSNR of mean squared errors, for a peak of 1.0."""
    return -10.0 * torch.log10(mse.clamp(min=MIN_MSE))


def ssim(prediction: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity per frame, -1 to 1, higher is better; RGB, peak 1.0.

    Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity", equation 13 with their window and constants: an 11 × 11 Gaussian of
    sigma 1.5, K1 = 0.01, K2 = 0.03, the mean over the windows that lie inside the frame and over
    the channels. Differentiable.

    Args:
        prediction: [..., C, H, W]; clamped to [0, 1] first, as a screen would show it.
        truth: [..., C, H, W] in [0, 1].

    Returns:
        [...]; 1 for equal frames.

    Raises:
        InputError: the frames are smaller than the window.
    """
    return ssim_map(prediction, truth).mean((-3, -2, -1))


SSIM_WINDOW, SSIM_SIGMA, SSIM_K = 11, 1.5, (0.01, 0.03)
"""Side and standard deviation of the window in pixels, and K1 and K2: Wang et al. 2004."""


def ssim_map(prediction: Tensor, truth: Tensor) -> Tensor:
    """:func:`ssim` of every window: [..., C, H, W] -> [..., C, H - 10, W - 10]."""
    height, width = truth.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise InputError(
            f"SSIM: received frames of {width}×{height} pixels; expected at least "
            f"{SSIM_WINDOW}×{SSIM_WINDOW}, its window"
        )
    rows = range(0, height - SSIM_WINDOW + 1, BAND_ROWS)
    bands = [slice(row, row + BAND_ROWS + SSIM_WINDOW - 1) for row in rows]
    return torch.cat(
        [_ssim_of_band(prediction[..., band, :], truth[..., band, :]) for band in bands], -2
    )


BAND_ROWS = 64
"""Rows of windows that are computed at a time, so that they stay in the processor's cache. Our
choice among 16, 32 and 64."""


def _ssim_of_band(prediction: Tensor, truth: Tensor) -> Tensor:
    x, y = prediction.clamp(0.0, 1.0), truth
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    mean_xx, mean_xy, mean_yy = mean_x * mean_x, mean_x * mean_y, mean_y * mean_y
    variances = _local_mean(x * x) + _local_mean(y * y) - mean_xx - mean_yy
    covariance = _local_mean(x * y) - mean_xy
    c1, c2 = (k**2 for k in SSIM_K)
    contrast = (2.0 * covariance + c2) / (variances + c2)
    return contrast * (2.0 * mean_xy + c1) / (mean_xx + mean_yy + c1)


def _local_mean(image: Tensor) -> Tensor:
    # Sums of shifted images take a tenth of the time of a convolution of one channel on the CPU.
    gauss = [
        math.exp(-((k - SSIM_WINDOW // 2) ** 2) / (2.0 * SSIM_SIGMA**2)) for k in range(SSIM_WINDOW)
    ]
    for axis in (-2, -1):
        inside = image.shape[axis] - SSIM_WINDOW + 1
        total = image.narrow(axis, 0, inside) * (gauss[0] / sum(gauss))
        for k in range(1, SSIM_WINDOW):
            total.add_(image.narrow(axis, k, inside), alpha=gauss[k] / sum(gauss))
        image = total
    return image


# --- as an evaluation computes them: over the frame and each of its regions ---------------------


def _l1(prediction: Tensor, reference: Reference) -> dict[str, float]:
    return map_means(absolute_error(prediction, reference.frames)[0], reference)


def _mse(prediction: Tensor, reference: Reference) -> dict[str, float]:
    return map_means(squared_error(prediction, reference.frames)[0], reference)


def _psnr(prediction: Tensor, reference: Reference) -> dict[str, float]:
    # One value at a time, as the logarithm of a vector may differ in its last digits.
    return {
        region: float(psnr_from_mse(torch.tensor(error).double()))
        for region, error in _mse(prediction, reference).items()
    }


def _ssim(prediction: Tensor, reference: Reference) -> dict[str, float]:
    return map_means(ssim_map(prediction, reference.frames).mean(-3)[0], reference)


PSNR = Metric(
    name="psnr",
    label="PSNR",
    better="higher",
    digits=2,
    definition="RGB, peak 1.0, clamped, nothing padded",
    unit="dB",
    scope="frame",
    function=_psnr,
    by_region=True,
)
SSIM = Metric(
    name="ssim",
    label="SSIM",
    better="higher",
    digits=4,
    definition="RGB, peak 1.0, clamped, 11x11 Gaussian of sigma 1.5 inside the frame",
    scope="frame",
    function=_ssim,
    by_region=True,
    min_side=SSIM_WINDOW,
)
L1 = Metric(
    name="l1",
    label="L1",
    better="lower",
    digits=4,
    definition="mean absolute error; RGB in [0, 1], clamped",
    scope="frame",
    function=_l1,
    group="psnr",
    by_region=True,
)
MSE = Metric(
    name="mse",
    label="MSE",
    better="lower",
    digits=5,
    definition="mean squared error; RGB in [0, 1], clamped",
    scope="frame",
    function=_mse,
    group="psnr",
    by_region=True,
)
