"""Flicker: how much still parts of the original change from frame to frame in the result."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from .base import Metric, Reference

# All of these are our choice; tests/test_artifact_metrics.py shows what they distinguish.
STILL_DIFFERENCE = 3.0 / 255.0
"""A pixel is still if no channel around it changes by more than this: a few grey levels, the size
of noise and compression."""
NEIGHBOURHOOD = 9
"""Side in pixels of the square around a pixel in which nothing may change."""
NOISE_FLOOR = 1.0 / 255.0
"""Added to both changes, one grey level: smaller changes are invisible, and the ratio stays
finite."""
MIN_SHARE = 0.01
"""Smallest share of still pixels; a pair of frames with fewer gets no value."""


def still_pixels(reference: Reference) -> Tensor:
    """Which pixels of the original are still between two frames: bool [H, W]."""
    change = reference.frames.diff(dim=0).abs().amax(1, keepdim=True)
    around = F.max_pool2d(change, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2)
    return around[0, 0] <= STILL_DIFFERENCE


def flicker(prediction: Tensor, reference: Reference) -> float:
    """Mean absolute change of the still pixels, divided by their change in the original.

    Args:
        prediction: [2, 3, H, W], two consecutive frames; clamped to [0, 1] first.
        reference: the true ones.

    Returns:
        (change + 1/255) / (change of the original + 1/255): 1 for the original, more for a video
        that flickers, less for one that is steadier than the noise of the original; nan if there
        are hardly any still pixels.
    """
    still = reference.cached(still_pixels)
    if still.double().mean() < MIN_SHARE:
        return math.nan
    changes = [
        float(frames.diff(dim=0).abs().mean((0, 1))[still].double().mean()) + NOISE_FLOOR
        for frames in (prediction.clamp(0.0, 1.0), reference.frames)
    ]
    return changes[0] / changes[1]


FLICKER = Metric(
    name="flicker",
    label="flicker",
    better="lower",
    digits=3,
    definition="mean absolute change between frames over that of the original, where it rests; "
    "the original has 1",
    scope="pair",
    function=flicker,
)
