"""Changes of brightness and cuts between two frames, and their effect on the network."""

import pytest
import torch
import torch.nn.functional as F

import deepfovea
from deepfovea.config import PUBLISHED_DENSITY
from deepfovea.fovea import density_map, draw_mask
from deepfovea.generators.stream.scene_change import exposure_gain, scene_continuity
from deepfovea.metrics.pixel import psnr


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def scene(batch=2, height=32, width=40, share=0.2):
    mask = torch.rand(batch, 1, height, width) < share
    return torch.rand(batch, 3, height, width), mask.float()


@pytest.mark.parametrize("factor", [0.6, 0.97, 1.0, 1.1, 1.7])
def test_a_change_of_brightness_is_found(factor):
    reference, mask = scene()
    gain = exposure_gain(factor * reference * mask, mask, reference)
    torch.testing.assert_close(gain, torch.full((2, 3, 1, 1), factor), atol=1e-4, rtol=0)


def test_channels_change_apart():
    reference, mask = scene()
    factors = torch.tensor([0.9, 1.0, 1.2]).view(1, 3, 1, 1)
    gain = exposure_gain(factors * reference * mask, mask, reference)
    torch.testing.assert_close(gain, factors.expand(2, 3, 1, 1), atol=1e-4, rtol=0)


def test_what_moves_does_not_decide():
    """A fifth of the frame is replaced by something brighter; the rest keeps its brightness."""
    reference, mask = scene(share=0.5)
    target = reference.clone()
    target[..., :6, :] = 0.5 + 0.5 * torch.rand(2, 3, 6, 40)
    plain = (target * mask).mean((2, 3)) / (reference * mask).mean((2, 3))
    gain = exposure_gain(target * mask, mask, reference)
    assert (plain - 1.0).min() > 0.05
    assert ((gain[..., 0, 0] - 1.0).abs() < 0.5 * (plain - 1.0)).all()


def test_without_samples_nothing_changes():
    reference, mask = scene()
    assert torch.equal(exposure_gain(0 * reference, 0 * mask, reference), torch.ones(2, 3, 1, 1))


def test_another_scene_is_left_as_it_is():
    reference, mask = scene()
    other = 0.4 * torch.rand_like(reference)
    assert (exposure_gain(other * mask, mask, reference) - 1.0).abs().max() < 0.02


def test_the_change_is_bounded():
    reference, mask = scene()
    gain = exposure_gain(0.2 * reference * mask, mask, reference)
    torch.testing.assert_close(gain, torch.full((2, 3, 1, 1), 0.5))


def test_a_scene_goes_on_while_most_of_it_is_confirmed():
    carried, mask = scene(height=64, share=0.5)
    confidence = torch.ones_like(mask)
    other = torch.rand_like(carried)
    half = torch.where(torch.arange(40) < 20, carried, other)
    assert scene_continuity(carried * mask, mask, carried, confidence).eq(1.0).all()
    assert scene_continuity(half * mask, mask, carried, confidence).eq(1.0).all()
    assert scene_continuity(other * mask, mask, carried, confidence).eq(0.0).all()


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.06])
def test_noise_on_a_plain_wall_is_no_cut(noise):
    wall = torch.full((2, 3, 48, 64), 0.4)
    reference, target = (wall + noise * torch.randn_like(wall) for _ in range(2))
    all_known = torch.ones(2, 1, 48, 64)
    assert scene_continuity(target, all_known, reference, all_known).eq(1.0).all()


def test_motion_missed_by_a_pixel_is_no_cut():
    texture = torch.rand(2, 3, 48, 64)
    coarse = F.interpolate(torch.rand(2, 3, 6, 8), (48, 64), mode="bicubic")
    scene, mask = 0.5 * texture + 0.5 * coarse, (torch.rand(2, 1, 48, 64) < 0.2).float()
    missed = scene.roll(1, -1)
    assert (missed - scene).abs().mean() > 0.9 * (texture - texture.mean()).abs().mean() / 2
    assert scene_continuity(scene * mask, mask, missed, torch.ones_like(mask)).eq(1.0).all()


def test_without_evidence_a_scene_goes_on():
    carried, mask = scene()
    other = torch.rand_like(carried)
    few = mask * (mask.flatten(1).cumsum(1).view_as(mask) <= 5)
    nothing = torch.zeros_like(mask)
    for known, confidence in ((mask, nothing), (nothing, mask), (few, torch.ones_like(mask))):
        assert scene_continuity(other * known, known, carried, confidence).eq(1.0).all()


def test_a_flickering_lamp_costs_the_shipped_network_little():
    """A still scene is completed under a lamp that flickers by 15 % as it is under a steady one."""
    net = deepfovea.load("stream").eval()
    x, y = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="xy")
    waves = [torch.sin(x / a + y / b + c) for a, b, c in ((5, 17, 0), (-9, 6, 1), (23, 4, 2))]
    still = (0.45 + 0.15 * torch.stack(waves)).expand(1, 12, 3, 256, 256)
    gaze = torch.tensor([[32.0, 32.0]]).repeat(12, 1)
    mask = draw_mask(density_map(gaze, 64, 64, PUBLISHED_DENSITY)[None], seed=0, first_frame=0)
    lamp = 1.0 + 0.15 * torch.cos(2.1 * torch.arange(12.0)).view(1, 12, 1, 1, 1)
    quality = []
    for frames in (still, lamp * still):
        low = deepfovea.fovea.downsample(frames)
        with torch.inference_mode():
            output, _ = net(low * mask, mask.float())
        quality.append(float(psnr(output[:, -1:], frames[:, -1:]).mean()))
    assert quality[1] > quality[0] - 0.5
