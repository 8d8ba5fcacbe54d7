"""Raggedness: measures staircases along edges that are smooth in the original.

The structure tensor (Bigün and Granlund 1987; Förstner and Gülch 1987) finds the clear, nearly
straight edges of the original and their directions. Along normals a pixel apart, the position of
the edge is then measured to a fraction of a pixel, in the original and in the result. Raggedness is
how much the difference of the two positions varies along the edge. Steps raise it; blur, which is
the same on both sides of an edge, and a shift of the whole edge do not.

Legend: T frames; H, W high resolution; N edge points; L positions along an edge; D along a normal.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..resample import bilinear_sample
from .base import Metric, Reference

# All are our choice, made on edges drawn with known steps (tests/test_artifact_metrics.py).
HALF_LENGTH = 12
"""An edge is followed for so many pixels to either side of a point: nearly horizontal edges have
steps many pixels apart."""
HALF_WIDTH = 6.0
"""Half length of a normal, pixels: it covers a blurred step of four pixels."""
STEP = 0.5
"""Distance of the values along a normal, pixels."""
GRADIENT_SIGMA, TENSOR_SIGMA = 1.0, 3.0
"""Standard deviations, pixels, of the Gaussians for the gradient and for the structure tensor."""
MIN_COHERENCE = 0.95
"""Least coherence (λ1 − λ2) / (λ1 + λ2) of the structure tensor at an edge point; 1 is a straight
edge."""
MIN_CONTRAST = 0.1
"""Least difference in [0, 1] across an edge of the original; half of it for the same edge in the
result."""
MAX_POINTS = 500
"""Largest number of edge points of a frame; they are spread evenly over all that were found."""
MIN_TRACE = 1e-12
"""Lower bound of the trace of a structure tensor, (1 / pixel)², when it divides."""


def edge_points(reference: Reference) -> tuple[Tensor, Tensor]:
    """Find points on clear edges of the original.

    Returns:
        The points [N, 2] (x, y) in pixels, N at most :data:`MAX_POINTS`, and their unit normals
        [N, 2], which point to the brighter side.
    """
    gray = _gray(reference.frames)
    smooth = _blur(gray, GRADIENT_SIGMA)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2.0
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2.0
    xx, xy, yy = (_blur(product, TENSOR_SIGMA) for product in (dx * dx, dx * dy, dy * dy))
    total = (xx + yy).clamp(min=MIN_TRACE)
    coherence = ((xx - yy).square() + 4.0 * xy.square()).sqrt() / total
    strength = (dx * dx + dy * dy).sqrt()
    # On the ridge of the gradient: neither neighbour along x, or along y, has a stronger gradient.
    ridge = (strength == F.max_pool2d(strength, (1, 3), 1, (0, 1))) | (
        strength == F.max_pool2d(strength, (3, 1), 1, (1, 0))
    )
    # A step of contrast c, blurred by sigma, has a gradient of c / (sigma √(2π)) in its middle.
    least = MIN_CONTRAST / (2.0 * GRADIENT_SIGMA * math.sqrt(2.0 * math.pi))
    found = ridge & (coherence >= MIN_COHERENCE) & (strength >= least)
    margin = math.ceil(math.hypot(HALF_LENGTH, HALF_WIDTH))  # profiles stay inside the frame
    inside = torch.zeros_like(found)
    inside[..., margin:-margin, margin:-margin] = True
    y, x = (found & inside)[0, 0].nonzero(as_tuple=True)
    spread = torch.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().long()
    y, x = y[spread], x[spread]
    angle = 0.5 * torch.atan2(2.0 * xy, xx - yy)[0, 0, y, x]
    normals = torch.stack([angle.cos(), angle.sin()], 1)
    gradient = torch.stack([dx[0, 0, y, x], dy[0, 0, y, x]], 1)
    normals = normals * (normals * gradient).sum(1, keepdim=True).sign()
    return torch.stack([x, y], 1).float(), normals


def edge_positions(frame: Tensor, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Measure the position of edges along normals a pixel apart.

    The position is the centroid of the derivative along the normal. For a step between two levels
    this is the position of the step, even if it is blurred (the moments of Tabatabai and Mitchell
    1984).

    Args:
        frame: [1, 3, H, W].
        points: [N, 2], see :func:`edge_points`.
        normals: [N, 2].

    Returns:
        The positions [N, L], pixels from the edge in the direction of the normal, and the contrasts
        [N, L], the differences between both ends of the normals.
    """
    along = torch.arange(-HALF_LENGTH, HALF_LENGTH + 1.0)
    across = torch.arange(-HALF_WIDTH, HALF_WIDTH + STEP / 2, STEP)
    tangents = torch.stack([-normals[:, 1], normals[:, 0]], 1)
    places = (
        points[:, None, None]
        + along[None, :, None, None] * tangents[:, None, None]
        + across[None, None, :, None] * normals[:, None, None]
    )  # [N, L, D, 2]
    grid = places.flatten(1, 2).permute(2, 0, 1)[None]  # [1, 2, N, L·D]
    profile = bilinear_sample(grid, _gray(frame)).view(places.shape[:3])
    derivative = profile.diff(dim=-1)
    contrast = derivative.sum(-1)
    middles = (across[1:] + across[:-1]) / 2.0
    position = (derivative * middles).sum(-1) / contrast.clamp(min=MIN_CONTRAST / 4.0)
    return position, contrast


def raggedness(prediction: Tensor, reference: Reference) -> float:
    """How much edges waver around those of the original, as the mean over its clear edges.

    Args:
        prediction: [1, 3, H, W]; clamped to [0, 1] first.
        reference: the true frame.

    Returns:
        The root mean square, along 25 pixels of an edge, of its distance from the true edge after
        the best straight line is subtracted; pixels, 0 for the original. It is nan if there are no
        clear edges. Edges that the result has lost do not count.
    """
    points, normals, true_positions, true_contrasts = reference.cached(_true_edges)
    positions, contrasts = edge_positions(prediction.clamp(0.0, 1.0), points, normals)
    followed = (true_contrasts.amin(1) >= MIN_CONTRAST) & (contrasts.amin(1) >= MIN_CONTRAST / 2.0)
    distance = (positions - true_positions)[followed].double()
    if not len(distance):
        return math.nan
    along = torch.arange(-HALF_LENGTH, HALF_LENGTH + 1.0, dtype=torch.float64)
    distance = distance - distance.mean(1, keepdim=True)
    slope = (distance * along).sum(1, keepdim=True) / along.square().sum()
    return float((distance - slope * along).square().mean(1).sqrt().mean())


def _true_edges(reference: Reference) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points, normals = edge_points(reference)
    return points, normals, *edge_positions(reference.frames, points, normals)


def _gray(frames: Tensor) -> Tensor:
    return frames.mean(1, keepdim=True)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur [1, 1, H, W] by a Gaussian, cut off at three sigmas, the border repeated."""
    radius = math.ceil(3.0 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1.0) / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    image = F.pad(image, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(image, kernel), kernel.mT)


RAGGEDNESS = Metric(
    name="raggedness",
    label="raggedness",
    better="lower",
    digits=3,
    definition="RMS wavering of clear edges against the original's, along 25 pixels",
    unit="px",
    scope="frame",
    function=raggedness,
    min_side=32,
)
