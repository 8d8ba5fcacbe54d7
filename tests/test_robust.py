"""The general robust loss, its partition function and the adaptive loss."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import k1

from deepfovea.losses.robust import AdaptiveRobustLoss, general_robust_loss, log_partition

CLOSED_FORMS = {
    2.0: lambda s: s / 2,
    1.0: lambda s: s / ((s + 1).sqrt() + 1),  # √(s+1) − 1, without the cancellation
    0.0: lambda s: (s / 2).log1p(),
    -2.0: lambda s: 2 * s / (s + 4),
    -math.inf: lambda s: -(-s / 2).expm1(),
    math.inf: lambda s: (s / 2).expm1(),
}
ALPHAS = [-math.inf, -30.0, -2.0, -1.0, -1e-4, 0.0, 1e-9, 1e-3, 0.5, 1.0, 1.7, 1.9999999, 2.0]


def double(*values):
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


def rho(x, alpha):
    """The definition for a single number, for SciPy."""
    s, b = x * x, abs(alpha - 2)
    if b == 0:
        return s / 2
    if alpha == 0:
        return math.log1p(s / 2)
    return b / alpha * math.expm1(min(alpha / 2 * math.log1p(s / b), 700.0))


# --- general ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", CLOSED_FORMS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-8), (torch.float32, 3e-6)])
def test_limits_equal_their_closed_forms(alpha, dtype, rtol):
    x = torch.cat((torch.linspace(-4, 4, 81), torch.logspace(-6, 0, 13))).to(dtype)
    for c in (0.4, 1.0, 3.0):
        expected = CLOSED_FORMS[alpha]((x.double() / c).square()).to(dtype)
        torch.testing.assert_close(
            general_robust_loss(x, alpha, c), expected, rtol=rtol, atol=1e-30
        )


@pytest.mark.parametrize("alpha", [-7.0, -0.3, 0.02, 0.8, 1.98, 4.0])
def test_elsewhere_it_is_the_definition(alpha):
    x = torch.linspace(-9, 9, 181, dtype=torch.float64)
    expected = [rho(value / 0.7, alpha) for value in x.tolist()]
    torch.testing.assert_close(
        general_robust_loss(x, alpha, 0.7),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-8,
        atol=1e-12,
    )


def test_it_grows_with_the_residual_and_with_alpha():
    x = torch.logspace(-2, 2, 200, dtype=torch.float64)
    alpha = torch.linspace(-4, 2, 61, dtype=torch.float64).view(-1, 1)
    loss = general_robust_loss(x, alpha, 0.3)
    assert (loss.diff(dim=1) > 0).all()
    assert (loss.diff(dim=0) > 0).all()
    assert torch.equal(general_robust_loss(-x, alpha, 0.3), loss)


@pytest.mark.parametrize("alpha", [-3.0, -1e-5, 0.0, 1e-3, 0.05, 0.7, 1.3, 1.99])
def test_gradients_equal_finite_differences(alpha):
    x, a, c = double([-3.0, -0.2, 0.01, 0.9, 40.0], [alpha], [0.6])
    assert torch.autograd.gradcheck(general_robust_loss, (x, a, c), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_and_gradients_are_finite_everywhere(alpha, dtype):
    size = torch.tensor([0.0, 1e-30, 1e-8, 1e-3, 1.0, 1e3, 1e8, 1e15, 1e30], dtype=dtype)
    x = torch.cat((-size, size)).requires_grad_()
    a, c = torch.tensor(alpha, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    loss = general_robust_loss(x, a, c)
    assert loss.isfinite().all() and (loss >= 0).all()
    for gradient in torch.autograd.grad(loss.sum(), (x, a, c)):
        assert gradient.isfinite().all()


TABLE_ALPHAS = [-4.0, -3.0, -2.0, -1.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 1.0, 1.5, 1.9, 1.999]
TABLE_ALPHAS += [2.0, 2.001, 2.1, 2.5, 3.0, 4.0]


def rise(v):
    """v − 1 + exp(−v) without cancellation."""
    if v > 0.5:
        return v - 1 + math.exp(-v)
    return v * v * sum((-v) ** n / math.factorial(n + 2) for n in range(15))


def by_quadrature(x, alpha, c):
    """ρ and its derivatives by x, c and α from their integrals, by SciPy's adaptive quadrature.

    ∂ρ/∂s = ½ (s/b + 1)^(α/2 − 1), with s = (x/c)² and b = |α − 2|, the derivative of Barron's loss,
    is integrated in v = log(s/b + 1), as is its derivative by α.
    """
    s, b = (x / c) ** 2, abs(alpha - 2)
    if b == 0:  # L2; its derivative by α is infinite
        return s / 2, x / c**2, -s / c, None
    up = math.log1p(s / b)
    rules = {"epsabs": 0, "epsrel": 1e-11, "limit": 200}
    value, _ = quad(lambda v: math.exp(alpha / 2 * v), 0, up, **rules)
    by_alpha, _ = quad(lambda v: math.exp(alpha / 2 * v) * rise(v), 0, up, **rules)
    slope = math.exp((alpha / 2 - 1) * up)
    return b / 2 * value, x / c**2 * slope, -s / c * slope, b / 4 * by_alpha


@pytest.mark.parametrize("alpha", TABLE_ALPHAS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_value_and_gradients_equal_adaptive_quadrature(alpha, dtype, rtol):
    cases = [(x, c) for x in (1e-3, -0.02, 0.3, 1.0, -10.0) for c in np.logspace(-5, 5, 11)]
    x, c = (
        torch.tensor(column, dtype=dtype).requires_grad_() for column in zip(*cases, strict=True)
    )
    a = torch.full_like(x, alpha).requires_grad_()
    value = general_robust_loss(x, a, c)
    gradients = torch.autograd.grad(value.sum(), (x, c, a))
    rows = zip(x.tolist(), a.tolist(), c.tolist(), strict=True)  # as rounded to the type
    tables = zip(*(by_quadrature(*row) for row in rows), strict=True)
    for received, expected in zip((value, *gradients), tables, strict=True):
        if expected[0] is None:
            assert received.isfinite().all()
            continue
        # A tiny absolute part for what float32 holds with fewer digits.
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(received.double(), expected, rtol=rtol, atol=1e-36)


def test_the_gradient_by_the_scale_keeps_its_sign():
    """A larger scale never makes a residual count more; in float32 and at the smallest scales."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, generator=draw)
    alpha = -4 * torch.rand(100_000, generator=draw)
    c = (1e-5 * (1 + torch.rand(100_000, generator=draw))).requires_grad_()
    (by_scale,) = torch.autograd.grad(general_robust_loss(x, alpha, c).sum(), c)
    assert (by_scale <= 0).all()
    exact = c.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(
        general_robust_loss(x.double(), alpha.double(), exact).sum(), exact
    )
    torch.testing.assert_close(by_scale.double(), expected, rtol=1e-5, atol=1e-36)


