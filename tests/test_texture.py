"""Claims about the texture loss."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from deepfovea.losses.texture import LAGS, WINDOW, autocorrelations, texture_distance


def noise(blur, seed, frames=2, size=128):
    """A texture of one kind, [1, T, 3, H, W]; each seed gives other pixels."""
    random = np.random.default_rng(seed)
    image = random.standard_normal((frames, size, size))
    image = gaussian_filter(image, (0, blur, blur), mode="wrap")
    image = 0.5 + 0.1 * image / image.std()
    return torch.from_numpy(image).float()[None, :, None].expand(1, frames, 3, size, size)


def blurred(clip, sigma):
    return torch.from_numpy(gaussian_filter(clip.numpy(), (0, 0, 0, sigma, sigma), mode="wrap"))


def test_equal_clips_have_no_distance():
    clip = noise(1.0, 0)
    assert texture_distance(clip, clip) == 0


def test_statistics_are_those_of_numpy():
    frame = noise(1.0, 0, frames=1)[0]
    image = frame[0, 0].numpy().astype(np.float64)
    coarse = image.reshape(64, 2, 64, 2).mean((1, 3))
    padded = np.pad(coarse, 1, mode="edge")
    for axis in (0, 1):  # bilinear, ×2
        size = padded.shape[axis] - 2
        before, here, after = (np.take(padded, range(i, i + size), axis) for i in range(3))
        pair = np.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * after], axis + 1)
        shape = list(here.shape)
        shape[axis] *= 2
        padded = pair.reshape(shape)
    band = image - padded
    found = autocorrelations(frame)[0]
    for k, (y, x) in enumerate(LAGS):
        rows, columns = slice(8, 8 + WINDOW), slice(16, 16 + WINDOW)
        shifted = np.roll(band, (-y, -x), (0, 1))
        expected = (band * shifted)[rows, columns].mean()
        assert float(found[0, k, 1, 2]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("blur", [0.7, 1.5])
def test_other_pixels_of_the_same_texture_are_nearer_than_its_blur(blur):
    clip, other = noise(blur, 0), noise(blur, 1)
    soft = blurred(clip, 2.0)
    assert texture_distance(other, clip) < 0.5 * texture_distance(soft, clip)
    assert (soft - clip).square().mean() < (other - clip).square().mean()  # which L2 prefers


def test_a_lattice_of_the_same_contrast_is_far():
    clip, other = noise(1.0, 0), noise(1.0, 1)
    lattice = torch.zeros(128, 128)
    lattice[::4] += 1.0
    lattice[:, ::4] += 1.0
    lattice = 0.5 + 0.1 * (lattice - lattice.mean()) / lattice.std()
    assert texture_distance(lattice.expand_as(clip), clip) > 2.0 * texture_distance(other, clip)


def test_boiling_is_seen():
    still = noise(1.0, 0, frames=1).expand(1, 2, 3, 128, 128)
    boiling = noise(1.0, 1)
    resting = noise(1.0, 1, frames=1).expand(1, 2, 3, 128, 128)
    assert texture_distance(boiling, still) > 2.0 * texture_distance(resting, still)


def test_it_restores_contrast():
    clip = noise(1.0, 0, frames=1)
    soft = blurred(clip, 1.0)
    output = soft.clone().requires_grad_()
    optimizer = torch.optim.Adam([output], 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        texture_distance(output, clip).backward()
        optimizer.step()

    def contrast(x):
        x = x.detach()
        return float((x - blurred(x, 2.0)).std())

    assert contrast(soft) < 0.7 * contrast(clip)
    assert contrast(output) == pytest.approx(contrast(clip), rel=0.1)


@pytest.mark.parametrize("size", [8, 20, 36, 80])
def test_small_clips(size):
    clip = torch.rand(1, 2, 3, size, size, requires_grad=True)
    texture_distance(clip, torch.rand(1, 2, 3, size, size)).backward()
    assert clip.grad.isfinite().all()
