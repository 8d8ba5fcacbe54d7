"""The axes of both discriminators, their normalisation, and the adversarial terms."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from deepfovea.losses.adversarial import (
    DISCRIMINATOR_CHANNELS,
    SpectrumDiscriminator,
    VideoDiscriminator,
    logistic_discriminator_loss,
    logistic_generator_loss,
    r1_penalty,
    spectrum,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)

SMALL = (4, 6, 6, 4, 1)
BOTH = pytest.mark.parametrize("kind", [VideoDiscriminator, SpectrumDiscriminator])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def layers(model):
    """All layers with parameters."""
    return [m for m in model.modules() if isinstance(m, (nn.Conv3d, nn.Linear))]


# --- spectrum -----------------------------------------------------------------------------------


def wave(i, j, k, shape=(6, 16, 24), phase=0.0):
    """One wave with i cycles in time, j in height, k in width: [T, H, W], amplitude 1."""
    length, height, width = shape
    t = torch.arange(length, dtype=torch.float64).view(-1, 1, 1) / length
    y = torch.arange(height, dtype=torch.float64).view(-1, 1) / height
    x = torch.arange(width, dtype=torch.float64) / width
    return torch.cos(2 * math.pi * (i * t + j * y + k * x) + phase)


@pytest.mark.parametrize("cycles", [(2, 0, 0), (0, 5, 0), (0, 0, 7), (1, 3, 4), (-2, 3, 4)])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_sinusoid_lights_up_its_bin_and_no_other(cycles, channel):
    i, j, k = cycles
    frames = torch.zeros(2, 6, 3, 16, 24, dtype=torch.float64)
    frames[1, :, channel] = wave(i, j, k, phase=0.4)
    amplitude = math.sqrt(6 * 16 * 24) / 2  # orthonormal; half of it belongs to the conjugate
    expected = torch.zeros(2, 6, 6, 16, 13, dtype=torch.float64)
    expected[1, channel, 3 + i, 8 + j, k] = amplitude * math.cos(0.4)
    expected[1, 3 + channel, 3 + i, 8 + j, k] = amplitude * math.sin(0.4)
    if k == 0:  # of width 0 the conjugate is kept too
        expected[1, channel, 3 - i, 8 - j, k] = amplitude * math.cos(0.4)
        expected[1, 3 + channel, 3 - i, 8 - j, k] = -amplitude * math.sin(0.4)
    torch.testing.assert_close(spectrum(frames), expected, rtol=0, atol=1e-12)


def test_the_mean_is_the_middle_of_time_and_height():
    for length, height in ((1, 15), (4, 16), (5, 16)):
        waves = spectrum(torch.full((1, length, 3, height, 20), 0.5))
        mean = waves[0, :3, length // 2, height // 2, 0]
        torch.testing.assert_close(mean, torch.full((3,), 0.5 * (length * height * 20) ** 0.5))
        assert waves.abs().sum() - mean.sum() < 1e-3


def test_energy_is_kept():
    frames = torch.randn(2, 4, 3, 12, 18)
    energy = spectrum(frames).square().sum((0, 1, 2, 3))
    energy[1:-1] *= 2  # the conjugates that were left out: all but width 0 and the last
    torch.testing.assert_close(energy.sum(), frames.square().sum())


# --- axes ---------------------------------------------------------------------------------------


def without_normalisation(model):
    for layer in layers(model):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model.eval()


@pytest.mark.parametrize(
    ("frame_axis", "kernel_axis", "patch_axis"), [(1, 2, 0), (3, 3, 1), (4, 4, 2)]
)
@torch.no_grad()
def test_flipping_an_axis_of_frames_and_kernels_flips_the_patches(
    frame_axis, kernel_axis, patch_axis
):
    """No layer mixes up the axes time, height and width."""
    model = without_normalisation(VideoDiscriminator(SMALL)).double()
    frames = torch.rand(1, 4, 3, 256, 384, dtype=torch.float64)
    patches = model(frames)
    assert patches.shape == (1, 2, 3)
    flipped = frames.flip(frame_axis)
    assert (model(flipped) - patches).abs().max() > 1e-9  # the order matters,
    for layer in layers(model):
        layer.weight.copy_(layer.weight.flip(kernel_axis))
    expected = patches.flip(patch_axis) if patch_axis else patches
    torch.testing.assert_close(model(flipped), expected, rtol=0, atol=1e-12)  # and only so


@BOTH
@torch.no_grad()
def test_the_order_of_frames_matters(kind):
    model = kind(SMALL).eval().double()
    frames = torch.rand(1, 5, 3, 128, 128, dtype=torch.float64)
    assert (model(frames[:, [0, 2, 1, 4, 3]]) - model(frames)).abs().max() > 1e-9
    same = frames[:, :1].expand(-1, 5, -1, -1, -1).contiguous()
    assert torch.equal(model(same[:, [0, 2, 1, 4, 3]]), model(same))


@BOTH
@torch.no_grad()
def test_videos_of_a_batch_are_independent(kind):
    model = kind(SMALL).eval()
    frames = torch.rand(3, 2, 3, 128, 256)
    alone = torch.cat([model(video) for video in frames.split(1)])
    torch.testing.assert_close(model(frames), alone, rtol=0, atol=1e-6)
    assert alone.flatten(1 if alone.ndim > 1 else 0).std() > 0


@torch.no_grad()
def test_a_patch_sees_its_own_place():
    model = VideoDiscriminator(SMALL).eval()
    frames = torch.rand(1, 2, 3, 128, 1280)
    before = model(frames)
    frames[..., :128] = 0
    changed = (model(frames) - before).abs()[0, 0] > 0
    assert changed[0] and not changed[5:].any()


# --- sizes, normalisation, gradients ------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "patches"),
    [
        ((2, 3, 3, 128, 256), (2, 1, 2)),
        ((1, 2, 3, 130, 97), (1, 2, 1)),
        ((1, 1, 3, 1, 1), (1, 1, 1)),
    ],
)
@torch.no_grad()
def test_any_size(shape, patches):
    assert VideoDiscriminator(SMALL)(torch.rand(shape)).shape == patches
    assert SpectrumDiscriminator(SMALL)(torch.rand(shape)).shape == patches[:1]


@BOTH
def test_wrong_axes_are_refused(kind):
    for shape in ((1, 3, 4, 128, 128), (4, 3, 128, 128), (0, 2, 3, 128, 128)):
        with pytest.raises(ValueError, match=r"expected \[B, T, 3, H, W\]"):
            kind(SMALL)(torch.zeros(shape))
    with pytest.raises(ValueError, match="received 2 blocks"):
        kind((4, 1))


@BOTH
def test_published_channels(kind):
    model = kind()
    outputs = [m.out_channels for m in layers(model) if isinstance(m, nn.Conv3d)]
    width = 3 if kind is VideoDiscriminator else 6
    assert outputs == [width, *(c for c in DISCRIMINATOR_CHANNELS for _ in range(3))]
    assert DISCRIMINATOR_CHANNELS == (64, 256, 256, 128, 1)


@BOTH
@torch.no_grad()
def test_every_learned_layer_is_spectrally_normalised(kind):
    model = kind(SMALL)
    normalised = 0
    for layer in layers(model):
        assert parametrize.is_parametrized(layer, "weight")
        for _ in range(100):
            weight = layer.weight  # in training mode, one step of the power iteration
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
        normalised += layer.parametrizations.weight.original.numel() + layer.bias.numel()
    assert normalised == sum(p.numel() for p in model.parameters())  # nothing else learns


@BOTH
def test_gradient_reaches_the_video_and_every_parameter(kind):
    model = kind(SMALL)
    frames = torch.rand(2, 2, 3, 140, 128, requires_grad=True)
    logistic_generator_loss(model(frames)).backward()
    assert frames.grad.isfinite().all()
    assert frames.grad.abs().amax((2, 3, 4)).min() > 0  # in every frame
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    # A black video has a spectrum of zeros, where a logarithm would have no slope.
    black = torch.zeros(1, 2, 3, 128, 128, requires_grad=True)
    model(black).sum().backward()
    assert black.grad.isfinite().all() and black.grad.abs().max() > 0


# --- adversarial terms --------------------------------------------------------------------------


def test_terms_equal_values_computed_by_hand():
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([[-1.0], [3.0]])
    sigmoid = [1 / (1 + math.exp(-v)) for v in (0.0, 2.0, -1.0, 3.0)]
    on_real = -(math.log(sigmoid[0]) + math.log(sigmoid[1])) / 2
    on_fake = -(math.log(1 - sigmoid[2]) + math.log(1 - sigmoid[3])) / 2
    assert logistic_discriminator_loss(real, fake).item() == pytest.approx(on_real + on_fake)
    saturating_not = -(math.log(sigmoid[2]) + math.log(sigmoid[3])) / 2
    assert logistic_generator_loss(fake).item() == pytest.approx(saturating_not)
    assert wasserstein_discriminator_loss(real, fake).item() == 0.0  # 1 − 1
    assert wasserstein_generator_loss(fake).item() == -1.0
    far = torch.tensor([-1e4, 1e4])
    assert logistic_discriminator_loss(far, far).isfinite()
    assert logistic_generator_loss(far).isfinite()


@pytest.mark.parametrize("patches", [1, 4])
def test_r1_of_a_linear_discriminator(patches):
    """D(x) = mean over patches of w·x has the slope mean(w), whatever x."""
    weight = torch.randn(patches, 2 * 3 * 4 * 4, dtype=torch.float64, requires_grad=True)
    frames = torch.rand(5, 2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(frames.flatten(1) @ weight.T, frames)
    expected = weight.mean(0).square().sum()
    torch.testing.assert_close(penalty, expected)
    (gradient,) = torch.autograd.grad(penalty, weight)
    closed = (2 * weight.mean(0) / patches).expand_as(weight)
    torch.testing.assert_close(gradient, closed.detach())


@BOTH
def test_r1_trains_a_discriminator(kind):
    model = kind(SMALL)
    frames = torch.rand(2, 2, 3, 130, 128, requires_grad=True)
    penalty = r1_penalty(model(frames), frames)
    assert penalty > 0
    penalty.backward()
    last = model.tower.blocks[-1].conv2.parametrizations.weight.original
    assert last.grad.isfinite().all() and last.grad.abs().max() > 0


def test_the_video_discriminator_learns_that_frames_are_out_of_order():
    model = VideoDiscriminator((8, 8, 8, 8, 1))
    x = torch.arange(128).view(1, 1, 1, 1, 128) / 16
    t = torch.arange(4).view(1, 4, 1, 1, 1) / 4

    def videos():
        start = torch.rand(2, 1, 3, 1, 1)
        real = (0.5 + 0.5 * torch.sin(2 * math.pi * (x + t + start))).expand(2, 4, 3, 128, 128)
        return real, real[:, [0, 2, 1, 3]]

    real, fake = train(model, videos, steps=25)
    assert real.min() > fake.max()


def test_the_spectrum_discriminator_learns_that_detail_is_missing():
    model = SpectrumDiscriminator((8, 8, 8, 8, 1))

    def videos():
        real = 0.5 + 0.05 * torch.randn(2, 2, 3, 128, 128)
        smooth = nn.functional.avg_pool3d(real, (1, 3, 3), stride=1, padding=(0, 1, 1))
        return real, smooth

    real, fake = train(model, videos, steps=15)
    assert real.min() > fake.max()


def train(model, videos, steps):
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.1, 0.95))
    for _ in range(steps):
        optimiser.zero_grad()
        real, fake = (model(video) for video in videos())
        logistic_discriminator_loss(real, fake).backward()
        optimiser.step()
    return real, fake