def test_gradients_are_summed_over_what_was_broadcast():
    x, alpha, c = double([[0.1, -0.5], [2.0, 0.7]], [[0.3], [1.2]], 0.4)
    assert torch.autograd.gradcheck(general_robust_loss, (x, alpha, c))
    assert torch.autograd.gradgradcheck(general_robust_loss, (x, alpha, c), atol=1e-4)


def test_gradient_wrt_alpha_has_no_jump_at_the_removable_points():
    for at in (0.0, 1.0, 2.0):
        (x,) = double([0.5])
        slopes = []
        for alpha in (at - 2e-6, at, at + 2e-6):
            (a,) = double([alpha])
            general_robust_loss(x, a, 1.0).sum().backward()
            slopes.append(a.grad.item())
        # At 2 the slope is logarithmic, and held within 1e-6.
        assert max(slopes) - min(slopes) < (1.0 if at == 2.0 else 1e-5), (at, slopes)


# --- partition function -------------------------------------------------------------------------


def test_partition_function_equals_scipy():
    alphas = np.concatenate((np.linspace(0, 2, 42), 2 - np.logspace(-7, -2, 4)))
    alphas = np.concatenate((alphas, np.logspace(-7, -2, 4)))
    assert len(alphas) == 50
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 2e-6)):
        z = log_partition(torch.tensor(alphas, dtype=dtype)).exp()
        for alpha, received in zip(alphas, z.tolist(), strict=True):
            # x = sinh y: with α near 0 the tail falls as 1/x², and counts up to 10¹²
            expected, _ = quad(
                lambda y, a=alpha: 2 * math.exp(-rho(math.sinh(y), a)) * math.cosh(y),
                0,
                30,
                limit=400,
                epsabs=1e-12,
                epsrel=1e-10,
            )
            assert received == pytest.approx(expected, rel=tolerance), alpha


