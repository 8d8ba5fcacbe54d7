"""How much brighter a frame is than the one before, from its samples alone.

Lamps flicker, cameras adjust, films fade. Without this, everything that was carried disagrees
with the new samples at once and is let go.
"""

from __future__ import annotations

from torch import Tensor

TOLERANCE = 0.02
"""Difference in [0, 1] at which a sample counts half, so that what moves does not decide."""
PASSES = 2
MOST = 2.0
"""Largest change from one frame to the next."""


def exposure_gain(samples: Tensor, mask: Tensor, reference: Tensor) -> Tensor:
    """The factor that the colours of the reference need now, one per channel for all of a frame.

    A ratio of means over the samples, which is repeated with each sample weighted by how well it
    is explained (reweighted least absolute deviations, as in Black and Anandan 1996). Where less
    than a half is explained in the end, it tends to 1: it is another scene.

    Args:
        samples: [B, 3, h, w] in [0, 1], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, h, w], the frame before, as well as it is known.

    Returns:
        [B, 3, 1, 1] in [1 / MOST, MOST]; 1 where nothing was sampled.
    """
    weight = mask
    for _ in range(PASSES):
        gain = _mean(samples * weight) / _mean(reference * weight)
        error = (samples - gain * reference).abs().mean(1, keepdim=True)
        weight = mask * TOLERANCE / (error + TOLERANCE)
    sure = (4.0 * _mean(weight) / _mean(mask) - 1.0).clamp(0.0, 1.0)
    return 1.0 + sure * (gain.clamp(1.0 / MOST, MOST) - 1.0)


def _mean(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, 1, 1], above 0."""
    # Of one layout of memory, so that sums are the same to the last bit whatever x came from.
    return x.contiguous().mean((2, 3), keepdim=True) + 1e-6
