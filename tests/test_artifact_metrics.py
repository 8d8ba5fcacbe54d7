"""Claims about flicker, mask imprint and raggedness: what each metric detects and ignores."""

import math

import pytest
import torch
import torch.nn.functional as F

from deepfovea.config import Density
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample, eccentricity_map, sample
from deepfovea.metrics import METRICS, Reference
from deepfovea.metrics.flicker import NOISE_FLOOR
from deepfovea.metrics.mask_imprint import FIRST_FRAME, at_samples
from deepfovea.resample import upsample_bicubic

DENSITY = Density(0.98, 0.15, 4.0, 8.0)
HEIGHT, WIDTH = 160, 192


def reference_of(frames, mask=None, frame_number=FIRST_FRAME, **known):
    """The reference for frames [T, 3, H, W], with the gaze at the centre."""
    time, _, height, width = frames.shape
    h, w = height // 4, width // 4
    gaze_px = torch.tensor([(w - 1) / 2, (h - 1) / 2]).expand(time, 2)
    return Reference(
        frames=frames,
        mask=torch.ones(time, 1, h, w) if mask is None else mask,
        gaze_px=gaze_px,
        eccentricity=eccentricity_map(gaze_px, h, w, DENSITY),
        density=DENSITY,
        frame_number=frame_number,
        **known,
    )


def texture(seed=0, time=1):
    """Detail at several scales, [T, 3, H, W] in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(time, 3, HEIGHT, WIDTH)
    for scale in (1, 2, 4, 8, 16):
        noise = torch.rand(time, 3, HEIGHT // scale, WIDTH // scale, generator=generator) - 0.5
        total += scale**0.5 * F.interpolate(noise, (HEIGHT, WIDTH), mode="bicubic")
    return (0.5 + 0.08 * total).clamp(0.0, 1.0)


def edge(angle, offset=0.0, width=1.0, wave=0.0):
    """A step from 0.2 to 0.8 through the middle, [1, 3, H, W]; its position may wave, in pixels."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    x, y = x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2
    normal = x * math.cos(angle) + y * math.sin(angle)
    tangent = y * math.cos(angle) - x * math.sin(angle)
    place = offset + wave * torch.sin(2 * math.pi * tangent / 8)
    return (0.5 + 0.3 * torch.tanh((normal - place) / width)).expand(1, 3, -1, -1)


# --- mask imprint -----------------------------------------------------------------------------

imprint = METRICS["mask_imprint"].function


def masked(frames, seed=0):
    """The reference of frames and a mask, with the samples [T, 3, h, w]."""
    low = downsample(frames)
    gaze = torch.tensor([(low.shape[-1] - 1) / 2, (low.shape[-2] - 1) / 2])
    samples, mask = sample(low[None], gaze.expand(1, len(low), 2), DENSITY, seed=seed)
    return reference_of(frames, mask[0]), samples[0], mask[0]


def test_what_does_not_know_the_mask_has_no_imprint():
    values = {"original": [], "bicubic": []}
    for seed in range(8):
        frames = texture(seed)
        reference, _, _ = masked(frames, seed)
        values["original"].append(imprint(frames, reference))
        values["bicubic"].append(imprint(upsample_bicubic(downsample(frames)), reference))
    for numbers in values.values():
        assert sum(numbers) / len(numbers) == pytest.approx(1.0, abs=0.03)


def test_fresh_samples_on_a_smooth_filling_are_seen_as_dots():
    frames = texture()
    reference, samples, mask = masked(frames)
    smooth = upsample_bicubic(F.avg_pool2d(pull_push(samples, mask), 5, 1, 2))
    dots = smooth.clone()
    for y, x in mask[0, 0].nonzero().tolist():  # the four pixels that a sample was the mean of
        block = dots[..., 4 * y + 1 : 4 * y + 3, 4 * x + 1 : 4 * x + 3]
        block.copy_(samples[:, :, y, x, None, None])
    assert imprint(dots, reference) > 2.0 * imprint(smooth, reference)
    assert imprint(dots, reference) > 1.5


def test_a_low_resolution_pixel_is_the_cell_of_the_pixels_it_is_the_mean_of():
    frames = texture()
    cells = F.avg_pool2d(frames, 2, padding=1, count_include_pad=False)[..., 1:, 1:]
    torch.testing.assert_close(cells[..., ::2, ::2], downsample(frames))
    values, inside = at_samples(cells[0, 0])
    torch.testing.assert_close(values, downsample(frames)[0, 0])
    assert inside.all()


