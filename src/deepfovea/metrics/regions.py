"""Means of an error map over regions of a frame: rings around the gaze, and sampled or dropped
pixels; and the mean weighted by the eye's acuity.

Every pixel has one label, which encodes its ring and whether its low-resolution pixel was sampled.
Every region is a union of labels, so one pass over an error map gives the means of all regions.

Legend: h, w low resolution; H, W high resolution, H = scale · h. A low-resolution pixel covers a
block of scale × scale pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Density
from .acuity import acuity_mean
from .base import Reference

REGIONS: dict[str, tuple[int, ...]] = {
    "frame": (0, 1, 2, 3, 4, 5),
    "fovea": (0, 1),
    "blend": (2, 3),
    "periphery": (4, 5),
    "sampled": (0, 2, 4),
    "dropped": (1, 3, 5),
}
"""The labels of each region: 2 · ring + dropped."""


def label_map(distance: Tensor, mask: Tensor, density: Density, scale: int) -> Tensor:
    """The label of every high-resolution pixel.

    Args:
        distance: [h, w], the distance from the gaze by :func:`deepfovea.fovea.eccentricity_map`.
        mask: [h, w], 1 where sampled.
        density: its inner radius ends the fovea, its outer radius begins the periphery; the blend
            is between them.
        scale: H / h.

    Returns:
        int64 [H, W].
    """
    ring = (distance > density.inner).long() + (distance >= density.outer).long()
    return upsample_nearest(2 * ring + (mask == 0).long(), scale)


def region_labels(reference: Reference) -> Tensor:
    """:func:`label_map` of the first frame of a reference."""
    return label_map(
        reference.eccentricity[0], reference.mask[0, 0], reference.density, reference.scale
    )


def map_means(values: Tensor, reference: Reference) -> dict[str, float]:
    """The means of a map of the first frame over the regions, and as ``foveated`` its mean weighted
    by the eye's acuity, see :func:`deepfovea.metrics.acuity.acuity_weights`."""
    regions = region_means(values, reference.cached(region_labels))
    return {**regions, "foveated": acuity_mean(values, reference)}


def upsample_nearest(values: Tensor, scale: int) -> Tensor:
    """Repeat each pixel scale × scale times: [h, w] -> [scale · h, scale · w]."""
    return values.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def region_means(values: Tensor, labels: Tensor) -> dict[str, float]:
    """The mean of a map over each region.

    Args:
        values: [H, W], or smaller by the same margin on all sides, as a map of SSIM is, whose
            windows lie inside the frame.
        labels: [H, W], see :func:`label_map`.

    Returns:
        The means by the names of :data:`REGIONS`, computed in float64; nan for an empty region.
    """
    margin = (labels.shape[-1] - values.shape[-1]) // 2
    height, width = values.shape
    inside = labels[margin : margin + height, margin : margin + width].flatten()
    sums = torch.bincount(inside, values.flatten().double(), 6)
    pixels = torch.bincount(inside, minlength=6)
    return {
        name: float(sums[list(parts)].sum() / pixels[list(parts)].sum())
        for name, parts in REGIONS.items()
    }
