"""PSNR and SSIM as Reich, Memmel and Grebe (2020) computed them, for comparison with their table.

Neither is what its name says. Do not print them beside correctly measured figures
(:mod:`deepfovea.metrics.pixel`) without saying so.
"""

from __future__ import annotations

from torch import Tensor

from .base import Metric, Reference

PSNR_EPS = 1e-8
"""Added to the mean squared error, as in their code."""


def published_psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """10 log10(m² / (MSE + 1e-8)), dB, where m is the largest value **of the prediction**.

    Values above 1 in the prediction therefore raise it. The correct peak is that of the signal,
    1.0: :func:`deepfovea.metrics.pixel.psnr`.

    Args:
        prediction: any shape; nothing is clamped.
        truth: the same shape.

    Returns:
        One value for all elements together: frames, channels and padding.
    """
    error = (prediction - truth).square().mean()
    return 10.0 * (prediction.max().square() / (error + PSNR_EPS)).log10()


def published_ssim(prediction: Tensor, truth: Tensor) -> Tensor:
    """2 μx μy · 2 σxy / ((μx² + μy²) (σx² + σy²)) with moments over all elements at once.

    It has no windows and no constants C1 and C2; the covariance σxy is divided by the number N of
    elements, the variances by N − 1. The correct one is :func:`deepfovea.metrics.pixel.ssim`.

    Args:
        prediction: any shape; nothing is clamped.
        truth: the same shape.

    Returns:
        One value; nan if both are black.
    """
    mean_x, mean_y = prediction.mean(), truth.mean()
    covariance = ((prediction - mean_x) * (truth - mean_y)).mean()
    luminance = 2.0 * mean_x * mean_y / (mean_x.square() + mean_y.square())
    return luminance * 2.0 * covariance / (prediction.var() + truth.var())


def _psnr(prediction: Tensor, reference: Reference) -> float:
    return float(published_psnr(prediction, reference.frames))


def _ssim(prediction: Tensor, reference: Reference) -> float:
    return float(published_ssim(prediction, reference.frames))


PSNR_PUBLISHED = Metric(
    name="psnr_published",
    label="PSNR as published",
    better="higher",
    digits=2,
    definition="peak is the prediction's maximum; items of six frames",
    unit="dB",
    scope="item",
    function=_psnr,
    group="published",
    table="published",
)
SSIM_PUBLISHED = Metric(
    name="ssim_published",
    label="SSIM as published",
    better="higher",
    digits=4,
    definition="one global correlation per item of six frames",
    scope="item",
    function=_ssim,
    group="published",
    table="published",
)