def test_the_sampling_grid_may_be_jittered():
    cells = torch.arange(8 * 10).view(8, 10)
    for jitter, dx, dy in (((0.5, -0.5), 1, -1), ((-0.2, 0.3), 0, 1), ((0.1, 0.2), 0, 0)):
        values, inside = at_samples(cells, torch.tensor(jitter))
        for y in range(4):
            for x in range(5):
                i, j = 2 * y + dy, 2 * x + dx
                assert inside[y, x] == (0 <= i < 8 and 0 <= j < 10)
                if inside[y, x]:
                    assert values[y, x] == cells[i, j]
    frames, shift = texture(), torch.tensor([[0.5, 0.0]])
    _, _, mask = masked(frames)
    dots = frames.clone()
    for y, x in mask[0, 0].nonzero().tolist():
        dots[..., 4 * y + 1 : 4 * y + 3, 4 * x + 3 : 4 * x + 5] = 1.0
    assert imprint(dots, reference_of(frames, mask, jitter=shift)) > 1.5


def test_only_the_periphery_of_later_frames_has_an_imprint():
    frames = texture()
    reference, _, mask = masked(frames)
    assert math.isnan(imprint(frames, reference_of(frames, mask, FIRST_FRAME - 1)))
    assert math.isnan(imprint(torch.zeros_like(frames), reference))
    changed = frames.clone()
    middle = reference.eccentricity[0] < DENSITY.outer - 1.5  # a Laplacian reaches a cell farther
    changed[..., middle.repeat_interleave(4, -2).repeat_interleave(4, -1)] = 0.0
    assert imprint(changed, reference) == imprint(frames, reference)


# --- flicker ----------------------------------------------------------------------------------

flicker = METRICS["flicker"].function


def test_the_original_does_not_flicker():
    frames = texture().repeat(2, 1, 1, 1)
    noisy = frames + 0.004 * torch.rand(frames.shape, generator=torch.Generator().manual_seed(0))
    for video in (frames, noisy):
        assert flicker(video, reference_of(video)) == 1.0


def test_flicker_is_the_change_where_the_original_rests():
    truth = texture().repeat(2, 1, 1, 1)
    truth[1, :, :, : WIDTH // 2] = 0.9  # something appears
    result = truth.clone()
    result[1, :, :, WIDTH // 2 + 8 :] += 0.02  # breathes
    result[1, :, :, : WIDTH // 2 - 8] = 0.0  # wrong, but it moves there
    still = WIDTH // 2 - 4  # columns; those near the motion are left out
    expected = (0.02 * (still - 4) / still + NOISE_FLOOR) / NOISE_FLOOR
    assert flicker(result, reference_of(truth)) == pytest.approx(expected, rel=1e-4)


def test_where_all_moves_flicker_is_not_judged():
    truth = torch.cat([texture(0), texture(1)])
    assert math.isnan(flicker(truth, reference_of(truth)))


# --- raggedness -------------------------------------------------------------------------------

raggedness = METRICS["raggedness"].function
ANGLES = [0.15, 0.5, 1.0, 1.9, 2.8]


@pytest.mark.parametrize("angle", ANGLES)
def test_staircases_along_an_edge_are_ragged(angle):
    truth = edge(angle)
    reference, low = reference_of(truth), downsample(truth)
    nearest = low.repeat_interleave(4, -2).repeat_interleave(4, -1)
    bilinear = F.interpolate(low, scale_factor=4, mode="bilinear")
    blurred = F.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    assert raggedness(truth, reference) == 0.0
    assert raggedness(nearest, reference) > 0.15
    assert raggedness(bilinear, reference) < 0.9 * raggedness(nearest, reference)
    assert raggedness(blurred, reference) < 0.02
    assert raggedness(edge(angle, offset=1.0), reference) < 0.02  # in another place, but straight


@pytest.mark.parametrize("angle", ANGLES)
def test_raggedness_is_the_root_mean_square_of_the_wave(angle):
    value = raggedness(edge(angle, wave=0.5), reference_of(edge(angle)))
    assert value == pytest.approx(0.5 / math.sqrt(2.0), rel=0.2)


def test_without_an_edge_there_is_no_raggedness():
    flat = torch.full((1, 3, HEIGHT, WIDTH), 0.5)
    assert math.isnan(raggedness(flat, reference_of(flat)))
    assert math.isnan(raggedness(flat, reference_of(edge(0.5))))  # all edges are lost
