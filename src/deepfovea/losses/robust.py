"""The supervised loss L_sv: Barron's general robust loss, and its adaptive form.

Source: Barron, "A General and Adaptive Robust Loss Function", CVPR 2019 (arXiv 1701.03077).

Legend: α the shape, c the scale (in the unit of the residual), s = (x/c)².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import InputError

MAX_ALPHA = 1e15
"""|α| is clamped to it: there the loss equals its limit at ±∞ up to rounding, also in float64."""
MAX_Z = 1e12
"""|x/c| is clamped to it, so that its square is finite in float32."""
MIN_B = 1e-6
"""Lower bound of b = |α − 2|. At α = 2 any b gives ρ = s/2, so this only keeps s/b finite."""

# Where a closed form loses digits to cancellation, a series or a quadrature replaces it. The bounds
# are our choice; tests/test_robust.py compares both with closed forms and with scipy.
SHORT_LOG = 0.5
"""Below this log(s/b + 1), ∂ρ/∂α is computed by quadrature."""
SMALL_EXPM1, SMALL_SECOND = 1e-5, 0.3
"""Below these |u|, (exp(u) − 1)/u and ((u − 1)·exp(u) + 1)/u² are computed as power series."""
MAX_LOG_X, LOG_X_STEP = 25, 0.1
"""Range and step of y = log|x| in the sum for Z(α): beyond the range the integrand vanishes; the
step gives the error that :func:`log_partition` states."""


def general_robust_loss(x: Tensor, alpha: float | Tensor, c: float | Tensor) -> Tensor:
    """The general robust loss ρ(x, α, c) of every residual.

    ``|α−2|/α · ((s/|α−2| + 1)^(α/2) − 1)``, and its limit for those α where this is undefined:

    ====== =================== =====================
    α      ρ                   also known as
    ====== =================== =====================
    2      s/2                 L2
    1      √(s+1) − 1          Charbonnier, pseudo-Huber
    0      log(s/2 + 1)        Cauchy, Lorentzian
    −2     2s/(s+4)            Geman-McClure
    −∞     1 − exp(−s/2)       Welsch
    ====== =================== =====================

    It is differentiable in all three arguments, with finite gradients for α ≤ 2 at every x, 0
    included. The true ∂ρ/∂α grows like log|α−2| around α = 2; closer than 1e-6 it is constant here.
    |x/c| is clamped to 1e12, so that nothing overflows in float32.

    Args:
        x: residuals, any shape. Half precision is computed, and returned, in float32.
        alpha: shape, any real number or ±∞; broadcast with x.
        c: scale > 0, in the unit of x; broadcast with x.

    Returns:
        ρ ≥ 0, without unit. It increases with |x| and with α; near x = 0 it is s/2 for every α.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    alpha = torch.as_tensor(alpha, dtype=x.dtype, device=x.device).clamp(-MAX_ALPHA, MAX_ALPHA)
    c = torch.as_tensor(c, dtype=x.dtype, device=x.device)
    rho: Tensor = _Rho.apply((x / c).clamp(-MAX_Z, MAX_Z), alpha)  # type: ignore[no-untyped-call]
    return rho


