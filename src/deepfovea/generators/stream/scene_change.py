"""Changes of brightness and cuts, found from the samples of a frame alone.

When lamps flicker, cameras adjust or films fade, everything that was carried disagrees with the new
samples at once, and is still useful. After a cut it has to be discarded, even where it happens to
agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...resample import avg_pool_8

TOLERANCE = 0.02
"""Difference of colours in [0, 1] at which a sample counts half, so that what moves does not
decide: five levels of 8 bits. No experiment varies it."""
REWEIGHTINGS = 2
"""Times that the samples are weighted anew by how well they are explained. No experiment varies
it."""
UNEXPLAINED, EXPLAINED = 0.25, 0.5
"""Mean weight of the samples, 0 to 1, up to which the gain is not believed, and from which it is
wholly. No experiment varies them."""
MAX_GAIN = 2.0
"""Largest ratio of brightness from one frame to the next. No experiment varies it."""
SAME_SCENE_RATIO, CUT_RATIO = 0.6, 0.75
"""How far what was carried misses the colours of cells, divided by how far one plain colour does:
up to the first it is kept wholly, from the second not at all. Experiment 50 of
docs/research/log.md chose both."""
PRIOR_WEIGHT = 2.0
"""Added to how far the plain colour misses the samples, a sum of differences in [0, 1] over a
frame: few samples are no evidence. No experiment varies it."""
MIN_MEAN = 1e-6
"""Added to means, so that none that is divided by is 0: a colour that no 8 bits can show."""


def exposure_gain(samples: Tensor, mask: Tensor, reference: Tensor) -> Tensor:
    """The factor from the colours of the reference to those of this frame, one per channel.

    A ratio of means over the samples, which is repeated with each sample weighted by how well it
    is explained (reweighted least absolute deviations, as in Black and Anandan 1996). Where less
    than a half is explained in the end, it tends to 1: it is another scene.

    Args:
        samples: [B, 3, h, w] in [0, 1], 0 where not sampled.
        mask: [B, 1, h, w], 1 where sampled.
        reference: [B, 3, h, w], the frame before, as well as it is known.

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
    """1 if a frame continues the scene of the one before, 0 after a cut, between if in doubt.

    After a cut, what was carried explains the samples about as badly as one plain colour would.
    Both are compared by means of 8×8 pixels, so that noise, and motion wrong by a pixel, do not
    look like a cut.

    Args:
        samples: [B, 3, h, w] in [0, 1], 0 where not sampled; h, w at least 8.
        mask: [B, 1, h, w], 1 where sampled.
        color: [B, 3, h, w], what was carried to here.
        confidence: [B, 1, h, w] in [0, 1], of that.

    Returns:
        [B, 1, 1, 1]; 1 where there is no evidence.
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
    """[B, C, h, w] -> [B, C, 1, 1], above 0."""
    # Of one layout of memory, so that sums are the same to the last bit whatever x came from.
    return x.contiguous().mean((2, 3), keepdim=True) + MIN_MEAN
