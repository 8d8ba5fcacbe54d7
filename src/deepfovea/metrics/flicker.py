"""Flicker: whether what rests in the original changes from frame to frame in the result."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from .base import Metric, Reference

# Chosen, all of these; tests/test_artifact_metrics.py has what they tell apart.
STILL_DIFFERENCE = 3.0 / 255.0
"""A pixel rests where no channel of the pixels around it changes by more: a few grey levels, which
are noise and compression."""
NEIGHBOURHOOD = 9
"""Side in pixels of the square around a pixel in which nothing may change."""
NOISE_FLOOR = 1.0 / 255.0
"""Added to both changes, one grey level: changes below are not seen, and the ratio stays finite."""
MIN_SHARE = 0.01
"""Of a frame that must rest; less is not judged."""


def still_pixels(reference: Reference) -> Tensor:
    """Where the original rests between two frames: bool [H, W]."""
    change = reference.frames.diff(dim=0).abs().amax(1, keepdim=True)
    around = F.max_pool2d(change, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2)
    return around[0, 0] <= STILL_DIFFERENCE


def flicker(prediction: Tensor, reference: Reference) -> float:
    """Mean absolute change over the pixels that rest, relative to that of the original.

    Args:
        prediction: [2, 3, H, W], two consecutive frames; clamped to [0, 1] first.
        reference: the true ones.

    Returns:
        (change + 1/255) / (change of the original + 1/255): 1 for the original, more for what
        flickers, less for what is steadier than the original's noise; nan where hardly a pixel
        rests.
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
