"""Claims about the known sub-pixel shifts of the sampling grid."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import deepfovea
from deepfovea.config import Density, InputError
from deepfovea.fovea import HALTON_LENGTH, QUAD, downsample, jitter_sequence, sample
from deepfovea.generators.stream.net import StreamNet

ALL_PIXELS = Density(center=1.0, periphery=1.0)


def band_limited(height, width, seed=0):
    """A picture with detail down to four output pixels, octave by octave as in natural ones."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.full((1, 3, height, width), 0.5)
    for octave in (2, 4, 8, 16, 32):
        noise = torch.rand(1, 1, height // octave, width // octave, generator=generator) - 0.5
        picture += 0.05 * octave**0.5 * F.interpolate(noise, (height, width), mode="bicubic")
    return picture.clamp(0, 1)


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


def still(jitter, frames=8, size=(128, 160), density=ALL_PIXELS, net=None):
    """The result for a scene at rest, frame by frame, and the truth.

    That nothing moves is told, as a renderer would.
    """
    truth = band_limited(*size)
    offsets = jitter_sequence(jitter, 0, frames)
    low = downsample(truth.expand(frames, -1, -1, -1), jitter=offsets)[None]
    gaze = torch.tensor([19.5, 15.5]).expand(1, frames, 2)
    samples, mask = sample(low, gaze, density, seed=3)
    offsets = None if offsets is None else offsets[None]
    motion = torch.zeros(1, frames, 2, *low.shape[-2:])
    with torch.inference_mode():
        result, _ = (net or deepfovea.load("stream"))(samples, mask, None, motion, offsets)
    return result[0], truth[0], (samples, mask, motion, offsets)


def test_no_offset_is_the_published_low_resolution():
    video = torch.rand(3, 3, 32, 48)
    torch.testing.assert_close(downsample(video, jitter=torch.zeros(3, 2)), downsample(video))


@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, 2), (2, 2), (-1, 1), (4, -4)])
def test_whole_output_pixels_are_a_shift_of_the_frame(x, y):
    """Pixel (i, j) shows what the published one shows when the frame is moved the other way."""
    video = torch.rand(1, 3, 64, 64)
    moved = torch.roll(video, (-y, -x), (-2, -1))
    got = downsample(video, jitter=torch.tensor([[x / 4, y / 4]]))
    torch.testing.assert_close(got[..., 2:-2, 2:-2], downsample(moved)[..., 2:-2, 2:-2])


def test_each_frame_has_its_own_offset():
    video = torch.rand(1, 3, 32, 32).expand(4, -1, -1, -1)
    offsets = jitter_sequence("quad", 0, 4)
    for t in range(4):
        alone = downsample(video[t], jitter=offsets[t])
        torch.testing.assert_close(downsample(video, jitter=offsets)[t], alone)


def test_quad_visits_each_cell_of_the_canvas_once():
    assert {(2 * x % 2, 2 * y % 2) for x, y in QUAD} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_halton_is_spread_evenly():
    """Each quarter of the pixel is met by four of sixteen offsets, each column and row by one."""
    offsets = jitter_sequence("halton", 0, HALTON_LENGTH).double().numpy()
    assert (np.abs(offsets) <= 0.5).all()
    quarters = np.floor(2 * offsets).astype(int)
    _, counts = np.unique(quarters, axis=0, return_counts=True)
    assert counts.max() <= 5 and counts.min() >= 3
    # SciPy's sequence is the independent one; it begins at zero, ours at its second element.
    from scipy.stats import qmc

    expected = qmc.Halton(2, scramble=False).random(HALTON_LENGTH + 1)[1:] - 0.5
    np.testing.assert_allclose(offsets, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["quad", "halton"])
def test_a_sequence_is_the_same_in_parts(kind):
    whole = jitter_sequence(kind, 0, 40)
    parts = [jitter_sequence(kind, 0, 7), jitter_sequence(kind, 7, 33)]
    assert torch.equal(whole, torch.cat(parts))


def test_an_unknown_sequence_is_refused():
    with pytest.raises(InputError, match="expected one of none, quad, halton"):
        jitter_sequence("sobol", 0, 4)


@pytest.mark.parametrize("kind", ["quad", "halton"])
def test_a_scene_at_rest_converges_to_the_full_resolution(kind):
    """With all pixels sampled, shifted grids show what one never does: judged by the truth."""
    torch.manual_seed(0)
    accumulator = StreamNet().eval()  # the geometry alone, nothing learned
    shifted, truth, _ = still(kind, frames=12, net=accumulator)
    rested, _, _ = still("none", frames=12, net=accumulator)
    inside = (..., slice(16, -16), slice(16, -16))
    assert psnr(shifted[-1][inside], truth[inside]) > psnr(rested[-1][inside], truth[inside]) + 2.5


def test_the_offset_has_to_be_told():
    told, truth, (samples, mask, motion, _) = still("quad")
    with torch.inference_mode():
        untold, _ = deepfovea.load("stream")(samples, mask, None, motion)
    assert psnr(told[-1], truth) > psnr(untold[0, -1], truth) + 3.0


def test_an_offset_of_zero_is_no_offset():
    _, _, (samples, mask, _, _) = still("none", frames=4, density=Density())
    net = deepfovea.load("stream")
    with torch.inference_mode():
        plain, _ = net(samples, mask, None)
        zero, _ = net(samples, mask, None, jitter=torch.zeros(1, 4, 2))
    # Single pixels take another motion where rounding decides.
    assert psnr(plain, zero) > 60.0


def test_frames_of_every_phase_lie_on_the_output_grid():
    """The best whole-pixel alignment with the truth is none, in every phase."""
    result, truth, _ = still("quad")
    for frame in result[4:]:
        middle = frame[..., 16:-16, 16:-16]
        errors = {
            (y, x): float(
                (middle - truth[..., 16 + y : -16 + y or None, 16 + x : -16 + x or None])
                .abs()
                .mean()
            )
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        }
        assert min(errors, key=errors.__getitem__) == (0, 0)


@pytest.mark.parametrize("kind", ["quad", "halton"])
def test_a_clip_equals_its_frames_one_by_one(kind):
    result, _, (samples, mask, motion, offsets) = still(kind, frames=5, density=Density())
    net, state = deepfovea.load("stream"), None
    with torch.inference_mode():
        for t in range(5):
            part = slice(t, t + 1)
            frame, state = net(
                samples[:, part], mask[:, part], state, motion[:, part], offsets[:, part]
            )
            torch.testing.assert_close(frame[0, 0], result[t])


def test_videos_of_a_batch_have_their_own_offsets():
    _, _, (samples, mask, _, offsets) = still("quad", frames=3, density=Density())
    net = deepfovea.load("stream")
    both = torch.cat([offsets, torch.zeros_like(offsets)])
    with torch.inference_mode():
        batch, _ = net(samples.repeat(2, 1, 1, 1, 1), mask.repeat(2, 1, 1, 1, 1), None, jitter=both)
        for result, offset in zip(batch, both, strict=True):
            alone, _ = net(samples, mask, None, jitter=offset[None])
            assert psnr(result, alone[0]) > 60.0
