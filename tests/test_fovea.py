"""Claims about density, masks and sampling: the published profile, budgets, both kinds of noise."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torchvision.transforms import functional as vision

from deepfovea.config import Density, InputError
from deepfovea.fovea import blue_noise_ranks, density_map, downsample, draw_mask, sample
from deepfovea.gaze import DisplayGeometry

BUDGETS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
NOISE = pytest.mark.parametrize("blue_noise", [False, True], ids=["independent", "blue"])
DISPLAY = DisplayGeometry(horizontal_fov_deg=60.0, width_px=1920, height_px=1080)


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


def distances(gaze, height, width):
    """Euclidean distance of every pixel from the gaze, float64 [h, w]."""
    y, x = np.mgrid[:height, :width]
    return np.hypot(x - gaze[0], y - gaze[1])


def at(gaze, height, width, *options):
    """The density for one gaze, float64 [h, w]."""
    density = density_map(torch.tensor(gaze, dtype=torch.float32), height, width, *options)
    return density[0].double().numpy()


def uniform(share, time=1, height=64, width=64, batch=1):
    return torch.full((batch, time, 1, height, width), share)


def thresholds_16(seed, frames, height, width):
    """The random number behind every pixel of a mask in sixteenths: integers [frames, h, w]."""
    shape = (1, frames, 1, height, width)
    masks = [draw_mask(torch.full(shape, k / 16), seed) for k in range(1, 16)]
    return 15 - torch.stack(masks).sum(0)[0, :, 0].long().numpy()


# --- the profile ------------------------------------------------------------------------------


@pytest.mark.parametrize("gaze", [(31.0, 47.0), (30.25, 50.5), (0.0, 0.0), (-10.0, 200.0)])
def test_the_published_profile(gaze):
    distance = distances(gaze, 100, 120)
    density = at(gaze, 100, 120)
    line = (distance > 20) & (distance < 40)
    assert np.allclose(density[distance <= 20], 0.98, rtol=0, atol=1e-6)
    assert np.allclose(density[line], 1.81 - 0.0415 * distance[line], rtol=0, atol=2e-6)
    assert np.allclose(density[distance >= 40], 0.15, rtol=0, atol=1e-6)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 60), st.floats(1, 60), st.floats(-50, 150))
@settings(max_examples=40, deadline=None)
def test_any_profile_is_the_interpolation_of_two_points(a, b, inner, width, x):
    profile = Density(max(a, b), min(a, b), inner, inner + width)
    expected = np.interp(
        distances((x, 20.5), 48, 64), [inner, inner + width], [max(a, b), min(a, b)]
    )
    assert np.allclose(at((x, 20.5), 48, 64, profile), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("budget", [None, 0.1, 0.6])
def test_density_never_rises_with_distance(budget):
    gaze = (40.3, 21.8)
    order = np.argsort(distances(gaze, 90, 110), axis=None)
    density = at(gaze, 90, 110, Density(budget=budget)).ravel()[order]
    # A rise of 3e-6 is what float32, which knows a distance to about 1e-5 pixels, may show.
    assert np.diff(density).max() <= 3e-6
    assert density[0] > density[-1] + 0.5


@given(st.floats(-60, 160), st.floats(-60, 160), st.floats(0, 3), st.floats(0, 2 * math.pi))
@settings(max_examples=40, deadline=None)
def test_a_small_move_of_the_gaze_is_a_small_change(x, y, move, angle):
    moved = (x + move * math.cos(angle), y + move * math.sin(angle))
    change = np.abs(at((x, y), 80, 100) - at(moved, 80, 100)).max()
    assert change <= 0.0415 * move + 3e-6


def test_the_density_moves_with_the_gaze():
    here, there = at((40.5, 30.25), 80, 100), at((45.5, 27.25), 80, 100)
    assert np.allclose(there[:-3, 5:], here[3:, :-5], rtol=0, atol=1e-6)


def test_the_published_share_of_a_frame():
    # Below the two discs of the profile: a frustum above the plane of the periphery.
    frustum = math.pi / 3 * (20**2 + 20 * 40 + 40**2)
    expected = 0.15 + 0.83 * frustum / (180 * 320)
    assert round(expected, 4) == 0.1923
    gaze = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    gaze = gaze * torch.tensor([220.0, 80.0]) + 50.0  # the published range
    share = density_map(gaze, 180, 320).double().mean((1, 2, 3))
    assert (share - expected).abs().max() < 1e-4


def test_the_share_of_a_frame_that_cuts_the_profile():
    def profile(y, x):
        return float(np.interp(math.hypot(x - 12.0, y - 30.0), [20, 40], [0.98, 0.15]))

    area, _ = integrate.dblquad(profile, -0.5, 63.5, -0.5, 47.5, epsabs=0.5)
    assert at((12.0, 30.0), 48, 64).mean() == pytest.approx(area / (48 * 64), abs=1e-3)


def test_radii_in_degrees():
    profile = Density(0.9, 0.1, 4.0, 15.0, "deg")
    gaze = np.array([100.25, 20.5])
    # Rays from an eye before the centre of a display that is two units wide.
    y, x = np.mgrid[:90, :160]
    rays = [
        np.stack([(2 * u + 1) / 160 - 1, ((2 * v + 1) / 90 - 1) * 1080 / 1920], -1)
        for u, v in ((x, y), gaze[:, None, None])
    ]
    eye = 1 / math.tan(math.radians(30))
    pixel, look = (np.concatenate([ray, np.full((*ray.shape[:-1], 1), eye)], -1) for ray in rays)
    cosine = (pixel * look).sum(-1)
    cosine = cosine / np.linalg.norm(pixel, axis=-1) / np.linalg.norm(look, axis=-1)
    angle = np.degrees(np.arccos(cosine))
    expected = np.interp(angle, [4.0, 15.0], [0.9, 0.1])
    assert np.allclose(at(gaze.tolist(), 90, 160, profile, DISPLAY), expected, rtol=0, atol=1e-5)
    assert 0.2 < (expected > 0.11).mean() < 0.9  # the test covers all of the profile


def test_radii_in_degrees_need_a_display():
    with pytest.raises(InputError, match="horizontal field of view"):
        density_map(torch.zeros(2), 8, 8, Density(unit="deg"))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("density", [Density(), Density(budget=0.3), Density(unit="deg")])
def test_one_density_for_each_gaze(shape, density):
    gaze = torch.rand(*shape, 2) * 40
    maps = density_map(gaze, 24, 40, density, DISPLAY)
    assert maps.shape == (*shape, 1, 24, 40)
    assert maps.dtype == torch.float32
    for index in np.ndindex(shape):
        alone = density_map(gaze[index], 24, 40, density, DISPLAY)
        torch.testing.assert_close(maps[index], alone, rtol=0, atol=2e-5)


def test_gaze_far_outside_leaves_the_periphery():
    assert np.allclose(at((-100.0, 10.0), 48, 64), 0.15, rtol=0, atol=1e-6)
    assert np.allclose(at((1e6, -1e6), 48, 64), 0.15, rtol=0, atol=1e-6)


# --- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(180, 320), (37, 51)])
@pytest.mark.parametrize("gaze", [(25.0, 18.0), (0.0, 0.0), (-300.0, 20.0)])
def test_budgets_are_met(size, gaze):
    last = np.zeros(size)
    for budget in BUDGETS:
        density = at(gaze, *size, Density(budget=budget))
        assert density.mean() == pytest.approx(budget, abs=1e-3)
        assert (density >= last).all()
        assert density.max() <= 1
        last = density


def test_the_budget_of_the_profile_is_the_profile():
    plain = at((30.0, 20.0), 48, 64)
    assert np.allclose(at((30.0, 20.0), 48, 64, Density(budget=plain.mean())), plain, atol=1e-4)


def test_a_budget_is_met_in_degrees_too():
    density = Density(0.98, 0.15, 5.0, 10.0, "deg", budget=0.07)
    assert at((30.0, 20.0), 90, 160, density, DISPLAY).mean() == pytest.approx(0.07, abs=1e-3)


def test_the_whole_budget_is_every_pixel():
    assert (at((30.0, 20.0), 48, 64, Density(budget=1.0)) == 1).all()


@pytest.mark.parametrize("budget", [0.1, 0.4])
def test_a_budget_out_of_reach_is_refused(budget):
    # The disc in which every pixel is sampled is 41 % of the frame.
    with pytest.raises(InputError, match=f"{100 * budget:g} % is out of reach") as error:
        at((32.0, 24.0), 48, 64, Density(center=1.0, budget=budget))
    assert len(str(error.value).splitlines()) == 1
    at((32.0, 24.0), 48, 64, Density(center=1.0, budget=0.42))


# --- masks ------------------------------------------------------------------------------------


def test_pixels_are_sampled_as_often_as_their_probability():
    frames = 2000
    density = density_map(torch.tensor([6.0, 5.0]), 12, 16, Density(0.97, 0.05, 1.0, 9.0))
    masks = draw_mask(density.expand(1, frames, 1, 12, 16), seed=11)
    p = density[0].double().numpy()
    z = (masks.sum((0, 1, 2)).numpy() - frames * p) / np.sqrt(frames * p * (1 - p))
    assert np.abs(z).max() < 4.5
    # The spread must be that of independent draws.
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], z.size)
    assert low < (z**2).sum() < high


@NOISE
def test_a_mask_is_of_ones_and_zeros_in_the_dtype_of_the_density(blue_noise):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        mask = draw_mask(uniform(0.4, 2, 9, 13).to(dtype), blue_noise=blue_noise)
        assert mask.shape == (1, 2, 1, 9, 13)
        assert mask.dtype == dtype
        assert mask.unique().tolist() == [0, 1]


@NOISE
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_certainty_is_certain(share, blue_noise):
    assert (draw_mask(uniform(share, 20), blue_noise=blue_noise) == share).all()


@NOISE
def test_the_same_seed_is_the_same_mask_and_another_another(blue_noise):
    def draw(seed):
        return draw_mask(uniform(0.3, 2), seed, blue_noise=blue_noise)

    assert torch.equal(draw(5), draw(5))
    for other in (4, 6, -5, 5 + 2**31):
        assert not torch.equal(draw(5), draw(other))


@NOISE
def test_every_frame_is_another(blue_noise):
    masks = draw_mask(uniform(0.3, 40), blue_noise=blue_noise)
    assert len({mask.numpy().tobytes() for mask in masks[0]}) == 40


@NOISE
def test_a_clip_equals_its_chunks_in_any_order(blue_noise):
    density = density_map(torch.rand(1, 6, 2) * 40, 40, 56)
    whole = draw_mask(density, 7, 100, blue_noise)
    for start, end in ((2, 6), (0, 2), (3, 4)):
        chunk = draw_mask(density[:, start:end], 7, 100 + start, blue_noise)
        assert torch.equal(chunk, whole[:, start:end])


@NOISE
def test_a_batch_equals_its_videos(blue_noise):
    density = density_map(torch.rand(3, 2, 2) * 40, 40, 56)
    seeds = [3, 9, 2**40 + 1]
    both = draw_mask(density, seeds, blue_noise=blue_noise)
    for i, seed in enumerate(seeds):
        assert torch.equal(both[i], draw_mask(density[i : i + 1], seed, blue_noise=blue_noise)[0])
    one_seed = draw_mask(uniform(0.3, batch=2), 3, blue_noise=blue_noise)
    assert torch.equal(one_seed[0], one_seed[1])


def test_as_many_seeds_as_videos():
    with pytest.raises(ValueError, match="received 2 seeds, expected one or 3"):
        draw_mask(uniform(0.3, batch=3), [1, 2])


@NOISE
def test_more_density_keeps_what_was_sampled(blue_noise):
    fewer = draw_mask(uniform(0.2, 3), blue_noise=blue_noise)
    more = draw_mask(uniform(0.3, 3), blue_noise=blue_noise)
    assert (more >= fewer).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@NOISE
def test_a_mask_is_the_same_on_every_device(blue_noise):
    density = density_map(torch.rand(2, 3, 2) * 40, 90, 120)
    here = draw_mask(density, [3, 2**31 + 5], 9, blue_noise)
    there = draw_mask(density.cuda(), [3, 2**31 + 5], 9, blue_noise)
    assert there.is_cuda
    assert torch.equal(there.cpu(), here)


# --- independent draws ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 123456789])
def test_draws_are_uniform(seed):
    counts = np.bincount(thresholds_16(seed, 4, 128, 128).ravel(), minlength=16)
    assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3


@pytest.mark.parametrize("seed", [0, 77])
def test_neighbours_are_independent(seed):
    sixteenths = thresholds_16(seed, 1, 128, 128)[0]
    for other in (sixteenths[:, 1:], sixteenths[1:], sixteenths[1:, 1:], sixteenths[16:]):
        pairs = 16 * sixteenths[: len(other), : other.shape[1]] + other
        counts = np.bincount(pairs.ravel(), minlength=256)
        assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3


def test_frames_and_seeds_are_independent_at_every_shift():
    fields = [thresholds_16(seed, 3, 128, 128) for seed in (0, 1, 2, 1000)]
    spectra = np.fft.fft2(np.concatenate(fields) - 7.5)
    power = np.sqrt((np.abs(spectra) ** 2).mean((1, 2)) * 128 * 128)
    for i in range(len(spectra)):
        for j in range(i):
            correlation = np.fft.ifft2(spectra[i] * spectra[j].conj()).real * 128 * 128
            correlation = correlation / power[i] / power[j]
            # 16384 shifts of 66 pairs: a million normal deviates of sigma 1 / 128.
            assert np.abs(correlation).max() < 6.5 / 128


def test_nothing_repeats_inside_a_wide_frame():
    spectrum = np.fft.fft2(thresholds_16(0, 1, 64, 2048)[0] - 7.5)
    correlation = np.fft.ifft2(np.abs(spectrum) ** 2).real
    correlation = np.abs(correlation / correlation[0, 0]).ravel()[1:]
    assert correlation.max() < 6.5 / math.sqrt(64 * 2048)


# --- blue noise -------------------------------------------------------------------------------


def low_frequencies(masks):
    """Mean power [T] below a tenth of a cycle per pixel, 1 for white noise of that share."""
    mask = masks[0, :, 0].double()
    share = mask.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(mask - share).abs().square() / mask[0].numel()
    frequency = torch.fft.fftfreq(mask.shape[-1])
    radius = torch.hypot(frequency, frequency[:, None])
    low = power[:, (radius > 0) & (radius < 0.1)].mean(1)
    return low / (share * (1 - share)).flatten()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_blue_noise_is_even_in_space(share):
    # 64 is the period of the texture, so the spectrum is without leakage.
    blue = low_frequencies(draw_mask(uniform(share, 8), 3, blue_noise=True))
    white = low_frequencies(draw_mask(uniform(share, 8), 3))
    assert blue.max() < 0.15
    assert white.min() > 0.6


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_blue_noise_is_even_over_a_few_frames(share):
    """The samples of four frames together are spread more evenly than independent ones."""
    both = {}
    for blue in (True, False):
        masks = draw_mask(uniform(share, 16), 3, blue_noise=blue)
        together = torch.stack([masks[0, t : t + 4].amax(0) for t in range(0, 16, 4)])[None]
        both[blue] = low_frequencies(together).mean()
    assert both[True] < 0.55 * both[False]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_blue_noise_hardly_repeats_from_frame_to_frame(share):
    """A sampled pixel is less likely to be sampled in the next frames, also between cycles."""
    masks = draw_mask(uniform(share, 64), 1, blue_noise=True)[0, :, 0].double() - share
    for later in (1, 2, 3):
        correlation = (masks[later:] * masks[:-later]).mean((1, 2)) / (share * (1 - share))
        assert correlation.mean() < 0.0
        assert correlation.abs().max() < 0.12  # 64² pixels: independent ones stay below 0.07


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_blue_noise_visits_every_pixel(share):
    """Every pixel is sampled at some time, as the tile moves after each cycle."""
    frames = round(16 / share)  # independent draws would leave out 1e-7
    visits = draw_mask(uniform(share, frames), 1, blue_noise=True)
    assert visits.amax(1).min() == 1


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_blue_noise_has_the_share_in_every_frame(share):
    masks = draw_mask(uniform(share, 40), 5, blue_noise=True)
    assert (masks.double().mean((0, 2, 3, 4)) - share).abs().max() <= 1 / 64**2


def test_blue_noise_follows_the_density():
    density = density_map(torch.tensor([30.0, 20.0]), 48, 64)
    masks = draw_mask(density.expand(1, 400, 1, 48, 64), 5, blue_noise=True)
    deviation = (masks.mean((0, 1, 2)) - density[0]).abs()
    assert deviation.max() < 4.5 * math.sqrt(0.25 / 400)  # of independent draws, at most


def test_each_frame_of_the_ranks_holds_every_rank_once():
    ranks = blue_noise_ranks()
    assert ranks.dtype == np.uint16
    assert ranks.shape == (16, 64, 64)
    assert (np.sort(ranks.reshape(16, -1), 1) == np.arange(4096)).all()


def test_the_script_that_made_the_ranks_makes_such():
    path = Path(__file__).parents[1] / "research" / "blue_noise.py"
    names = runpy.run_path(str(path))
    ranks = names["void_and_cluster"](size=12, frames=4)
    assert (np.sort(ranks.reshape(4, -1), 1) == np.arange(144)).all()
    for chosen in ranks < 9:  # a 16th of the pixels: in a square lattice they are 4 pixels apart
        places = np.argwhere(chosen)
        apart = np.abs(places[:, None] - places)
        distance = np.hypot(*np.moveaxis(np.minimum(apart, 12 - apart), -1, 0))
        assert distance[distance > 0].min() >= 2.0  # of independent draws 1, mostly


# --- sampling ---------------------------------------------------------------------------------


@NOISE
def test_samples_are_the_frame_where_sampled_and_black_elsewhere(blue_noise):
    frames = 0.1 + 0.9 * torch.rand(2, 3, 3, 40, 56)
    gaze = torch.rand(2, 3, 2) * 40
    samples, mask = sample(frames, gaze, seed=[4, 5], first_frame=6, blue_noise=blue_noise)
    assert torch.equal(mask, draw_mask(density_map(gaze, 40, 56), [4, 5], 6, blue_noise))
    assert torch.equal(samples, torch.where(mask > 0, frames, torch.zeros(())))
    assert samples.dtype == mask.dtype == torch.float32


def test_sampling_follows_the_gaze():
    frames = torch.ones(1, 2, 3, 100, 100)
    _, mask = sample(frames, torch.tensor([[[20.0, 20.0], [80.0, 80.0]]]))
    corners = mask[0, :, 0].unfold(1, 40, 60).unfold(2, 40, 60).mean((-2, -1))
    assert corners[0, 0, 0] > 0.8 > 0.3 > corners[0, 1, 1]
    assert corners[1, 1, 1] > 0.8 > 0.3 > corners[1, 0, 0]


def test_nothing_may_be_sampled():
    frames = torch.rand(1, 2, 3, 16, 24)
    samples, mask = sample(frames, torch.zeros(1, 2, 2), Density.parse("uniform:0"))
    assert not samples.any()
    assert not mask.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws_the_same_mask(dtype):
    frames, gaze = torch.ones(1, 8, 3, 90, 120), torch.full((1, 8, 2), 45.0)
    _, mask = sample(frames.to(dtype), gaze)
    assert mask.dtype == dtype
    assert torch.equal(mask.float(), sample(frames, gaze)[1])


# --- the published low resolution -------------------------------------------------------------


def test_reduced_by_four_is_the_mean_of_the_middle_of_each_block():
    frames = torch.rand(2, 3, 3, 24, 40)
    middle = frames.unflatten(-1, (10, 4)).unflatten(-3, (6, 4))[..., 1:3, :, 1:3]
    assert middle.shape == (2, 3, 3, 6, 2, 10, 2)
    torch.testing.assert_close(downsample(frames), middle.mean((-1, -3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_reduced_is_bilinear_without_antialiasing(scale):
    frames = torch.rand(2, 3, 24, 36)
    expected = vision.resize(frames, [24 // scale, 36 // scale], antialias=False)
    torch.testing.assert_close(downsample(frames, scale), expected, rtol=0, atol=1e-6)
    single = downsample(frames[0], scale)
    assert torch.equal(single, downsample(frames, scale)[0])


def test_the_gradient_of_samples_reaches_the_frames_that_were_sampled():
    frames = torch.rand(1, 2, 3, 12, 16, requires_grad=True)
    samples, mask = sample(frames, torch.full((1, 2, 2), 6.0))
    samples.sum().backward()
    assert torch.equal(frames.grad, mask.expand_as(frames))
    assert torch.equal(samples, sample(frames.detach(), torch.full((1, 2, 2), 6.0))[0])