class _Rho(torch.autograd.Function):
    """ρ of z = x/c and α, with its derivatives in closed form.

    The terms that autograd would add up cancel each other: in float32 the derivatives would lose
    their sign where α is negative and |z| large, and all their digits where z is small.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(z, alpha)
        b, log = _b_and_log(z, alpha)
        return 0.5 * b * log * _expm1_ratio(0.5 * alpha * log)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """∂ρ/∂z = z·(s/b + 1)^(α/2 − 1), and ∂ρ/∂α by :func:`_grad_alpha`."""
        z, alpha = ctx.saved_tensors
        b, log = _b_and_log(z, alpha)
        grad_z = grad_alpha = None
        if ctx.needs_input_grad[0]:
            grad_z = gradient * z * torch.exp((0.5 * alpha - 1) * log)
            grad_z = grad_z.sum_to_size(z.shape)
        if ctx.needs_input_grad[1]:
            grad_alpha = (gradient * _grad_alpha(b, log, alpha)).sum_to_size(alpha.shape)
        return grad_z, grad_alpha


def _b_and_log(z: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """b = |α−2|, at least :data:`MIN_B`, and log(s/b + 1)."""
    b = (alpha - 2).abs().clamp(min=MIN_B)
    return b, torch.log1p(z.square() / b)


def _grad_alpha(b: Tensor, log: Tensor, alpha: Tensor) -> Tensor:
    """∂ρ/∂α = b/4 · ∫ exp(α/2·v)·(v − 1 + exp(−v)) dv, from 0 to log(s/b + 1).

    It follows from ρ = ½ ∫ (s′/b + 1)^(α/2 − 1) ds′ (from 0 to s) with v = log(s′/b + 1). The
    integrand is positive, so on a short interval a quadrature keeps its digits; on a long interval
    the closed form of the integral does.
    """
    short = log < SHORT_LOG
    v_max = torch.where(short, log, 0.0)
    quadrature = torch.zeros_like(log)
    for node, weight in _GAUSS_LEGENDRE:
        v = node * v_max
        rise = v.square() * _power_series(-v, _RISE_SERIES)
        quadrature = quadrature + weight * v_max * torch.exp(0.5 * alpha * v) * rise
    u = 0.5 * alpha * log
    closed = log * (log * _second_ratio(u) - _expm1_ratio(u) + _expm1_ratio(u - log))
    return 0.25 * b * torch.where(short, quadrature, closed)


_GAUSS_LEGENDRE = (
    (0.03376524289842397, 0.08566224618958517),
    (0.16939530676686776, 0.1803807865240693),
    (0.3806904069584015, 0.23395696728634552),
    (0.6193095930415985, 0.23395696728634552),
    (0.8306046932331322, 0.1803807865240693),
    (0.966234757101576, 0.08566224618958517),
)
"""Six nodes and weights of Gauss–Legendre quadrature: numpy.polynomial.legendre.leggauss(6),
mapped to [0, 1]."""

_RISE_SERIES = tuple(1 / math.factorial(n + 2) for n in range(12))
"""Coefficients of (v − 1 + exp(−v))/v² as a power series in −v."""

_SECOND_RATIO = tuple(1 / (math.factorial(n) * (n + 2)) for n in range(12))
"""Coefficients of ((u − 1)·exp(u) + 1)/u² as a power series in u."""


def _expm1_ratio(u: Tensor) -> Tensor:
    """(exp(u) − 1)/u, which is 1 at 0."""
    small = u.abs() < SMALL_EXPM1
    return torch.where(small, 1 + u / 2 * (1 + u / 3), torch.expm1(u) / torch.where(small, 1.0, u))


def _second_ratio(u: Tensor) -> Tensor:
    """((u − 1)·exp(u) + 1)/u², which is ½ at 0."""
    small = u.abs() < SMALL_SECOND
    far = torch.where(small, 1.0, u)
    return torch.where(
        small,
        _power_series(torch.where(small, u, 0.0), _SECOND_RATIO),
        ((far - 1) * far.expm1() + far) / far.square(),
    )


def _power_series(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Σ coefficients[n]·xⁿ, by Horner's rule."""
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def log_partition(alpha: Tensor) -> Tensor:
    """log Z(α) of the density, with Z(α) = ∫ exp(−ρ(x, α, 1)) dx over all real x.

    Z(0) = √2·π, Z(1) = 2e·K₁(1), Z(2) = √(2π). The result is differentiable.

    Each call sums Z by the trapezoidal rule in y = log|x|, with 501 points. No table is needed, as
    there is only one α per channel. In y the singularities of the integrand have the same distance
    from the real axis for every α, so the rule converges exponentially: with step 0.1 and y in
    [−25, 25] the relative error of Z is below 1e-10 in float64 and 1e-6 in float32.

    Args:
        alpha: any shape, 0 ≤ α ≤ 2.

    Returns:
        The shape of ``alpha``; ∞ where α < 0, for which the integral diverges.
    """
    points = round(2 * MAX_LOG_X / LOG_X_STEP) + 1
    y = torch.linspace(-MAX_LOG_X, MAX_LOG_X, points, dtype=alpha.dtype, device=alpha.device)
    log_integrand = y - general_robust_loss(y.exp(), alpha.unsqueeze(-1), 1.0)
    log_z = torch.logsumexp(log_integrand, -1) + math.log(2 * LOG_X_STEP)
    return log_z.masked_fill(alpha < 0, math.inf)


class AdaptiveRobustLoss(nn.Module):
    """Negative log likelihood of the residuals, with learned shape α and scale c.

    The density is ``exp(−ρ(x, α, c)) / (c·Z(α))``: the terms log c and log Z(α) keep α and c from
    growing without end. There is one α = 2·sigmoid(·) in (0, 2) and one c = floor + softplus(·)
    **per colour channel**. The published system learned a pair for every output value, which are
    twelve times as many parameters as its generator has. As published, both start at 1.

    Args:
        channels: C.
        alpha: initial α, in (0, 2).
        scale: initial c, above the floor, in the unit of the residuals (frames: 0 to 1).

    Raises:
        InputError: an initial value is out of range (a ValueError).
    """

    floor = 1e-5
    """The smallest c, so that a perfect reconstruction has a finite likelihood: ``scale_lo`` of the
    author's code."""

    def __init__(self, channels: int = 3, alpha: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        if not (0 < alpha < 2 and self.floor < scale < math.inf):
            raise InputError(
                f"adaptive loss: received alpha {alpha} and scale {scale}; "
                f"expected 0 < alpha < 2 and scale > {self.floor:g}"
            )
        above = torch.full((channels,), scale - self.floor, dtype=torch.float64)
        self.alpha_logit = nn.Parameter(torch.full((channels,), alpha / 2).logit())
        self.scale_latent = nn.Parameter((above + (-(-above).expm1()).log()).float())

    @property
    def alpha(self) -> Tensor:
        """α of each channel: [C], 0 to 2 (2 is L2, 1 a smooth L1, 0 weighs outliers least)."""
        return 2 * torch.sigmoid(self.alpha_logit)

    @property
    def scale(self) -> Tensor:
        """c of each channel: [C], the residual at which the loss turns from square to robust."""
        return self.floor + nn.functional.softplus(self.scale_latent)

    def negative_log_likelihood(self, residual: Tensor) -> Tensor:
        """−log density of every residual: [..., C, H, W] -> the same shape, nats, any sign."""
        alpha, c = self.alpha, self.scale
        constant = c.log() + log_partition(alpha)
        rho = general_robust_loss(residual, alpha.view(-1, 1, 1), c.view(-1, 1, 1))
        return rho + constant.view(-1, 1, 1)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean negative log likelihood of ``prediction − target``, nats per value.

        Args:
            prediction: [..., C, H, W], for instance [B, T, 3, H, W].
            target: the same shape.

        Returns:
            A scalar; it may be negative, as the logarithm of a density may.

        Raises:
            InputError: the shapes differ, or have not C channels.
        """
        channels = len(self.alpha_logit)
        if prediction.shape != target.shape or prediction.shape[-3:-2] != (channels,):
            raise InputError(
                f"adaptive loss: received {tuple(prediction.shape)} and {tuple(target.shape)}; "
                f"expected two equal shapes [..., {channels}, H, W]"
            )
        return self.negative_log_likelihood(prediction - target).mean()
