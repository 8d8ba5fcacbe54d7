"""Baseline ``total-variation``: the frame of least total variation that agrees with the samples."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import SCALE
from ..fill import pull_push
from ..resample import upsample_bicubic

ITERATIONS = 200
"""Number of iterations; they start from the frame filled by pull-push. Our choice."""
STEP = 1.0 / math.sqrt(8.0)
"""σ and τ; the squared norm of the gradient by forward differences is at most 8."""


def total_variation_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, None]:
    """Samples [B,T,3,h,w], mask [B,T,1,h,w] -> frames [B,T,3,H,W]: frame by frame, bicubic ×4."""
    return upsample_bicubic(complete(samples, mask), SCALE), None


def complete(samples: Tensor, mask: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Fill the holes: minimise ∑ ‖∇u‖ among the u that equal the samples at the known pixels.

    The norm is taken over both directions and the three colours of a pixel (Blomgren and Chan
    1998, Bresson and Chan 2008). The algorithm is that of Chambolle and Pock 2011, "A first-order
    primal-dual algorithm for convex problems with applications to imaging", with θ = 1.

    Args:
        samples: [B, T, 3, h, w], 0 where not known.
        mask: [B, T, 1, h, w], 1 where known.
        iterations: number of updates of both variables.

    Returns:
        [B, T, 3, h, w].
    """
    known = mask > 0
    u = torch.where(known, samples, pull_push(samples, mask))
    ahead = u
    dual = samples.new_zeros(2, *u.shape)
    for _ in range(iterations):
        dual = dual + STEP * _gradient(ahead)
        dual = dual / dual.square().sum((0, 3), keepdim=True).sqrt().clamp(min=1.0)
        new = torch.where(known, samples, u + STEP * _divergence(dual))
        u, ahead = new, 2.0 * new - u
    return u.clamp(0.0, 1.0)


def total_variation(image: Tensor) -> Tensor:
    """The total variation of images, [..., 3, h, w] -> [...]."""
    return _gradient(image).square().sum((0, -3)).sqrt().sum((-2, -1))


def _gradient(u: Tensor) -> Tensor:
    """Forward differences along x and y, 0 at the far border: [..., h, w] -> [2, ..., h, w]."""
    return torch.stack([F.pad(u.diff(dim=-1), (0, 1)), F.pad(u.diff(dim=-2), (0, 0, 0, 1))])


def _divergence(p: Tensor) -> Tensor:
    """The negative adjoint of :func:`_gradient`."""
    x, y = p[0, ..., :, :-1], p[1, ..., :-1, :]
    along_x = F.pad(x, (0, 1)) - F.pad(x, (1, 0))
    return along_x + F.pad(y, (0, 0, 0, 1)) - F.pad(y, (0, 0, 1, 0))
