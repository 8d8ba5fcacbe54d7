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


def photograph(height=96, width=128):
    """A part of a photograph from scikit-image: [1, 3, height, width]."""
    from skimage import data

    pixels = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    small = F.interpolate(pixels, (400, 512), mode="bilinear", antialias=True)
    return small[..., 60 : 60 + height, 150 : 150 + width]


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


def still(jitter, frames=8, size=(128, 160), density=ALL_PIXELS, net=None):
    """The frames reconstructed from a still scene, and the truth.

    The network receives zero motion, as a renderer would give it.
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
    """Shifting the sampling grid equals shifting the frame the other way."""
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
    """Each quarter of the pixel has four of sixteen offsets, each column and row has one."""
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
    """With all pixels sampled, shifted grids reveal detail that a single grid cannot."""
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
    """In every phase, the frame fits the truth best without a shift."""
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


def periods(frames):
    """Change over time of 16 frames [16,3,H,W] at each whole frequency: root mean square, of 255.

    The eighth is that of a period of two frames, the fourth that of four.
    """
    luma = frames.mean(1)
    spectrum = torch.fft.rfft(luma - luma.mean(0), dim=0) / len(luma)
    return 255 * (2 * spectrum.abs().square().mean((1, 2))).sqrt()[1:]


def test_what_rests_does_not_shimmer_with_the_phases():
    """For a still photograph without given motion, the frames lie on a single grid."""
    truth = photograph()
    offsets = jitter_sequence("quad", 0, 24)[None]
    low = downsample(truth.expand(24, -1, -1, -1), jitter=offsets[0])[None]
    gaze = torch.tensor([15.5, 11.5]).expand(1, 24, 2)
    samples, mask = sample(low, gaze, blue_noise=True)
    with torch.inference_mode():
        frames, _ = deepfovea.load("stream")(samples, mask, None, jitter=offsets)
    assert periods(frames[0, 8:]).max() < 2.5  # 4.3 where each phase is painted on its own grid


def test_a_jump_of_the_gaze_leaves_no_grid_behind():
    """At the earlier gaze, the spectrum has no peak at a period of the phases."""
    truth = photograph(128, 192)
    offsets = jitter_sequence("quad", 0, 14)[None]
    low = downsample(truth.expand(14, -1, -1, -1), jitter=offsets[0])[None]
    gaze = torch.tensor([12.0, 15.5]).repeat(1, 14, 1)
    gaze[:, 8:, 0] = 80.0
    samples, mask = sample(low, gaze, blue_noise=True)
    with torch.inference_mode():
        frames, _ = deepfovea.load("stream")(samples, mask, None, jitter=offsets)
    before = frames[0, 8:, :, 32:96, 16:80].mean(1)  # [6,64,64] around the first gaze
    window = torch.hann_window(64, periodic=False)
    detail = (before - before.mean((1, 2), keepdim=True)) * window * window[:, None]
    power = torch.fft.fft2(detail).abs().square().mean(0)
    near = [(y, x) for y in range(-4, 5) for x in range(-4, 5) if max(abs(y), abs(x)) > 1]
    for y, x in ((16, 0), (0, 16), (16, 16), (16, -16)):  # of 64: a period of four output pixels
        around = torch.stack([power[y + j, x + i] for j, i in near]).mean()
        assert power[y, x] < 3.0 * around


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"jitter": torch.zeros(1, 2)},
            r"jitter: received the shape \[1, 2\], expected \[1, 3, 2\]",
        ),
        ({"jitter": torch.zeros(1, 3, 3)}, r"\[1, 3, 3\], expected \[1, 3, 2\]"),
        ({"motion": torch.zeros(1, 3, 2, 8, 9)}, r"motion: .*expected \[1, 3, 2, 16, 24\]"),
    ],
)
def test_another_shape_is_refused(given, complaint):
    samples = torch.zeros(1, 3, 3, 16, 24)
    with pytest.raises(InputError, match=complaint):
        StreamNet()(samples, samples[:, :, :1], None, **given)


def test_videos_of_a_batch_have_their_own_offsets():
    _, _, (samples, mask, _, offsets) = still("quad", frames=3, density=Density())
    net = deepfovea.load("stream")
    both = torch.cat([offsets, torch.zeros_like(offsets)])
    with torch.inference_mode():
        batch, _ = net(samples.repeat(2, 1, 1, 1, 1), mask.repeat(2, 1, 1, 1, 1), None, jitter=both)
        for result, offset in zip(batch, both, strict=True):
            alone, _ = net(samples, mask, None, jitter=offset[None])
            assert psnr(result, alone[0]) > 60.0
