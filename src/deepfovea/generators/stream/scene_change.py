"""Changes of brightness and cuts, found from the samples of a frame alone.

When a lamp flickers, a camera adjusts its exposure or a film fades, the whole canvas disagrees with
the new samples but is still useful: its brightness has to be adapted. After a cut the canvas has to
be discarded, even where it happens to agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...resample import avg_pool_8

TOLERANCE = 0.02
"""Difference of colours in [0, 1] at which the weight of a sample has fallen to a half, so that
moving objects count little: five levels of 8 bits. No experiment varies it."""
REWEIGHTINGS = 2
"""How often the gain is estimated, each time with the samples weighted by how well the last
estimate explains them. No experiment varies it."""
UNEXPLAINED, EXPLAINED = 0.25, 0.5
"""Mean weight of the samples, 0 to 1: up to the first value the gain is ignored, from the second on
it is used in full. No experiment varies them."""
MAX_GAIN = 2.0
"""Largest ratio of brightness from one frame to the next. No experiment varies it."""
SAME_SCENE_RATIO, CUT_RATIO = 0.6, 0.75
"""Error of the canvas at the samples, divided by the error of one uniform colour: up to the first
value the whole canvas is kept, from the second on it is discarded. Experiment 50 of
docs/research/log.md chose both."""
PRIOR_WEIGHT = 2.0
"""Added to the error of the uniform colour, as a sum of differences in [0, 1] over a frame, so that
few samples alone cannot signal a cut. No experiment varies it."""
MIN_MEAN = 1e-6
"""Added to means so that none is 0 when it divides: far less than one level of 8 bits."""


def exposure_gain(samples: Tensor, mask: Tensor, reference: Tensor) -> Tensor:
    """Estimate the factor from the reference's colours to this frame's, one per channel.

    The estimate is a ratio of means over the samples. It is repeated with each sample weighted by
    how well the gain explains it (reweighted least absolute deviations, as in Black and Anandan
    1996). If it explains less than half of the samples in the end, the scene is another one, and
    the gain goes to 1.

    Args:
        samples: [B, 3, h, w] in [0, 1], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, h, w], the best estimate of the frame before.

    Returns:
        [B, 3, 1, 1] in [1 / MAX_GAIN, MAX_GAIN]; 1 where nothing was sampled.
    """
    weight = mask
    for _ in range(REWEIGHTINGS):
        gain = _mean(samples * weight) / _mean(reference * weight)
        error = (samples - gain * reference).abs().mean(1, keepdim=True)
        weight = mask * TOLERANCE / (error + TOLERANCE)
    explained = _mean(weight) / _mean(mask)
    confidence = ((explained - UNEXPLAINED) / (EXPLAINED - UNEXPLAINED)).clamp(0.0, 1.0)
    return 1.0 + confidence * (gain.clamp(1.0 / MAX_GAIN, MAX_GAIN) - 1.0)


def scene_continuity(samples: Tensor, mask: Tensor, color: Tensor, confidence: Tensor) -> Tensor:
    """Estimate whether a frame continues the scene of the one before.

    After a cut, the warped canvas explains the samples about as badly as one uniform colour does.
    Both errors are taken of means over 8×8 pixels, so that noise, or motion that is wrong by a
    pixel, does not look like a cut.

    Args:
        samples: [B, 3, h, w] in [0, 1], 0 where not sampled; h, w at least 8.
        mask: [B, 1, h, w], 1 where sampled.
        color: [B, 3, h, w], the canvas, warped to this frame, at the samples.
        confidence: [B, 1, h, w] in [0, 1], the confidence of ``color``.

    Returns:
        [B, 1, 1, 1]: 1 for the same scene, 0 after a cut, in between if in doubt; 1 without any
        evidence.
    """
    known = mask * confidence
    cells = avg_pool_8(torch.cat([samples * known, color * known, known], 1))
    new, old, weight = torch.split(cells, [3, 3, 1], 1)
    missed = _mean((new - old).abs())
    plain = _mean(new) / _mean(weight)
    missed_by_plain = _mean((new - plain * weight).abs() + TOLERANCE * weight)
    prior = PRIOR_WEIGHT / (mask.shape[-2] * mask.shape[-1])
    ratio = missed.mean(1, keepdim=True) / (missed_by_plain.mean(1, keepdim=True) + prior)
    return ((CUT_RATIO - ratio) / (CUT_RATIO - SAME_SCENE_RATIO)).clamp(0.0, 1.0)


def _mean(x: Tensor) -> Tensor:
    """Mean over the frame plus a little: [B, C, h, w] -> [B, C, 1, 1], above 0 for x ≥ 0."""
    # Contiguous, as sums in another memory layout may differ in the last bit.
    return x.contiguous().mean((2, 3), keepdim=True) + MIN_MEAN