def test_partition_function_where_it_is_known():
    alpha = torch.tensor([-0.1, 0.0, 1.0, 2.0], dtype=torch.float64)
    z = [math.inf, math.sqrt(2) * math.pi, 2 * math.e * k1(1), math.sqrt(2 * math.pi)]
    torch.testing.assert_close(
        log_partition(alpha).exp(), torch.tensor(z, dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_gradient_of_the_partition_function():
    (alpha,) = double([1e-5, 1e-3, 0.1, 0.5, 1.0, 1.5, 1.9, 1.99])
    assert torch.autograd.gradcheck(log_partition, (alpha,), rtol=1e-5, atol=1e-7)
    ends = torch.tensor([0.0, 2.0, 1.9999999, 1e-9], requires_grad=True)
    log_partition(ends).sum().backward()
    assert ends.grad.isfinite().all()


# --- adaptive -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.3, 1.0, 1.6, 1.999])
@pytest.mark.parametrize("scale", [0.05, 2.0])
def test_likelihood_is_a_density(alpha, scale):
    loss = AdaptiveRobustLoss(1, alpha, scale).double()
    y = torch.linspace(-14, 14, 4001, dtype=torch.float64)  # x = c·sinh y
    x = scale * y.sinh()
    with torch.no_grad():
        density = (-loss.negative_log_likelihood(x.view(-1, 1, 1, 1))).exp().flatten()
    mass = torch.trapezoid(density * scale * y.cosh(), y)
    assert mass.item() == pytest.approx(1.0, abs=1e-4)


def fit(samples):
    """The channels' α and c after minimising the mean negative log likelihood."""
    loss = AdaptiveRobustLoss(samples.shape[-3])
    optimiser = torch.optim.LBFGS(loss.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss(samples, torch.zeros_like(samples))
        value.backward()
        return value

    optimiser.step(closure)
    return loss.alpha.tolist(), loss.scale.tolist()


def test_shape_and_scale_are_recovered_for_each_channel():
    # α = 2 is the normal distribution, α = 0 Cauchy's with the half width √2·c.
    distributions = torch.distributions
    quantiles = (torch.arange(2500) + 0.5).view(50, 50) / 2500
    gaussian = distributions.Normal(0.0, 0.3).icdf(quantiles)
    cauchy = distributions.Cauchy(0.0, 0.1).icdf(quantiles)
    laplace = distributions.Laplace(0.0, 0.2).icdf(quantiles)
    (a_gauss, a_cauchy, a_laplace), (c_gauss, c_cauchy, _) = fit(
        torch.stack((gaussian, cauchy, laplace))
    )
    assert a_gauss > 1.98
    assert c_gauss == pytest.approx(0.3, rel=0.02)
    assert a_cauchy < 0.02
    assert c_cauchy == pytest.approx(0.1 / math.sqrt(2), rel=0.02)
    assert 0.4 < a_laplace < 1.0


def test_one_shape_and_one_scale_per_channel():
    loss = AdaptiveRobustLoss()
    assert sum(p.numel() for p in loss.parameters()) == 6
    torch.testing.assert_close(loss.alpha, torch.ones(3))
    torch.testing.assert_close(loss.scale, torch.ones(3))
    loss = AdaptiveRobustLoss(2, alpha=0.4, scale=0.02)
    torch.testing.assert_close(loss.alpha, torch.full((2,), 0.4))
    torch.testing.assert_close(loss.scale, torch.full((2,), 0.02))


def test_channels_do_not_touch_each_other():
    loss = AdaptiveRobustLoss()
    prediction = torch.zeros(2, 4, 3, 5, 6)
    target = torch.zeros_like(prediction)
    target[:, :, 1] = 0.5
    loss.negative_log_likelihood(prediction - target)[:, :, 1].mean().backward()
    for parameter in loss.parameters():
        assert (parameter.grad != 0).tolist() == [False, True, False]


def test_adaptive_loss_is_finite_at_the_ends():
    loss = AdaptiveRobustLoss(3, alpha=0.5)
    with torch.no_grad():  # sigmoid and softplus saturated: α = 0 and 2, c = floor
        loss.alpha_logit.copy_(torch.tensor([-200.0, 200.0, 0.0]))
        loss.scale_latent.fill_(-200.0)
    for size in (0.0, 1e-20, 1.0, 1e10):
        prediction = torch.full((1, 1, 3, 2, 2), size, requires_grad=True)
        value = loss(prediction, torch.zeros_like(prediction))
        gradients = torch.autograd.grad(value, [prediction, *loss.parameters()])
        assert value.isfinite() and all(g.isfinite().all() for g in gradients)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"received alpha 2\.0"):
        AdaptiveRobustLoss(alpha=2.0)
    with pytest.raises(ValueError, match="scale 0"):
        AdaptiveRobustLoss(scale=0)
    frames = torch.zeros(1, 2, 3, 8, 8)
    with pytest.raises(ValueError, match="expected two equal shapes"):
        AdaptiveRobustLoss()(frames, frames[:, :1])
    with pytest.raises(ValueError, match="expected two equal shapes"):
        AdaptiveRobustLoss()(frames.transpose(1, 2), frames.transpose(1, 2))
