"""Baseline ``low-rank``: causal completion of a video as a tensor of low rank.

The frames are slices of a tensor of rank R, X_s = A diag(γ_s) Bᵀ; each colour channel of a frame is
one slice s, and all slices share A and B. The method is that of Kasai 2016, "Online low-rank tensor
subspace tracking from incomplete data by CP decomposition using recursive least squares" (OLSTEC):
for a new slice, γ is found by ridge regression on its samples; then each row of A and of B is the
recursive least-squares solution over all slices so far, with exponentially falling weights.

Legend: S = 3 slices of a frame; h, w low resolution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import SCALE
from ..fill import pull_push
from ..resample import upsample_bicubic

# All of these are our choice.
RANK = 16
"""R."""
FORGETTING = 0.9
"""λ of the recursive least squares: the share of a frame's weight that is left one frame later."""
RIDGE = 0.01
"""μ, for colours in [0, 1]: without it a row with fewer samples than the rank has no solution."""
SWEEPS = 3
"""For each frame, γ, A and B are updated in turn this many times."""


class Factors(NamedTuple):
    """A [h,R], B [w,R], and the normal equations of each row: matrix [·,R,R], right side [·,R]."""

    a: Tensor
    b: Tensor
    a_matrix: Tensor
    a_side: Tensor
    b_matrix: Tensor
    b_side: Tensor


def low_rank_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Samples [B,T,3,h,w], mask [B,T,1,h,w] -> frames [B,T,3,H,W], a state for each video."""
    states = list(state or [None] * len(samples))
    videos = []
    for index, (video, masks) in enumerate(zip(samples.double(), mask.double(), strict=True)):
        frames = []
        for slices, known in zip(video, masks[:, 0], strict=True):
            low, states[index] = complete(slices, known, states[index])
            frames.append(torch.where(known > 0, slices, low.clamp(0.0, 1.0)))
        videos.append(torch.stack(frames))
    return upsample_bicubic(torch.stack(videos).to(samples.dtype), SCALE), tuple(states)


def complete(
    slices: Tensor, known: Tensor, factors: Factors | None = None
) -> tuple[Tensor, Factors]:
    """Estimate a frame from its samples and from the frames before.

    Args:
        slices: [S, h, w], float64.
        known: [h, w], 1 where sampled.
        factors: the factors after the frame before; None: start with the singular vectors of this
            frame, filled by :func:`deepfovea.fill.pull_push`.

    Returns:
        [S, h, w], and the factors for the next frame.
    """
    past = _initial_factors(slices, known) if factors is None else factors
    a, b = past.a, past.b
    side = slices * known
    for _ in range(SWEEPS):
        gamma = _weights(a, b, side, known)
        # The regressors of the pixels of a row (column): [S, w, R] for A, [S, h, R] for B.
        rows = gamma[:, None] * b
        a_matrix = FORGETTING * past.a_matrix + torch.einsum("hw,swr,swq->hrq", known, rows, rows)
        a_side = FORGETTING * past.a_side + torch.einsum("shw,swr->hr", side, rows)
        a = _solve(a_matrix, a_side)
        columns = gamma[:, None] * a
        b_matrix = FORGETTING * past.b_matrix + torch.einsum(
            "hw,shr,shq->wrq", known, columns, columns
        )
        b_side = FORGETTING * past.b_side + torch.einsum("shw,shr->wr", side, columns)
        b = _solve(b_matrix, b_side)
    gamma = _weights(a, b, side, known)
    frame = torch.einsum("sr,hr,wr->shw", gamma, a, b)
    return frame, Factors(a, b, a_matrix, a_side, b_matrix, b_side)


def _initial_factors(slices: Tensor, known: Tensor) -> Factors:
    u, s, v = torch.linalg.svd(pull_push(slices * known, known[None]).mean(0))
    rank = min(RANK, len(s))
    size = s[:rank].sqrt()
    a, b = u[:, :rank] * size, v[:rank].T * size
    normal = [x.new_zeros(len(x), *shape) for x in (a, b) for shape in ((rank, rank), (rank,))]
    return Factors(a, b, *normal)


def _weights(a: Tensor, b: Tensor, side: Tensor, known: Tensor) -> Tensor:
    """γ of each slice, [S, R]."""
    i, j = known.nonzero(as_tuple=True)
    products = a[i] * b[j]  # [n, R]
    matrix = products.T @ products
    return _solve(matrix.expand(len(side), -1, -1), side[:, i, j] @ products)


def _solve(matrix: Tensor, side: Tensor) -> Tensor:
    ridge = RIDGE * torch.eye(side.shape[-1], dtype=side.dtype, device=side.device)
    solution: Tensor = torch.linalg.solve(matrix + ridge, side)
    return solution
